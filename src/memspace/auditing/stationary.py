"""The damping where theory gives it: the weights minimise a penalised loss whose outputs are affine in them.

Then (F + γI)⁻¹/N with γ the penalty's is the inverse Hessian, and leave-one-out one Newton step from exact. Refits on
parts of the data would only make it worse: they lack more than one example.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.measures.damping import DampingChoice
from memspace.measures.leave_one_out import loo_outputs, settled_outputs
from memspace.metric.leverage import DualLeverage
from memspace.passes.profile import profile_of
from memspace.passes.space import ParameterSpace
from memspace.task.checks import evaluating
from memspace.task.data import call_model, move
from memspace.task.functional import functional_call
from memspace.task.task import Task

__all__ = ["MOST", "affine", "known_damping", "settled"]

NEAR = 0.05  # of the penalty's gradient: largest remaining gradient of the penalised loss
PROBED, BATCH = 8, 512
MOST = 100_000  # parameters of a model that is examined, at most
ROWS, CELLS = 3_500, 5_000_000  # outputs of all examples, and outputs of all examples without each, held at once


def known_damping(task: Task, space: ParameterSpace) -> DampingChoice | None:
    """Return γ of γ/2·‖θ‖², where outputs are affine in the weights and the penalised mean loss is stationary.

    γ is the task's ``decay`` where given, else estimated from the gradient, −⟨∇L, θ⟩/‖θ‖².

    Args:
        task: the network and its training data.
        space: the parameters, laid out in blocks.

    Returns:
        the choice; None where it does not apply.
    """
    if space.size > MOST or not affine(task, space):
        return None
    theta = space.flat(task.model).double()
    squared = float(theta.square().sum())
    if squared == 0:
        return None
    gradient = _gradient(task, space)
    decay = task.decay if task.decay else -float(gradient @ theta) / squared
    if not decay > 0 or float((gradient + decay * theta).norm()) > NEAR * decay * squared**0.5:
        return None
    return DampingChoice.decay(decay, "given" if task.decay else "estimated from the gradient")


def settled(task: Task, f: Tensor, y: Tensor, leverage: DualLeverage, damping: DampingChoice) -> Tensor:
    """Compute leave-one-out outputs at the damping: exact ones where theory gives γ and they fit in memory.

    Args:
        task: its output law gives the loss.
        f: (n, C) outputs.
        y: labels.
        leverage: of the dual.
        damping: γ and the rule that chose it.

    Returns:
        (n, C) float64; one Newton step where they are not exact.
    """
    law, n = task.likelihood, len(f)
    if damping.rule == "decay" and leverage.missing is None and f.numel() <= ROWS and n * f.numel() <= CELLS:
        exact = settled_outputs(law, f, y, leverage.gram(damping.value))
        if exact is not None:
            return exact
    return loo_outputs(law, f, y, leverage.matrices(damping.value))


def affine(task: Task, space: ParameterSpace) -> bool:
    """Check whether f(θ + δ) + f(θ − δ) = 2 f(θ) for a random δ as large as θ.

    Where all trainable parameters are selected and a layer's input depends on some of them, the layer multiplies them
    with its weight. Such a network is not affine and is not run.

    Args:
        task: the network and its training data.
        space: the parameters, laid out in blocks.

    Returns:
        whether the outputs are affine in the parameters, up to rounding.
    """
    trainable = {n for n, p in task.model.named_parameters() if p.requires_grad}
    if trainable == set(space.names) and profile_of(task).bilinear(task.model):
        return False
    x = move(task.train.batch(range(min(PROBED, len(task.train)))).x, task.device, task.dtype)
    parameters = space.parameters(task.model)
    generator = torch.Generator().manual_seed(0)
    size = space.flat(task.model).double().norm() / max(space.size, 1) ** 0.5
    step = {n: (float(size) * torch.randn(p.shape, generator=generator)).to(p) for n, p in parameters.items()}

    def at(sign: float) -> Tensor:
        moved = {n: p.detach() + sign * step[n] for n, p in parameters.items()}
        args = () if isinstance(x, dict) else x if isinstance(x, tuple) else (x,)
        f: Tensor = functional_call(task.model, moved, args, x if isinstance(x, dict) else None)
        return f.double()

    with torch.no_grad(), evaluating(task.model):
        middle = at(0.0)
        off = at(1.0) + at(-1.0) - 2 * middle
        size_of_change = (at(1.0) - middle).norm()
    return bool(off.norm() <= 1e-4 * (size_of_change + middle.norm()))


def _gradient(task: Task, space: ParameterSpace) -> Tensor:
    """∇ of the mean training loss, flat, float64."""
    parameters = space.parameters(task.model)
    total = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in parameters.items()}
    n = len(task.train)
    with evaluating(task.model):
        for start in range(0, n, BATCH):
            batch = task.train.batch(range(start, min(start + BATCH, n)))
            f = call_model(task.model, move(batch.x, task.device, task.dtype))
            loss = task.likelihood.nll(f.double(), move(batch.y, task.device)).sum() / n
            for name, g in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
                total[name] += g.double()
    return space.pack(total)
