"""Is what the hooks read the whole gradient? Checked on one small batch before anything is built on it.

A weight that the model also uses outside its layer's own call (``F.linear(x, self.layer.weight)``), or a layer whose
input is overwritten in place later, would make the fast path silently wrong. Such a layer is taken off it.
"""

from __future__ import annotations

import torch

from memspace.errors import UnsupportedLayerError
from memspace.passes.capture import Capture
from memspace.passes.products import gradients
from memspace.task.checks import evaluating
from memspace.task.data import move
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["verified_space"]

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}


def verified_space(task: Task) -> ParameterSpace:
    """The parameter space whose fast blocks reproduce autograd's gradient; the others are made loose.

    Raises:
        UnsupportedLayerError: not even the generic path reproduces it.
    """
    loose: set[str] = set()
    for _ in range(len(ParameterSpace(task.model)) + 1):
        space = ParameterSpace(task.model, loose)
        try:
            wrong = _mismatched(task, space)
        except UnsupportedLayerError as error:
            wrong = {error.where}
        if not wrong:
            return space
        if wrong <= loose:
            break
        loose |= wrong
    raise UnsupportedLayerError(
        "its per-example gradients do not add up to autograd's gradient",
        where=", ".join(sorted(loose)),
        remedy="freeze it (requires_grad=False) or rewrite it with standard layers",
    )


def _mismatched(task: Task, space: ParameterSpace) -> set[str]:
    """Modules whose blocks' gradients, summed over a small batch, differ from autograd's."""
    part = task.train.batch(range(min(4, len(task.train))))
    x = move(part.x, task.device, task.dtype)
    params = {n: p for n, p in task.model.named_parameters() if p.requires_grad}
    with evaluating(task.model), Capture(task.model, space) as capture:
        signals = capture.forward(x)
        f = signals.f
        generator = torch.Generator().manual_seed(0)
        u = torch.randn(f.shape, generator=generator, dtype=torch.float64).to(f)
        pulled = signals.cotangents(u.unsqueeze(0))
        found = {b.name: gradients(signals, b, pulled[b.name]).sum((0, 1)) for b in space.blocks}
        truth = signals.parameter_gradient(params, u)
    flat = space.pack(truth)
    scale = float(flat.norm()) / max(1.0, space.size**0.5)
    tolerance = TOLERANCE.get(task.dtype, 3e-2)
    wrong = set()
    for b in space.blocks:
        want = b.view(flat)
        if float((found[b.name] - want).norm()) > tolerance * (float(want.norm()) + scale):
            wrong.add(b.module)
    return wrong
