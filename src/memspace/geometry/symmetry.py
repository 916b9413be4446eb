"""Flat directions that a symmetry explains: they belong to the description of the network, not to what it does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from memspace.geometry.matching import hidden_units
from memspace.metric.metric import FisherMetric
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["Symmetries", "norm_directions", "symmetries", "symmetry_directions"]

FLAT = 1e-6  # vᵀFv over the mean of it, below which a direction counts as flat


@dataclass(frozen=True)
class Symmetries:
    """What leaves the network's function unchanged.

    Args:
        rescaling: directions that scale a hidden unit's inputs up and its outputs down, found flat in the metric.
        shift: directions that add one number to all class logits, found flat.
        permutations: log₂ of the orders of hidden units, bits: so many configurations are the same network.
        flat: dimension of the null space of F (eigenvalues below ``FLAT`` of their mean).
        norms: directions that a batch or layer norm takes out of the layer before it, found flat.
    """

    rescaling: int
    shift: int
    permutations: float
    flat: int
    norms: int = 0

    @property
    def unexplained(self) -> int:
        """Flat directions without a symmetry behind them."""
        return max(0, self.flat - self.rescaling - self.shift - self.norms)


def symmetry_directions(task: Task, space: ParameterSpace, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Write down the tangent vectors of rescaling and of the logits' common shift.

    Whether they are flat is another matter: rescaling is, for activations with φ(cz) = cφ(z). Laws that see a shift of
    all outputs have no such vectors.

    Args:
        task: the model and its law.
        space: the parameters.
        state: the weights.

    Returns:
        Rescaling (H, P) and shift (D, P), unit length, float64.
    """
    zero = {n: torch.zeros_like(state[n], dtype=torch.float64) for n in space.names}
    units = hidden_units(task)
    scaled = []
    for u in units:
        owner = u.members[-2][0].rpartition(".")[0]  # what comes before it is scaled through a normalisation
        inward = {n for n, axis, _ in u.members if axis == 0 and n.rpartition(".")[0] == owner}
        for k in range(u.count):
            v = dict(zero)
            for name, axis, width in u.members:
                if name not in v or (axis == 0 and name not in inward):
                    continue
                part = torch.zeros_like(v[name])
                where = slice(k * width, (k + 1) * width)
                entry = (where,) if axis == 0 else (slice(None), where)
                part[entry] = state[name].double()[entry] * (1.0 if name in inward else -1.0)
                v[name] = part
            if any(n in v for n in inward):
                scaled.append(space.pack(v))
    shifted: list[Tensor] = []
    if task.likelihood.shift_free:
        last = space.blocks[-1]
        for name in last.names:
            flat = zero[name].reshape(zero[name].shape[0], -1)
            for column in range(flat.shape[1]):
                part = torch.zeros_like(flat)
                part[:, column] = 1.0
                shifted.append(space.pack({**zero, name: part.reshape(zero[name].shape)}))
    return _unit(scaled, space.size), _unit(shifted, space.size)


def norm_directions(task: Task, space: ParameterSpace, state: Mapping[str, Tensor]) -> Tensor:
    """Write down the tangent vectors of what a normalisation takes out of the layer before it.

    Batch norm in evaluation mode is an affine map: a unit's weights and their scale, and its bias and the mean, trade
    against weight and bias of the norm. Layer norm takes out the scale of the whole layer, and one number added to all
    units, which may depend on the input linearly.

    Args:
        task: the model.
        space: the parameters.
        state: the weights.

    Returns:
        (D, P), unit length, float64.
    """
    zero = {n: torch.zeros_like(state[n], dtype=torch.float64) for n in space.names}
    modules, directions = dict(task.model.named_modules()), []
    for u in hidden_units(task):
        owners = list(dict.fromkeys(n.rpartition(".")[0] for n, axis, _ in u.members if axis == 0))
        for layer, norm in pairwise(owners):
            weight, bias = _named(layer, "weight"), _named(layer, "bias")
            if isinstance(modules[norm], nn.LayerNorm):
                directions += _taken_by_layer_norm(zero, state, weight, bias)
            elif isinstance(modules[norm], nn.modules.batchnorm._BatchNorm):
                directions += _taken_by_batch_norm(zero, state, (weight, bias), norm, float(modules[norm].eps))
    return _unit([space.pack(v) for v in directions], space.size)


def _taken_by_layer_norm(
    zero: dict[str, Tensor], state: Mapping[str, Tensor], weight: str, bias: str
) -> list[dict[str, Tensor]]:
    names = [n for n in (weight, bias) if n in zero]
    directions = [{**zero, **{n: state[n].double() for n in names}}] if weight in zero else []
    for name in names:
        columns = zero[name].reshape(len(zero[name]), -1)
        for k in range(columns.shape[1]):
            part = torch.zeros_like(columns)
            part[:, k] = 1.0
            directions.append({**zero, name: part.reshape(zero[name].shape)})
    return directions


def _taken_by_batch_norm(
    zero: dict[str, Tensor], state: Mapping[str, Tensor], layer: tuple[str, str], norm: str, eps: float
) -> list[dict[str, Tensor]]:
    scale, shift = _named(norm, "weight"), _named(norm, "bias")
    mean, variance = _named(norm, "running_mean"), _named(norm, "running_var")
    if scale not in zero or shift not in zero or mean not in state:
        return []
    slope = state[scale].double() / (state[variance].double() + eps).sqrt()
    directions = []
    for k in range(len(slope)):
        one = torch.zeros_like(slope)
        one[k] = 1.0
        v = {**zero, scale: -one * state[scale].double(), shift: -one * slope * state[mean].double()}
        for name in layer:
            if name in zero:
                v[name] = zero[name].clone()
                v[name][k] = state[name].double()[k]
        if layer[0] in zero:
            directions.append(v)
        if layer[1] in zero:
            directions.append({**zero, layer[1]: one, shift: -one * slope})
    return directions


def _named(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def symmetries(task: Task, space: ParameterSpace, state: Mapping[str, Tensor], metric: FisherMetric) -> Symmetries:
    """Count the symmetries that the metric confirms.

    Args:
        task: the model and its law.
        space: the parameters.
        state: the weights.
        metric: one that has its whole spectrum (dense or dual).

    Returns:
        Flat directions, and those of them that a symmetry explains.
    """
    values = metric.eigenvalues()
    scale = float(values.sum()) / space.size
    flat = space.size - int((values > FLAT * scale).sum())
    counts = []
    for directions in (*symmetry_directions(task, space, state), norm_directions(task, space, state)):
        if not len(directions):
            counts.append(0)
            continue
        null = metric.inner(directions, directions) <= FLAT * scale
        counts.append(int(torch.linalg.matrix_rank(directions[null])) if bool(null.any()) else 0)
    orders = sum(math.lgamma(u.count + 1) / math.log(2) for u in hidden_units(task))
    return Symmetries(counts[0], counts[1], orders, flat, counts[2])


def _unit(rows: list[Tensor], size: int) -> Tensor:
    if not rows:
        return torch.zeros(0, size, dtype=torch.float64)
    stacked = torch.stack(rows)
    unit: Tensor = stacked / stacked.norm(dim=1, keepdim=True).clamp_min(1e-300)
    return unit
