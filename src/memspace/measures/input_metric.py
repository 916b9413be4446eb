"""The metric pulled back to the input, G(x) = Jᵀ H J with J = ∂f/∂x, and the distances to a boundary it implies.

KL(p(·|x) ‖ p(·|x + d)) = ½ dᵀ G d + O(‖d‖³). G has rank at most C; its eigenvalues are those of the C × C matrix
Sᵀ J Jᵀ S, H = S Sᵀ, so that nothing of the size of the input squared is ever formed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.measurement import Unmeasured
from memspace.passes.profile import follows_input, profile_of
from memspace.progress import Progress, Silent
from memspace.task.checks import evaluating
from memspace.task.data import Data, move
from memspace.task.task import Task

__all__ = ["InputReading", "input_jacobian", "inputs_at", "read_inputs", "unreadable"]

OUTPUTS = 256  # each costs a backward pass
HELD = 2**23  # numbers of input gradients in memory at a time


@dataclass(frozen=True)
class InputReading:
    """The metric at each of n inputs. Lengths are Euclidean, in units of the input.

    Args:
        f: (n, C) outputs.
        decision: (n,) predicted classes, or (n, C) labels of a Bernoulli law.
        top: (n,) λ_max(G), nats per squared unit.
        trace: (n,) tr G, nats per squared unit.
        direction: unit eigenvector of λ_max, of the inputs' shape, with the sign that narrows the smallest gap.
        boundary: (n,) Fisher–Rao distance of the prediction to the nearest other decision, nats^½; NaN without
            decisions.
        fisher: (n,) boundary/√λ_max(G(x)). An estimate, not a bound: G falls where the network is sure, and may change
            along the path.
        margin: (n,) smallest gap, in units of the outputs.
        linear: (n,) min_k gap_k/‖∇gap_k‖. Exact for linear outputs; else the first step of DeepFool
            (Moosavi-Dezfooli et al. 2016, eq. 8).
        linear_max: (n,) the same for perturbations measured by their largest entry, with the sum of magnitudes as norm.
        slope: gradient of the gap that gives ``linear``, of the inputs' shape.
        slope_max: gradient of the gap that gives ``linear_max``.
    """

    f: Tensor
    decision: Tensor
    top: Tensor
    trace: Tensor
    direction: Tensor
    boundary: Tensor
    fisher: Tensor
    margin: Tensor
    linear: Tensor
    linear_max: Tensor
    slope: Tensor
    slope_max: Tensor


def unreadable(task: Task) -> Unmeasured | None:
    """Check whether the metric can be pulled back to this task's inputs.

    Args:
        task: the network and its data.

    Returns:
        why it cannot; None where it can.
    """
    x = task.train.batch([0]).x
    name = "input"
    if not isinstance(x, Tensor):
        return Unmeasured(name, "an input is made of several tensors", "wrap the model so that it takes one tensor")
    if not x.is_floating_point():
        return Unmeasured(
            name,
            "inputs are whole numbers (tokens): there is no small step between two of them",
            "pass a model that takes embeddings, with the embeddings as inputs",
        )
    x = move(x, task.device, task.dtype)
    assert isinstance(x, Tensor)
    shape = profile_of(task).shape
    if not follows_input(task, x):
        why = (
            "the outputs have no gradient in the input: part of the model works without gradients, or on whole numbers"
        )
        return Unmeasured(name, why, "let the whole forward pass be differentiable in its input")
    if len(shape) > 1:
        return Unmeasured(name, "an output holds several positions", "wrap the model so that it returns one position")
    if shape[-1] > OUTPUTS:
        why = f"{shape[-1]:,} outputs need as many backward passes an input"
        return Unmeasured(name, why, f"wrap the model so that it returns the {OUTPUTS} outputs of interest")
    return None


def inputs_at(task: Task, data: Data, index: Tensor) -> Tensor:
    """Return some inputs as one tensor, on the model's device.

    Args:
        task: the network.
        data: its inputs are single tensors.
        index: (m,) positions.

    Returns:
        (m, ...) inputs.
    """
    moved = move(data.batch(index).x, task.device, task.dtype)
    assert isinstance(moved, Tensor)
    return moved


def input_jacobian(task: Task, x: Tensor, rows: int | None = None) -> tuple[Tensor, Tensor]:
    """Compute outputs and their gradients by the input; exact, one backward pass per output.

    Args:
        task: the network.
        x: (n, ...) inputs of D numbers.
        rows: number of leading outputs whose gradients are computed; None: all.

    Returns:
        outputs (n, C) and gradients (n, C, D).
    """
    with evaluating(task.model), torch.enable_grad():
        leaf = x.detach().requires_grad_()
        f = task.model(leaf.clone())  # a copy, so that a layer may work in place
        count = f.shape[-1] if rows is None else rows
        gradients = [
            torch.autograd.grad(f[..., k].sum(), leaf, retain_graph=k + 1 < count)[0].flatten(1) for k in range(count)
        ]
    return f.detach(), torch.stack(gradients, 1) if gradients else x.new_zeros(len(x), 0, math.prod(x.shape[1:]))


def read_inputs(task: Task, x: Tensor, progress: Progress | None = None) -> InputReading:
    """Compute the metric at every input, exactly.

    Args:
        task: the network.
        x: (n, ...) inputs.
        progress: where the passes report.

    Returns:
        the reading of all inputs.
    """
    numbers = x[0].numel() * max(1, input_jacobian(task, x[:1], rows=0)[0].shape[-1])
    size = max(1, min(256, HELD // numbers))
    parts = (progress or Silent()).track(_parts(x, size), "metric at the inputs", -(-len(x) // size))
    read = [_read(task, part) for part in parts]
    return InputReading(**{k: torch.cat([getattr(r, k) for r in read]) for k in InputReading.__dataclass_fields__})


def _parts(x: Tensor, size: int) -> Iterator[Tensor]:
    yield from torch.split(x, size)


def _read(task: Task, x: Tensor) -> InputReading:
    law = task.likelihood
    f, jacobian = input_jacobian(task, x)
    f, jacobian = f.double(), jacobian.double()
    pulled = law.fisher_root(f).transpose(1, 2) @ jacobian  # Sᵀ J, (n, K, D)
    values, vectors = torch.linalg.eigh(pulled @ pulled.transpose(1, 2))
    top = values[:, -1].clamp_min(0)
    direction = torch.einsum("nkd,nk->nd", pulled, vectors[:, :, -1])
    direction = torch.nn.functional.normalize(direction, dim=1)
    nothing = torch.full_like(top, math.nan)
    decision = law.predict(f)
    boundary = fisher = margin = linear = linear_max = nothing
    ways = torch.zeros_like(direction), torch.zeros_like(direction)
    if law.boundary is not None:
        gap, slope = law.boundary.gaps(f, decision), law.boundary.gap_rows(jacobian, decision)
        margin, nearest = gap.min(-1)
        tiny = torch.finfo(torch.float64).tiny
        linear, way = (gap / slope.norm(dim=-1).clamp_min(tiny)).min(-1)
        linear_max, way_max = (gap / slope.abs().sum(-1).clamp_min(tiny)).min(-1)
        row = torch.arange(len(x), device=x.device)
        ways = slope[row, way], slope[row, way_max]
        boundary = law.boundary.distance(f)
        fisher = boundary / top.clamp_min(tiny).sqrt()
        towards = (slope[row, nearest] * direction).sum(1)
        direction = torch.where(towards[:, None] > 0, -direction, direction)
    shaped, toward, toward_max = (v.reshape(x.shape).to(x) for v in (direction, *ways))
    trace = values.clamp_min(0).sum(-1)
    return InputReading(
        f, decision, top, trace, shaped, boundary, fisher, margin, linear, linear_max, toward, toward_max
    )
