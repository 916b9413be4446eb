"""Flat directions that a symmetry explains: they belong to the description of the network, not to what it does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.geometry.matching import hidden_units
from memspace.metric.metric import FisherMetric
from memspace.task.likelihood import Categorical
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["Symmetries", "symmetries", "symmetry_directions"]

FLAT = 1e-6  # vᵀFv over the mean of it, below which a direction counts as flat


@dataclass(frozen=True)
class Symmetries:
    """What leaves the network's function unchanged.

    Args:
        rescaling: directions that scale a hidden unit's inputs up and its outputs down, found flat in the metric.
        shift: directions that add one number to all class logits, found flat.
        permutations: log₂ of the orders of hidden units, bits: so many configurations are the same network.
        flat: dimension of the null space of F (eigenvalues below ``FLAT`` of their mean); ``unexplained``: of it,
            what the two continuous symmetries do not explain.
    """

    rescaling: int
    shift: int
    permutations: float
    flat: int

    @property
    def unexplained(self) -> int:
        """Flat directions without a symmetry behind them."""
        return max(0, self.flat - self.rescaling - self.shift)


def symmetry_directions(task: Task, space: ParameterSpace, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Tangent vectors of rescaling (H, P) and of the logits' common shift (D, P), unit length, float64.

    Whether they are flat is another matter: rescaling is, for activations with φ(cz) = cφ(z), the shift for classes.
    """
    zero = {n: torch.zeros_like(state[n], dtype=torch.float64) for n in space.names}
    units = hidden_units(task)
    scaled = []
    for u in units:
        inward = {n for n, axis, _ in u.members if axis == 0}
        for k in range(u.count):
            v = dict(zero)
            for name, axis, width in u.members:
                if name not in v:
                    continue
                part = torch.zeros_like(v[name])
                where = slice(k * width, (k + 1) * width)
                entry = (where,) if axis == 0 else (slice(None), where)
                part[entry] = state[name].double()[entry] * (1.0 if name in inward else -1.0)
                v[name] = part
            scaled.append(space.pack(v))
    shifted: list[Tensor] = []
    if isinstance(task.likelihood, Categorical):
        last = space.blocks[-1]
        for name in last.names:
            flat = zero[name].reshape(zero[name].shape[0], -1)
            for column in range(flat.shape[1]):
                part = torch.zeros_like(flat)
                part[:, column] = 1.0
                shifted.append(space.pack({**zero, name: part.reshape(zero[name].shape)}))
    return _unit(scaled, space.size), _unit(shifted, space.size)


def symmetries(task: Task, space: ParameterSpace, state: Mapping[str, Tensor], metric: FisherMetric) -> Symmetries:
    """Count the symmetries that the metric confirms; ``metric`` holds its whole spectrum (dense or dual)."""
    values = metric.eigenvalues()
    scale = float(values.sum()) / space.size
    flat = space.size - int((values > FLAT * scale).sum())
    counts = []
    for directions in symmetry_directions(task, space, state):
        if not len(directions):
            counts.append(0)
            continue
        null = metric.inner(directions, directions) <= FLAT * scale
        counts.append(int(torch.linalg.matrix_rank(directions[null])) if bool(null.any()) else 0)
    orders = sum(math.lgamma(u.count + 1) / math.log(2) for u in hidden_units(task))
    return Symmetries(counts[0], counts[1], orders, flat)


def _unit(rows: list[Tensor], size: int) -> Tensor:
    if not rows:
        return torch.zeros(0, size, dtype=torch.float64)
    stacked = torch.stack(rows)
    unit: Tensor = stacked / stacked.norm(dim=1, keepdim=True).clamp_min(1e-300)
    return unit
