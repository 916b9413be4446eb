"""Measures of pairs of known factors: angles, Cramér–Rao interference, and what a loop of two factors leaves."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace.errors import ShapeError
from memspace.geometry.factor_loop import STEP, Network, Render, differences, rectangle
from memspace.geometry.holonomy import frames_of, holonomy, within_noise
from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import measure, provides
from memspace.measures.factor_angles import FactorAngles, ordered_factors
from memspace.measures.factor_metric import FactorDirections, joint_efficiency, pair_values
from memspace.measures.representation import read_layer
from memspace.measures.values import Budget
from memspace.task.factors import Factors
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["FACTOR_PAIR_MEASURES", "FactorLoops", "loops_around", "mean_angle"]

LOOPS = 60  # over all pairs of factors
FEWEST = 5  # loops of a pair
STEPS = 6  # on each side of a loop
SIZE = 1.0  # levels, length of a side
CHAPTER = "disentanglement"


@dataclass(frozen=True)
class FactorLoops:
    """Angles that are left of the tangent plane of two factors after small loops.

    Args:
        angles: (L,) ‖log Hol‖_F, radians; NaN where a factor does not move the layer.
        coarse: (L,) with every second point of the loops.
        null: (L,) of the same paths retraced, with directions as wrong as a halved difference shows them to be.
        base: (L,) which input a loop lies around.
        pairs: number of pairs of factors.
        layer: the layer's name.
    """

    angles: Tensor
    coarse: Tensor
    null: Tensor
    base: Tensor
    pairs: int
    layer: str


def _bases(factors: int) -> int:
    """Inputs around which every pair has a loop."""
    pairs = factors * (factors - 1) // 2
    return max(FEWEST, LOOPS // max(1, pairs))


def _loops_cost(facts: Facts) -> Stage | None:
    if facts.rendered < 2:
        return None
    count = min(_bases(facts.rendered), facts.described) * facts.rendered * (facts.rendered - 1) // 2
    return Stage("loops of factors", count * 4 * STEPS, 8, 0, 0, "holonomy of pairs of factors")


@provides(cost=_loops_cost)
def loops_of_factors(task: Task, factors: Factors, budget: Budget) -> FactorLoops | Absent:
    """Carry tangent planes of pairs of factors around small loops; without a renderer, angles say why not."""
    ordered = ordered_factors(factors)
    if factors.render is None or len(ordered) < 2:
        return Absent()
    generator = torch.Generator().manual_seed(budget.seed + 13)
    chosen = torch.randperm(len(factors.values), generator=generator)[: _bases(len(ordered))]
    first, _, layer = read_layer(task, factors.inputs[:1], task.layer)
    if first.shape[1] <= 2:
        reason = f"{layer} has {first.shape[1]} units: two factors span it, and every transport is undone"
        return Absent(reason, "name a wider layer, Task(layer=...)")

    def network(x: Tensor) -> Tensor:
        return read_layer(task, x, task.layer)[0]

    pairs = list(itertools.combinations(ordered, 2))
    loops = loops_around(network, factors.render, factors.values[chosen].double(), pairs, seed=budget.seed, layer=layer)
    return replace(loops, base=chosen.repeat(len(pairs)))


def loops_around(
    network: Network,
    render: Render,
    values: Tensor,
    pairs: Sequence[tuple[int, int]],
    *,
    seed: int = 0,
    layer: str = "the representation",
) -> FactorLoops:
    """Carry tangent planes of pairs of factors around a small loop at every place.

    Args:
        network: inputs ↦ (B, ...) representation.
        render: levels ↦ inputs.
        values: (B, K) levels in the middle of the loops.
        pairs: positions of two factors each.
        seed: of the null's noise.
        layer: what the representation is, for people.

    Returns:
        Angles of all loops, pair by pair.
    """
    rows: list[tuple[float, float, float]] = []
    for pair in pairs:
        loops = torch.cat([rectangle(v, *pair, SIZE, STEPS) for v in values])
        fine, rough = (differences(network, render, loops, pair, step) for step in (STEP / 2, STEP))
        parts = zip(torch.split(fine, 4 * STEPS), torch.split(rough, 4 * STEPS), strict=True)
        rows += [_angles(a, b, seed + len(rows) + k) for k, (a, b) in enumerate(parts)]
    angles, coarse, null = torch.tensor(rows, dtype=torch.float64).T
    return FactorLoops(angles, coarse, null, torch.arange(len(values)).repeat(len(pairs)), len(pairs), layer)


def _angles(tangents: Tensor, rougher: Tensor, seed: int) -> tuple[float, float, float]:
    nothing = float("nan")
    try:
        frames = frames_of(tangents)
        error = (rougher - tangents).square().mean((0, 1)).sqrt()
        null = float(within_noise(tangents, error, draws=1, seed=seed)[0])
    except ShapeError:  # a factor that moves nothing here has no direction
        return nothing, nothing, nothing
    return holonomy(frames).angle, holonomy(frames[::2]).angle, null


def mean_angle(loops: FactorLoops, angles: Tensor, note: str = "") -> Value | Absent:
    """Average angles over loops, with the interval over the places that they lie around.

    Args:
        loops: whose angles they are.
        angles: (L,) radians, NaN where a factor does not move the representation.
        note: of the value.

    Returns:
        Radians; absent where fewer than two loops have an angle.
    """
    moved = torch.isfinite(angles)
    if int(moved.sum()) < 2:
        return Absent("fewer than two loops move the layer all along", "vary factors the network sees")
    how = f"{loops.layer}; {loops.pairs} pairs of factors, loops of {SIZE:g} level a side in {4 * STEPS} steps"
    return Value.mean(angles[moved], groups=loops.base[moved], lower=0.0, how=how, note=note)


@measure(
    f"{CHAPTER}.holonomy",
    chapter=CHAPTER,
    unit="rad",
    estimator="mean ‖log Hol‖_F of the tangent plane of two factors after a loop of both",
    better="smaller",
)
def factor_holonomy(loops: FactorLoops) -> Value | Absent:
    """How far the directions of two factors depend on the path by which a place is reached."""
    change = float((loops.angles - loops.coarse).nanmean())
    return mean_angle(loops, loops.angles, f"every second step alone changes it by {-change:.1g}")


@measure(
    f"{CHAPTER}.holonomy.null",
    chapter=CHAPTER,
    unit="rad",
    estimator="the same of half a loop out and back, with the error of the differences as noise",
)
def factor_holonomy_null(loops: FactorLoops | None) -> Value | Absent | None:
    """The angle that errors of the directions alone would leave."""
    return None if loops is None else mean_angle(loops, loops.null)


@measure(
    f"{CHAPTER}.fisher_cosine",
    chapter=CHAPTER,
    unit="1",
    estimator="mean |cos| of two factors' directions under the output's Fisher metric, input by input",
    better="smaller",
)
def fisher_cosine(angles: FactorAngles | None) -> dict[str, Value | Absent]:
    """How alike two factors move the predictions, by pair."""
    if angles is None:
        return {}
    return {".".join(pair): value for pair, value in pair_values(_directions(angles)).items()}


@measure(
    f"{CHAPTER}.told_apart",
    chapter=CHAPTER,
    unit="1",
    estimator="mean 1/(g_aa (g⁻¹)_aa), Cramér–Rao",
    better="larger",
    shown="share",
)
def told_apart(angles: FactorAngles | None) -> dict[str, Value | Absent]:
    """Share of the information about a factor that is left where the other factors are unknown, by factor."""
    if angles is None:
        return {}
    share = joint_efficiency(_directions(angles).metric)
    share = share[torch.isfinite(share).all(1)]
    some = Absent("one of the factors moves nothing", "vary factors the network sees")
    return {
        name: Value.mean(column, lower=0.0, upper=1.0) if len(share) > 1 else some
        for name, column in zip(angles.names, share.T, strict=True)
    }


def _directions(angles: FactorAngles) -> FactorDirections:
    return FactorDirections(angles.names, angles.seen)


FACTOR_PAIR_MEASURES: tuple[Callable[..., object], ...] = (
    factor_holonomy,
    factor_holonomy_null,
    fisher_cosine,
    told_apart,
)
