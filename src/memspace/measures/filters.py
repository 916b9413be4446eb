"""Structured pruning by geometric median: filters that the others could replace go first (He et al. 2019, FPGM).

Of a layer's filters W_1..W_m (rows of its weight) those with the least Σ_j ‖W_i − W_j‖ lie closest to the geometric
median. Not a Fisher quantity: it reads weights alone and asks what is replaceable instead of what is small.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from memspace.measures.compensated import Pruned
from memspace.passes.cotangent import View
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.space import Block, ParameterSpace
from memspace.passes.statistics import SumStatistic
from memspace.task.checks import holding
from memspace.task.task import Task

__all__ = ["distance_sums", "filtered_layers", "prune_filters"]

READ = 256  # training examples on which an input must be zero for its weights to count as removed


def distance_sums(filters: Tensor) -> Tensor:
    """Compute Σ_j ‖W_i − W_j‖ of each row.

    Args:
        filters: (m, d).

    Returns:
        (m,) float64.
    """
    return torch.cdist(filters.double(), filters.double(), compute_mode="donot_use_mm_for_euclid_dist").sum(1)


def filtered_layers(space: ParameterSpace) -> tuple[Block, ...]:
    """List the blocks whose rows are filters or units: convolutions and linear layers, without the last one.

    Args:
        space: the parameters.

    Returns:
        the blocks in order.
    """
    layers = [b for b in space.blocks if b.rule.units]
    return tuple(layers[:-1])


def prune_filters(task: Task, space: ParameterSpace, prunable: Tensor, shares: Sequence[float]) -> list[Pruned]:
    """Set whole filters to zero with their biases, the same share of every layer, until few enough weights remain.

    Weights that then multiply only zeros (measured on training examples) are set to zero too and count as removed: the
    network computes the same without them. A constant that a norm or an activation makes of a removed filter's zero
    stays.

    Args:
        task: the network and its training data.
        space: the parameters.
        prunable: (P,) True where a weight may go.
        shares: of the prunable weights that may remain.

    Returns:
        networks by descending share; fewer than asked for where every layer is down to one filter.
    """
    theta = space.flat(task.model)
    layers = filtered_layers(space)
    orders = {b.name: distance_sums(b.view(theta)).argsort() for b in layers}
    total = int(prunable.sum())
    levels = max((b.shape[0] for b in layers), default=0)
    cuts, networks = [_cut(task, space, theta, layers, orders, 0.0)], []
    for share in sorted(set(shares), reverse=True):
        while int((cuts[-1] & prunable).sum()) > share * total and len(cuts) < levels:
            cuts.append(_cut(task, space, theta, layers, orders, len(cuts) / levels))
        remaining = cuts[-1]
        if int((remaining & prunable).sum()) > share * total:
            break  # every layer is down to one filter
        flat = torch.where(remaining, theta, torch.zeros_like(theta))
        networks.append(Pruned("geometric-median", int((remaining & prunable).sum()) / total, flat, remaining))
    return networks


def _cut(
    task: Task, space: ParameterSpace, theta: Tensor, layers: Sequence[Block], orders: dict[str, Tensor], rate: float
) -> Tensor:
    remaining = torch.ones(space.size, dtype=torch.bool, device=theta.device)
    for b in layers:
        gone = orders[b.name][: min(b.shape[0] - 1, round(rate * b.shape[0]))]
        b.view(remaining)[gone] = False
    flat = torch.where(remaining, theta, torch.zeros_like(theta))
    state = {k: v.clone() for k, v in task.model.state_dict().items() if isinstance(v, Tensor)}
    state |= space.unpack(flat)
    seen = _InputSquares([b for b in space.blocks if b.rule.units])
    with holding(task.model, state):
        run_pass(task, space, [seen], PassOptions(index=torch.arange(min(READ, len(task.train)))))
    for b in seen.blocks:
        b.view(remaining)[:, seen.finish()[b.name] == 0] = False
    return remaining


class _InputSquares(SumStatistic):
    """Σ of each input coordinate's square over examples and positions, per block (in,)."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.blocks = tuple(blocks)

    def update(self, view: View) -> None:
        """Add one batch."""
        for b in self.blocks:
            if view.signals.by_example(b):  # what it was given is not known: all of it may matter
                self._add(b.name, torch.ones(b.shape[1], dtype=torch.float64, device=view.f.device))
            else:
                self._add(b.name, view.signals.rows(b).double().square().sum((0, 1)))
