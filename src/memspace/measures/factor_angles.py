"""Angles between the directions in which known factors move the outputs, under their Fisher metric."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.measures.alignment import orthogonality
from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import provides
from memspace.measures.representation import read_layer
from memspace.measures.values import Budget
from memspace.task.factors import Factors
from memspace.task.task import Task
from memspace.value import Absent

__all__ = ["DIRECTIONS", "FactorAngles", "factor_angles", "ordered_factors"]

DIRECTIONS = 500  # inputs at which factors are moved
STEP = 0.1  # levels, of the central differences along a factor


@dataclass(frozen=True)
class FactorAngles:
    """Pointwise orthogonality of factor directions, NaN where fewer than two factors move anything.

    Args:
        output: (M,) under the output's Fisher metric.
        null: (M,) of random output directions under the same metrics.
        halved: (M,) as ``output``, with differences of half the step.
        layer: (M,) in the layer's own coordinates, Euclidean.
        dimension: rank of the output metric.
        width: of the layer.
        seen: (M, K, D) directions of the ordered factors at the output, in coordinates in which the metric is
            isotropic: their inner products are g_ab, up to one factor.
        names: of the ordered factors.
    """

    output: Tensor
    null: Tensor
    halved: Tensor
    layer: Tensor
    dimension: int
    width: int
    seen: Tensor
    names: tuple[str, ...]


def ordered_factors(factors: Factors) -> list[int]:
    """List the factors that have an order; kinds without one have no direction.

    Where the order is not said, factors of more than three levels are taken to have one.

    Args:
        factors: of the inputs.

    Returns:
        positions of the factors.
    """
    if factors.ordered is not None:
        return [k for k, name in enumerate(factors.names) if name in factors.ordered]
    return [k for k, s in enumerate(factors.sizes) if s > 3]


def factor_angles(task: Task, factors: Factors, count: int, seed: int, layer: str | None = None) -> FactorAngles:
    """Compute angles between the directions in which ordered factors move the outputs, at random inputs.

    g_ab = (∂_a f)ᵀ H (∂_b f), with derivatives along a factor by central differences of the renderer through the
    network. Orthogonality 1 − mean |g_ab|/√(g_aa g_bb) is computed at each input; the caller averages.

    Args:
        task: the network.
        factors: with a renderer.
        count: inputs.
        seed: random seed of inputs and null directions.
        layer: name of the layer compared with; None: the default layer.

    Returns:
        orthogonality at each input.
    """
    assert factors.render is not None
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(factors.values), generator=generator)[:count]
    levels = factors.values[chosen].double()
    _, base, _ = read_layer(task, factors.render(levels), layer)
    root = task.likelihood.fisher_root(base)

    def seen(change: Tensor) -> Tensor:
        return torch.einsum("m...ck,m...c->m...k", root, change).flatten(1)

    def directions(step: float) -> tuple[Tensor, Tensor]:
        outputs, signals = [], []
        for k in ordered_factors(factors):
            shift = torch.zeros_like(levels)
            shift[:, k] = step
            assert factors.render is not None
            up_z, up, _ = read_layer(task, factors.render(levels + shift), layer)
            down_z, down, _ = read_layer(task, factors.render(levels - shift), layer)
            outputs.append(seen(up - down))
            signals.append(up_z - down_z)
        return torch.stack(outputs, 1), torch.stack(signals, 1)

    at_output, at_layer = directions(STEP)
    halved, _ = directions(STEP / 2)
    noise = torch.randn(at_output.shape[1], *base.shape, generator=generator, dtype=torch.float64)
    null = torch.stack([seen(e) for e in noise], 1)
    rank = int(torch.linalg.matrix_rank(root.flatten(0, -3)[:64], rtol=1e-9).max()) * root[0, ..., 0, 0].numel()
    return FactorAngles(
        orthogonality(at_output),
        orthogonality(null),
        orthogonality(halved),
        orthogonality(at_layer),
        rank,
        at_layer.shape[-1],
        at_output,
        tuple(factors.names[k] for k in ordered_factors(factors)),
    )


@provides()
def known_factors(task: Task) -> Factors | Absent:
    """Return the task's factors."""
    if task.factors is None:
        return Absent("the generating factors of the inputs are not known", "pass Task(factors=Factors(...))")
    return task.factors


def _angles_cost(facts: Facts) -> Stage | None:
    if facts.rendered < 2:
        return None
    moved = min(DIRECTIONS, facts.described)
    return Stage("factors moved", moved, 1 + 4 * facts.rendered, 0, 0, "directions of factors")


@provides(cost=_angles_cost)
def angles_of_factors(task: Task, factors: Factors, budget: Budget) -> FactorAngles | Absent:
    """Move the ordered factors and compute the angles between the changes."""
    if factors.render is None:
        return Absent("the inputs cannot be rendered from their factors", "pass Factors(render=...)")
    if len(ordered_factors(factors)) < 2:
        reason = "fewer than two factors have an order (more than three levels)"
        return Absent(reason, "vary at least two graded factors")
    angles = factor_angles(task, factors, DIRECTIONS, budget.seed + 12, task.layer)
    if int((torch.isfinite(angles.output) & torch.isfinite(angles.halved)).sum()) < 2:
        return Absent("the outputs move with fewer than two factors", "vary factors the network sees")
    return angles
