"""Combinations of a world's factor levels: at random, with a factor fixed, in pairs, on grids, under laws.

All are levels, not images: a world draws those that are needed. The same seed gives the same levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from memspace.arguments import typed
from memspace.errors import SettingsError
from memspace.limits import COUNT, SEED, WHOLE
from memspace.task.worlds.factor_world import FactorWorld
from memspace.task.worlds.laws import FactorLaw

__all__ = ["combinations", "fixed", "grid", "halves", "pairs", "traverse"]


@typed
def combinations(
    world: FactorWorld,
    count: Annotated[int, COUNT],
    *,
    seed: Annotated[int, SEED] = 0,
    laws: Sequence[FactorLaw] = (),
) -> Tensor:
    """Draw combinations without replacement: no two have the same image.

    They are drawn one after another, each with a probability proportional to its weight among those left (the keys
    log w − log(−log u), greatest first, do that at once). Without laws all weights are equal.

    Args:
        world: of the factors.
        count: combinations.
        seed: random seed.
        laws: which combinations are likely, and which are left out.

    Returns:
        (count, K) whole levels.

    Raises:
        SettingsError: more are asked for than there are.
    """
    generator = torch.Generator().manual_seed(seed)
    every = world.levels_at(torch.arange(world.count))
    weight = torch.zeros(world.count, dtype=torch.float64)
    for law in laws:
        weight = weight + law.log_weight(world, every)
    weight[(world.first_alike(every) != every).any(1)] = -torch.inf
    available = int(weight.isfinite().sum())
    if count > available:
        raise SettingsError(
            f"{count:,} different images are asked for, and factors make {available:,}",
            where=f"world {world.name}",
            remedy=f"ask for at most {available:,}",
        )
    uniform = torch.rand(world.count, generator=generator, dtype=torch.float64).clamp(min=1e-300)
    keys = weight - torch.log(-torch.log(uniform))
    return every[torch.topk(keys, count).indices]


@typed
def halves(
    world: FactorWorld,
    train: Annotated[int, COUNT],
    test: Annotated[int, COUNT],
    *,
    seed: Annotated[int, SEED] = 0,
    laws: Sequence[FactorLaw] = (),
) -> tuple[Tensor, Tensor]:
    """Draw training and test combinations that share no image.

    Args:
        world: of the factors.
        train: training combinations.
        test: test combinations.
        seed: random seed.
        laws: which combinations are likely, and which are left out, of both.

    Returns:
        (train, K) and (test, K) whole levels.
    """
    levels = combinations(world, train + test, seed=seed, laws=laws)
    levels = levels[torch.randperm(len(levels), generator=torch.Generator().manual_seed(seed))]
    return levels[:train], levels[train:]


@typed
def fixed(
    world: FactorWorld,
    factor: str | int,
    level: Annotated[int, WHOLE],
    count: Annotated[int, COUNT],
    *,
    seed: Annotated[int, SEED] = 0,
) -> Tensor:
    """Draw combinations with one factor at a level and the others uniform and independent, with replacement.

    Args:
        world: of the factors.
        factor: name or column of the factor.
        level: that it has.
        count: combinations.
        seed: random seed.

    Returns:
        (count, K) whole levels.

    Raises:
        SettingsError: the factor has no such level.
    """
    column = world.position(factor)
    if level >= world.sizes[column]:
        raise SettingsError(
            f"the factor {world.names[column]!r} has no level {level}",
            where=f"world {world.name}",
            remedy=f"give one from 0 to {world.sizes[column] - 1}",
        )
    levels = _uniform(world, count, torch.Generator().manual_seed(seed))
    levels[:, column] = level
    return levels


@typed
def pairs(
    world: FactorWorld,
    count: Annotated[int, COUNT],
    *,
    differ: str | int | None = None,
    share: str | int | None = None,
    seed: Annotated[int, SEED] = 0,
) -> tuple[Tensor, Tensor]:
    """Draw pairs that differ in one factor alone, or pairs that share one and are independent in the others.

    First members are uniform, with replacement. A factor that differs takes one of its other levels, all as likely.

    Args:
        world: of the factors.
        count: pairs.
        differ: name or column of the factor that alone differs; or
        share: of the factor that is shared.
        seed: random seed.

    Returns:
        two times (count, K) whole levels.

    Raises:
        SettingsError: both or none of ``differ`` and ``share`` are given, or the factor that differs has one level.
    """
    factor = differ if share is None else share
    if factor is None or (differ is not None and share is not None):
        raise SettingsError(
            "pairs either differ in a factor or share one", where="pairs", remedy="give one of differ and share"
        )
    column = world.position(factor)
    size = world.sizes[column]
    generator = torch.Generator().manual_seed(seed)
    first = _uniform(world, count, generator)
    if share is not None:
        second = _uniform(world, count, generator)
        second[:, column] = first[:, column]
        return first, second
    if size < 2:
        raise SettingsError(
            f"the factor {world.names[column]!r} has one level", where="pairs", remedy="name another factor"
        )
    second = first.clone()
    second[:, column] = (first[:, column] + torch.randint(1, size, (count,), generator=generator)) % size
    return first, second


@typed
def grid(world: FactorWorld, factors: Sequence[str | int], *, at: Sequence[int] | None = None) -> Tensor:
    """List all combinations of some factors' levels, the others staying where they are.

    Args:
        world: of the factors.
        factors: names or columns of those that vary; the last runs fastest.
        at: K levels of the others; None: the middle ones.

    Returns:
        (product of their sizes, K) whole levels.
    """
    columns = [world.position(factor) for factor in factors]
    every = torch.cartesian_prod(*(torch.arange(world.sizes[c]) for c in columns)).reshape(-1, len(columns))
    levels = _start(world, at).repeat(len(every), 1)
    levels[:, columns] = every
    return levels


@typed
def traverse(
    world: FactorWorld, factor: str | int, steps: Annotated[int, COUNT], *, at: Sequence[int] | None = None
) -> Tensor:
    """Move one factor through its range in equal steps; between levels where the world draws them.

    Args:
        world: of the factors.
        factor: name or column of the factor.
        steps: rows; a circular factor goes once around and ends one step before it began.
        at: K levels of the others; None: the middle ones.

    Returns:
        (steps, K) float64 levels, rounded to whole ones where the world has no others.
    """
    column = world.position(factor)
    moved = world.factors[column]
    if moved.period is None:
        line = torch.linspace(0, moved.size - 1, steps, dtype=torch.float64)
    else:
        line = torch.arange(steps, dtype=torch.float64) * (moved.period / steps)
    levels = _start(world, at).double().repeat(steps, 1)
    levels[:, column] = line if moved.ordered and world.continuous else line.round()
    return levels


def _start(world: FactorWorld, at: Sequence[int] | None) -> Tensor:
    levels = [size // 2 for size in world.sizes] if at is None else list(at)
    if len(levels) != len(world.sizes) or not all(0 <= v < s for v, s in zip(levels, world.sizes, strict=True)):
        raise SettingsError(
            f"the levels {tuple(levels)} are none of this world",
            where=f"world {world.name}",
            remedy=f"give one below each of {world.sizes}",
        )
    return torch.tensor([levels])


def _uniform(world: FactorWorld, count: int, generator: torch.Generator) -> Tensor:
    return torch.stack([torch.randint(0, size, (count,), generator=generator) for size in world.sizes], 1)
