"""Forget examples: take their contribution out of the weights, as if the network had been trained without them."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import torch
from torch import Tensor

from memspace.arguments import typed
from memspace.editing.damping import choose, from_trial, trial_set
from memspace.editing.edit import Cost, Edit, checked_examples, edited_state
from memspace.editing.effects import effects_of
from memspace.editing.gradients import bregman_gradient, loss_gradient
from memspace.editing.solver import METHODS, Accuracy, Solver, outputs_per_example, pick_method
from memspace.limits import COUNT, DAMPING, SEED, one_of
from memspace.measurement import Measurement
from memspace.measures.damping import DampingChoice, damping_unit
from memspace.metric.fisher import build
from memspace.metric.metric import FisherMetric
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.task.task import Task
from memspace.training.refit import rest_of

__all__ = ["forget"]

SAMPLED = 2_000  # examples that the metric of a damping trial is averaged over


@typed
def forget(
    task: Task,
    examples: Tensor | list[int],
    *,
    damping: float | None = None,
    method: str = "auto",
    steps: int = 1,
    accuracy: Accuracy | None = None,
    seed: int = 0,
) -> Edit:
    """Take examples out of the weights: θ' = θ + M⁻¹ Σ_{i∈S} ∇ℓ_i, M = Σ_{i∉S} J_iᵀH_iJ_i + αI, α = Nγ.

    This is a damped Newton step without the set S. Only the set's own contribution is removed: where the training was
    stopped before it settled, it stays as unsettled as it was. Further steps are Newton steps on
    Σ_{i∉S} D(f'_i, f_i) − Σ_{i∈S} ∇ℓ_i·(f'_i − f_i) + α/2‖θ' − θ‖² (the proximal Bregman response of Bae et al. 2022).
    Exact for linear models with square loss in one step, and for generalised linear models at their optimum in the
    limit of many; else first order in the size of the set.

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name.
        examples: positions of training examples.
        damping: γ of (F + γI)⁻¹, the L2 decay of the mean loss; chosen where not given: by the training's time for
            SGD, else by forgetting other examples and one refit, else by the evidence (flagged).
        method: auto, dual, cg or ekfac (see ``memspace.editing.solver``).
        steps: Newton steps.
        accuracy: of the conjugate gradients.
        seed: of sampled labels and of the trial that chooses the damping.

    Returns:
        the edited weights with predicted and measured effects; the task's model is as it was.

    Raises:
        DataError: no examples, some that are not there, or all of them.
        NonFiniteError: the step has left the finite numbers.
        SettingsError: an unknown method, fewer than one step, or a damping out of its range.
    """
    start = time.perf_counter()
    damping, seed = DAMPING.optional(damping, "damping"), SEED(seed, "seed")
    method, steps = one_of(method, METHODS, "method"), COUNT(steps, "steps")
    index = checked_examples(task, examples)
    n = len(task.train)
    rest = rest_of(n, index)
    space = verified_space(task)
    method = pick_method(method, len(rest) * outputs_per_example(task))
    solver = Solver(task, space, rest, method, accuracy or Accuracy(), seed)
    choice = _damping(task, space, index, solver, damping, seed)
    alpha = n * choice.value
    theta = space.flat(task.model).double()
    g = loss_gradient(task, space, index=index)
    spent = len(index)
    change = solver(g / len(rest), alpha / len(rest))
    for _ in range(steps - 1):
        at = theta + change
        gradient = bregman_gradient(task, space, at, rest) - g + alpha * change
        solver = _moved(solver, task, space, at)
        change = change - solver(gradient / len(rest), alpha / len(rest))
        spent += 2 * len(rest)
    state = edited_state(task, space, theta + change)
    solved = solver.measured("forget")
    seconds = time.perf_counter() - start
    times = "" if steps == 1 else f", {steps} steps"
    how = f"damped Newton step, {solver.told}, γ = {choice.value:.3g} ({choice.rule}){times}"
    cost = Cost(spent + solver.gradients, solver.products, seconds)
    measurements = (_damping_of(choice, n), *solved, *effects_of(task, space, state, change, index, rest))
    statement = f"{len(index)} of {n} training examples forgotten: {how}"
    return Edit("forget", state, index, change, measurements, how, choice.value, cost, statement)


def _moved(solver: Solver, task: Task, space: ParameterSpace, theta: Tensor) -> Solver:
    """The solver at other weights; what it has spent is carried on."""
    model = copy.deepcopy(task.model)
    model.load_state_dict(edited_state(task, space, theta))
    fresh = replace(task, model=model, run=None)
    spent = (solver.gradients, solver.products)
    return Solver(fresh, space, solver.kept, solver.method, solver.accuracy, solver.seed, *spent)


def _damping(
    task: Task, space: ParameterSpace, index: Tensor, solver: Solver, given: float | None, seed: int
) -> DampingChoice:
    positions = outputs(task, task.train, index=torch.tensor([0]))[0][0, ..., 0].numel()

    def trial() -> DampingChoice:
        other = trial_set(len(task.train), index, seed)
        rest = rest_of(len(task.train), other)
        few = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[:SAMPLED]].sort().values
        trial_solver = Solver(
            task, space, few, "cg" if solver.method == "dual" else solver.method, solver.accuracy, seed
        )
        g = loss_gradient(task, space, index=other) / len(rest)
        more = len(task.train) / len(rest)  # α = Nγ over fewer examples
        theta = space.flat(task.model).double()
        unit = damping_unit(trial_solver.metric)
        choice = from_trial(task, space, other, unit, lambda gamma: theta + trial_solver(g, gamma * more), seed)
        solver.gradients += trial_solver.gradients
        return choice

    def metric() -> FisherMetric:
        return build(task, space, "ekfac", kind="mc", seed=seed)

    return choose(task, space, given, metric, trial, positions)


def _damping_of(choice: DampingChoice, n: int) -> Measurement:
    return Measurement(
        "forget.damping",
        choice.value,
        "1/parameter²",
        f"chosen by: {choice.rule}",
        n,
        reliable=choice.reliable,
        note=choice.statement,
    )
