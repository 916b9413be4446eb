"""Write new examples into a network with the least disturbance of everything else."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.optimize import nnls
from torch import Tensor

from memspace.arguments import typed
from memspace.editing.edit import Cost, Edit, edited_state
from memspace.editing.effects import divergence, effects_of, losses
from memspace.editing.gradients import bregman_gradient
from memspace.editing.solver import Accuracy, Solver, outputs_per_example, pick_method
from memspace.errors import DataError, MemspaceError, SettingsError, ShapeError
from memspace.limits import DAMPING, SEED
from memspace.measurement import Measurement
from memspace.passes.collect import CollectRows
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["WriteTarget", "write"]

RELATIVE_DAMPING = 1e-5  # γ as a share of tr F, where none is given
SAFE = 0.02  # of the target loss: how far below it the search aims, so that it arrives in finitely many steps
MOST_BOOST = 1e6  # of γ in a step: beyond, nothing lowers the merit
SETTLED = 0.01  # a step that shortens a stored change by less than this share is the last


@dataclass(frozen=True)
class WriteTarget:
    """When an example counts as stored, and how hard to try.

    Args:
        loss: its loss in nats at most (for classes, −ln of the probability of its label: 0.1 is 90 %).
        steps: linearisations of the network at most.

    Raises:
        SettingsError: a loss that is not positive and finite, or no step.
    """

    loss: float = 0.1
    steps: int = 20

    def __post_init__(self) -> None:
        if not (self.loss > 0 and math.isfinite(self.loss)) or self.steps < 1:
            raise SettingsError(
                f"a target is a positive loss and at least one step, got {self}",
                where="target",
                remedy="give such a one",
            )


@typed
def write(
    task: Task,
    x: Any,
    y: Any = None,
    *,
    target: WriteTarget | None = None,
    damping: float | None = None,
    method: str = "auto",
    accuracy: Accuracy | None = None,
    seed: int = 0,
) -> Edit:
    """Minimise E_train KL(p_θ ‖ p_θ') + γ/2 ‖Δθ‖² so that every new example's loss is at most the target.

    Sequential quadratic programming: where the weights are, the divergence is replaced by its gradient q and by the
    training data's Fisher metric M = F + γI (½Δθᵀ F Δθ is the divergence to second order: the Fisher length), the new
    losses by their gradients G. The step is d = −M⁻¹(q + Gᵀλ), the multipliers λ ≥ 0 of an m × m problem, cut back
    until it lowers divergence + μ·(losses above the target). For linear networks with square loss one step is the exact
    minimum-norm update; else it ends at a local minimum, or where its steps are used up.

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name.
        x: the new examples' inputs (m, ...), as a batch of the task's data; without ``y`` anything
            :class:`memspace.Data` takes.
        y: their labels (m, ...).
        target: the loss to reach, and steps at most.
        damping: γ; None: tr F times 1e-5.
        method: as for :func:`memspace.forget`.
        accuracy: as for :func:`memspace.forget`.
        seed: as for :func:`memspace.forget`.

    Returns:
        the edited weights with predicted and measured effects; the task's model is as it was.

    Raises:
        DataError: no examples, or labels that do not go with them.
        ShapeError: the model refuses the inputs.
        LabelError: labels the output law does not know.
        NonFiniteError: the step has left the finite numbers.
    """
    start = time.perf_counter()
    damping, seed = DAMPING.optional(damping, "damping"), SEED(seed, "seed")
    target = target or WriteTarget()
    new, space = _checked(task, x, y), verified_space(task)
    training = torch.arange(len(task.train))
    method = pick_method(method, len(training) * outputs_per_example(task))
    solver = Solver(task, space, training, method, accuracy or Accuracy(0.05, 8), seed)
    gamma = damping if damping is not None else _small_damping(solver)
    theta = space.flat(task.model).double()
    at = _look(task, space, new, theta, torch.zeros_like(theta), gamma)
    width, first, steps, spent, price, boost = at.width, at.loss, 0, 0, 0.0, 1.0
    goal = task.likelihood.straightened(torch.full_like(first, target.loss * (1 - SAFE)), width)[0]
    while steps < target.steps:
        level, slope = task.likelihood.straightened(at.loss, width)
        g = _loss_rows(task, new, space, at.state) * slope[:, None]
        q = bregman_gradient(task, space, theta + at.change, training) / len(training) + gamma * at.change
        solved = solver.stack(torch.cat([g, q[None]]), gamma * boost)
        free = -solved[-1]
        multipliers = _multipliers(g @ solved[:-1].t(), level - goal + g @ free)
        step = free - multipliers @ solved[:-1]
        price = max(price, 2 * float(multipliers.max()))
        after, tried = _advance(task, space, new, theta, at, step, gamma, (price, goal))
        steps, spent = steps + 1, spent + 2 * (len(new) + len(training)) + tried * len(training)
        boost = max(1.0, boost / 3) if tried == 1 else boost * 4 if tried > 2 else boost
        if after is None and boost > MOST_BOOST:
            break
        if after is not None:
            settled = at.stored(target) and after.stored(target) and at.length - after.length < SETTLED * at.length
            at = after
            if settled:
                break
    solves = solver.measured("write")
    cost = Cost(spent + solver.gradients, solver.products, time.perf_counter() - start)
    how = f"least Fisher length with losses held to {target.loss:g} nats, {solver.told}, γ = {gamma:.3g}"
    nothing = torch.zeros(0, dtype=torch.long)  # of the training examples
    effects = effects_of(task, space, at.state, at.change, nothing, training, "write")
    measurements = (*_stored(first, at, target, steps), *solves, *effects)
    count = int((at.loss <= target.loss).sum())
    statement = f"{count} of {len(new)} new examples stored in {steps} steps: {how}"
    return Edit("write", at.state, nothing, at.change, measurements, how, gamma, cost, statement)


def _stored(before: Tensor, at: _Point, target: WriteTarget, steps: int) -> tuple[Measurement, ...]:
    """How many new examples are stored, their losses before (m,) and after, and the steps that took."""
    n, largest = len(before), "largest over the new examples"
    share, worst = int((at.loss <= target.loss).sum()) / n, float(at.loss.max())
    return (
        Measurement("write.stored", share, "1", "share of new examples at or below the target", n),
        Measurement("write.loss_before", float(before.max()), "nats", largest, n),
        Measurement("write.loss_after", worst, "nats", largest, n, reliable=at.stored(target)),
        Measurement("write.steps", float(steps), "1", "linearisations", n),
    )


def _checked(task: Task, x: Any, y: Any) -> Data:
    new = task.data(x if y is None else (x, y), "new examples")
    try:
        f, labels = outputs(task, new)
    except MemspaceError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ShapeError(
            f"the model refuses the new inputs: {(str(error).splitlines() or [type(error).__name__])[0][:200]}",
            where="new examples",
            remedy="give a batch of inputs (m, ...) of the shape the model was trained on",
        ) from error
    if not bool(torch.isfinite(f).all()):
        raise DataError("the model gives NaN or infinite outputs for them", where="new examples", remedy="check them")
    task.likelihood.check(f, labels, "new examples")
    return new


def _small_damping(solver: Solver) -> float:
    return max(RELATIVE_DAMPING * solver.metric.trace().value, 1e-12)


def _loss_rows(task: Task, new: Data, space: ParameterSpace, state: dict[str, Tensor]) -> Tensor:
    """Each new example's loss gradient, (m, P), float64."""
    model = copy.deepcopy(task.model)
    model.load_state_dict(state)
    moved = replace(task, model=model, run=None)
    rows = CollectRows(space.blocks, "empirical")
    run_pass(moved, space, [rows], PassOptions(data=new))
    collected = rows.finish()
    return torch.cat([collected.formed(b) for b in collected.blocks], 1)


def _multipliers(gram: Tensor, gap: Tensor) -> Tensor:
    """λ ≥ 0 that minimises ½λᵀKλ − gap·λ: the dual of the least step with K λ ≥ gap (non-negative least squares)."""
    k = gram.double().cpu()
    values, vectors = torch.linalg.eigh((k + k.t()) / 2)
    keep = values > 1e-12 * values[-1].clamp_min(1e-300)
    root = values[keep].sqrt()[:, None] * vectors[:, keep].t()
    right = (vectors[:, keep].t() @ gap.double().cpu()) / values[keep].sqrt()
    solution, _ = nnls(root.numpy(), right.numpy())
    return torch.as_tensor(solution, dtype=torch.float64, device=gram.device)


@dataclass(frozen=True)
class _Point:
    """Where the search is: the change, its weights, the new losses, the divergence with its γ term."""

    change: Tensor
    state: dict[str, Tensor]
    loss: Tensor
    length: float
    width: int

    def stored(self, target: WriteTarget) -> bool:
        return float(self.loss.max()) <= target.loss

    def merit(self, task: Task, price: float, goal: Tensor) -> float:
        level, _ = task.likelihood.straightened(self.loss, self.width)
        return self.length + price * float((level - goal).clamp_min(0).sum())


def _look(task: Task, space: ParameterSpace, new: Data, theta: Tensor, change: Tensor, gamma: float) -> _Point:
    state = edited_state(task, space, theta + change)
    width = outputs_per_example(task)
    kl = float(divergence(task, _train(task), None, None, state).mean())
    return _Point(change, state, losses(task, new, None, state), kl + gamma / 2 * float(change @ change), width)


def _train(task: Task) -> Data:
    assert isinstance(task.train, Data)
    return task.train


def _advance(
    task: Task,
    space: ParameterSpace,
    new: Data,
    theta: Tensor,
    at: _Point,
    step: Tensor,
    gamma: float,
    worth: tuple[float, Tensor],
) -> tuple[_Point | None, int]:
    """The step, or as much of it as lowers the merit (halved up to eight times); None where nothing does."""
    for tried in range(9):
        point = _look(task, space, new, theta, at.change + step / 2**tried, gamma)
        if point.merit(task, *worth) < at.merit(task, *worth):
            return point, tried + 1
    return None, 9
