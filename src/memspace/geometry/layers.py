"""Which layers carry a path: its Fisher–Rao length split by the block of parameters that moves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.geometry.stacked import PathProbe
from memspace.passes.linearise import FisherOperator
from memspace.progress import Progress, Silent
from memspace.task.checks import holding

__all__ = ["LayerLengths", "layer_lengths"]


@dataclass(frozen=True)
class LayerLengths:
    """A path's length per block of the parameter space, (blocks,), nats^½.

    Args:
        labels: the blocks' names.
        carried: ∫⟨v_l, v⟩_F/‖v‖_F dt, v_l the part of the velocity in block l: they sum to the path's length, and one
            is negative where a block's movement undoes that of others.
        alone: ∫‖v_l‖_F dt, the length if this block alone had moved: they may sum to much more, where blocks move so
            that their effects cancel.
    """

    labels: tuple[str, ...]
    carried: Tensor
    alone: Tensor


def layer_lengths(probe: PathProbe, points: Tensor, progress: Progress | None = None) -> LayerLengths:
    """Split the length of a polygon by layer, on the probe examples.

    The metric is exact, at the middle of every side: second order in the side's length.

    Args:
        probe: the examples.
        points: corners of the polygon, (S, P).
        progress: told of every side.

    Returns:
        The length by block of the parameter space.
    """
    task, space, law = probe.task, probe.space, probe.task.likelihood
    carried, alone = torch.zeros(2, len(space.blocks), dtype=torch.float64)
    sides = len(points) - 1
    for k in (progress or Silent()).track(range(sides), "layers along the path", sides):
        delta, middle = points[k + 1] - points[k], (points[k + 1] + points[k]) / 2
        with holding(task.model, probe.state(middle, (k + 0.5) / sides)):
            operator = FisherOperator(task, space, index=probe.index)
            moved, f = [], torch.empty(0)
            for block in space.blocks:
                part = torch.zeros_like(delta)
                part[block.start : block.stop] = delta[block.start : block.stop]
                columns = operator.directional(part)
                moved.append(columns["moved"].double())
                f = columns["f"].double()
        push = torch.stack(moved)  # (blocks, n, ..., C)
        pulled = torch.stack([law.fisher_matvec(f, u) for u in push])
        inside = probe.weight.unsqueeze(-1)
        products = torch.einsum("ax,bx->ab", (push * inside).flatten(1), pulled.flatten(1)) / probe.n
        whole = float(products.sum().clamp_min(0).sqrt())
        if whole > 0:
            carried += (products.sum(1) / whole).cpu()
        alone += products.diagonal().clamp_min(0).sqrt().cpu()
    return LayerLengths(tuple(space.labels), carried, alone)
