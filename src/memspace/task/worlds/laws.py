"""Laws of factor combinations: two factors that go together, or combinations that are never seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from memspace.arguments import check_fields
from memspace.errors import SettingsError
from memspace.task.worlds.factor_world import FactorWorld

__all__ = ["Correlated", "FactorLaw", "Missing"]


class FactorLaw(Protocol):
    """What says how likely combinations are."""

    def log_weight(self, world: FactorWorld, levels: Tensor) -> Tensor:
        """Compute the logarithm of the weight of combinations.

        Args:
            world: of the factors.
            levels: (B, K) whole levels.

        Returns:
            (B,) float64, −∞ for combinations that do not occur.
        """
        ...


@dataclass(frozen=True)
class Correlated:
    """Two ordered factors that go together: w = exp(−(a − b)² / 2σ²), with levels scaled to [0, 1].

    So both are uniform and independent as σ → ∞, and equal as σ → 0. Träuble et al. 2021 train on such data.

    Args:
        first: name or column of one factor.
        second: of the other.
        sigma: width of the band around the diagonal, as a share of the range; less is a stronger correlation.
        falling: True for a correlation below zero.

    Raises:
        SettingsError: the width is not above zero.
    """

    first: str | int
    second: str | int
    sigma: float
    falling: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.sigma > 0:
            raise SettingsError(f"sigma is {self.sigma:g}", where="Correlated", remedy="give a number above 0")

    def log_weight(self, world: FactorWorld, levels: Tensor) -> Tensor:
        """Compute the logarithm of the weight of combinations.

        Args:
            world: of the factors.
            levels: (B, K) whole levels.

        Returns:
            (B,) float64.

        Raises:
            SettingsError: a factor has no order or one level, or both are the same.
        """
        columns = [world.position(factor) for factor in (self.first, self.second)]
        for column in columns:
            if world.names[column] not in world.ordered or world.sizes[column] < 2:
                raise SettingsError(
                    f"the factor {world.names[column]!r} has no order",
                    where="Correlated",
                    remedy=f"name two of {', '.join(world.ordered)}",
                )
        if columns[0] == columns[1]:
            raise SettingsError("both factors are the same", where="Correlated", remedy="name two factors")
        a, b = (levels[:, c].double() / (world.sizes[c] - 1) for c in columns)
        apart = a - (1 - b if self.falling else b)
        return -(apart**2) / (2 * self.sigma**2)


@dataclass(frozen=True)
class Missing:
    """A rectangle of combinations of two factors that is never seen, or that alone is.

    Training on what is left and testing on the rectangle asks whether a network combines what it has seen apart.

    Args:
        first: name or column of one factor.
        first_levels: first and last level of the rectangle.
        second: name or column of the other factor.
        second_levels: first and last level of the rectangle.
        only: True for the rectangle alone, as a test set has it.

    Raises:
        SettingsError: a range ends before it begins.
    """

    first: str | int
    first_levels: tuple[int, int]
    second: str | int
    second_levels: tuple[int, int]
    only: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        for low, high in (self.first_levels, self.second_levels):
            if low > high:
                raise SettingsError(
                    f"the levels from {low} to {high} are none", where="Missing", remedy="give first and last level"
                )

    def log_weight(self, world: FactorWorld, levels: Tensor) -> Tensor:
        """Compute the logarithm of the weight of combinations.

        Args:
            world: of the factors.
            levels: (B, K) whole levels.

        Returns:
            (B,) float64: 0 or −∞.
        """
        inside = torch.ones(len(levels), dtype=torch.bool)
        for factor, (low, high) in ((self.first, self.first_levels), (self.second, self.second_levels)):
            column = levels[:, world.position(factor)]
            inside &= (column >= low) & (column <= high)
        allowed = inside if self.only else ~inside
        return torch.zeros(len(levels), dtype=torch.float64).masked_fill(~allowed, -torch.inf)
