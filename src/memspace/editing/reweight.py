"""Weights for training examples from a few clean ones (Ren et al. 2018)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from memspace.arguments import typed
from memspace.display import Columns, Shown
from memspace.editing.damping import from_time
from memspace.editing.gradients import gradient_products, loss_gradient
from memspace.editing.retrain import training_of
from memspace.editing.solver import Accuracy, Solver, outputs_per_example, pick_method
from memspace.errors import TaskError
from memspace.limits import DAMPING
from memspace.measurement import Measurement, Unmeasured
from memspace.passes.verify import verified_space
from memspace.task.checkpoint import check_fit
from memspace.task.data import call_model, move
from memspace.task.operations import written_out
from memspace.task.task import Task
from memspace.training.draws import draw

__all__ = ["ExampleWeights", "reweight", "train_reweighted"]

SCORES = Accuracy(0.1, 100)  # the solution itself is what the weights are made of


@dataclass(frozen=True, repr=False)
class ExampleWeights(Shown):
    """A weight for every training example.

    Args:
        weights: (N,), ≥ 0, mean 1 (all 0 where no example goes along with the clean ones).
        products: (N,) what the weights are the positive part of: ⟨∇L_clean, (M⁻¹) ∇ℓ_i⟩.
        preconditioned: whether M⁻¹ stands in between (an influence) or not (Ren et al.).
        statement: one sentence for people.
    """

    weights: Tensor
    products: Tensor
    preconditioned: bool
    statement: str

    def _title(self) -> str:
        return self.statement

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"examples": self._rows}

    def _rows(self) -> Columns:
        index = list(range(len(self.weights)))
        return {"index": index, "weight": self.weights.tolist(), "product": self.products.tolist()}


@typed
def reweight(
    task: Task,
    clean: Any,
    *,
    preconditioned: bool = False,
    damping: float | None = None,
    state: dict[str, Tensor] | None = None,
    accuracy: Accuracy | None = None,
) -> ExampleWeights:
    """Weigh each example by how much a small step on it lowers the clean loss: w_i ∝ max(0, ⟨∇L_clean, ∇ℓ_i⟩).

    Exact; two passes. Ren et al. 2018, equations 5 to 7 with one batch of all examples, at the model's weights: the
    meta-gradient −∂L_clean(θ − η Σ_i ε_i ∇ℓ_i)/∂ε_i at ε = 0 is η⟨∇L_clean, ∇ℓ_i⟩, rectified and scaled to mean 1.
    Preconditioned, the step is a damped Newton step, (F + γI)⁻¹ in between: the influence of i on the clean loss.

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name.
        clean: clean examples, anything ``Data`` takes; their loss is a mean.
        preconditioned: put (F + γI)⁻¹ in between.
        damping: γ of the preconditioned form; from the training's time where not given.
        state: weights to be at instead of the model's own, for example of an early checkpoint: a network that has
            learned its wrong labels by heart gives them no gradient.
        accuracy: of the preconditioned form's conjugate gradients.

    Returns:
        a weight for every training example, mean 1.

    Raises:
        DataError: no clean examples.
        TaskError: preconditioned without a damping and without an SGD training.
    """
    damping = DAMPING.optional(damping, "damping")
    if state is not None:
        check_fit(task.model, state, "reweight(state=...)")
        model = copy.deepcopy(task.model)
        model.load_state_dict(state)
        task = replace(task, model=model, run=None)
    good = task.data(clean, "clean examples")
    space = verified_space(task)
    v = loss_gradient(task, space, data=good) / len(good)
    how = "inner products of gradients with the clean ones'"
    if preconditioned:
        everything = torch.arange(len(task.train))
        rows = len(everything) * outputs_per_example(task)
        if damping is None:
            chosen = from_time(task, 1)
            if chosen is None:
                raise TaskError(
                    "the preconditioned form needs a damping", where=task.name, remedy="give damping (for example 0.01)"
                )
            damping = chosen.value
        solver = Solver(task, space, everything, pick_method("auto", rows), accuracy or SCORES)
        v = solver(v, damping)
        solved = solver.measured("reweight")
        how = f"influences on the clean loss ({solver.told}, γ = {damping:.3g}{_doubt(solved)})"
    products = gradient_products(task, space, v)
    positive = products.clamp_min(0)
    total = float(positive.mean())
    weights = positive / total if total > 0 else positive
    none = int((weights == 0).sum())
    return ExampleWeights(
        weights,
        products,
        preconditioned,
        f"{none} of {len(weights)} examples get weight 0 by {how} ({len(good)} clean)",
    )


def _doubt(solved: tuple[Measurement | Unmeasured, ...]) -> str:
    doubts = "; ".join(m.note for m in solved if isinstance(m, Measurement) and not m.reliable)
    return f"; not reliable: {doubts}" if doubts else ""


def train_reweighted(task: Task, clean: Any, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Train the task's network with every step's examples weighted by the clean ones (Ren et al. 2018, algorithm 1).

    At each step w_i ∝ max(0, ⟨∇L_clean, ∇ℓ_i⟩) at the weights of that step, scaled to mean 1 over its examples (no
    step where all are 0); initialisation and order as in the plain training. About four gradients per example and
    step and one per clean example.

    Args:
        task: with its training.
        clean: clean examples, anything ``Data`` takes.
        seed: of initialisation and order.

    Returns:
        the state dict and each example's mean weight over the second half of the training, (N,).

    Raises:
        TaskError: the task has no training that can be repeated.
    """
    training = training_of(task, "training with weights")
    recipe, n = training.recipe, len(task.train)
    clean_data = task.data(clean, "clean examples")
    good = clean_data.batch(range(len(clean_data)))
    good_x, good_y = move(good.x, task.device, task.dtype), move(good.y, task.device)
    drawn = draw(training, n, seed)
    model = drawn.model.to(task.device, task.dtype).train()
    inside = list(model.parameters())
    optimiser = recipe.descent(inside)
    total, seen = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for step, (index, rate) in enumerate(zip(drawn.batches, drawn.rates, strict=True)):
        part = task.train.batch(index)
        for group in optimiser.param_groups:
            group["lr"] = rate
        v = torch.autograd.grad(_loss(task, model, good_x, good_y).mean(), inside)
        with written_out():
            loss = _loss(task, model, move(part.x, task.device, task.dtype), move(part.y, task.device))
        # ⟨v, ∇ℓ_i⟩ for all i by two reverse passes: d/dw of ⟨v, Σ w_i ∇ℓ_i⟩
        ones = torch.ones_like(loss, requires_grad=True)
        pulled = torch.autograd.grad((loss * ones).sum(), inside, create_graph=True)
        along = sum(((g * t).sum() for g, t in zip(pulled, v, strict=True)), loss.new_zeros(()))
        products = torch.autograd.grad(along, ones, retain_graph=True)[0]
        w = products.clamp_min(0)
        w = w / w.mean() if float(w.sum()) > 0 else w
        if 2 * step >= len(drawn.batches):
            total[index] += w.detach().double().cpu()
            seen[index] += 1
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward((loss * w.detach()).mean())
        optimiser.step()
    state = {k: v.detach().clone() for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    return state, total / seen.clamp_min(1)


def _loss(task: Task, model: nn.Module, x: Any, y: Tensor) -> Tensor:
    """Per example; a sequence's is the mean over its positions."""
    return task.likelihood.nll(call_model(model, x), y).reshape(len(y), -1).mean(1)
