"""A world: the factors that its images are made of, and a function from their levels to images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace.errors import DataError, SettingsError
from memspace.task.factors import Factors

__all__ = ["FactorWorld", "WorldFactor"]

CHUNK = 128  # images drawn at once: what a renderer holds on the way is many times the images
BEYOND = 0.75  # levels beyond the first and the last that are drawn: a loop of one level a side, and differences on it


@dataclass(frozen=True)
class WorldFactor:
    """One generating factor.

    Args:
        name: of the factor.
        size: number of levels, 0 to size − 1.
        ordered: True where levels lie on a line or a circle; False where they are kinds.
        period: levels after which a circular factor is where it began; None: it is not circular.
    """

    name: str
    size: int
    ordered: bool = True
    period: int | None = None


@dataclass(frozen=True)
class _Pooled:
    """A renderer at a lower resolution; a class, so that it travels between processes."""

    draw: Callable[[Tensor], Tensor]
    by: int

    def __call__(self, levels: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(self.draw(levels), self.by)


@dataclass(frozen=True)
class FactorWorld:
    """Images as a function of known factors.

    Args:
        name: of the world.
        factors: what images are made of, one per column of levels.
        shape: (C, H, W) of an image.
        draw: (B, K) float64 levels -> (B, C, H, W) in [0, 1].
        continuous: True where ordered factors may lie between levels; False for photographs.
        alike: (B, K) whole levels -> those of the first combination with the same image; None: all images differ.
        data: one clause on the images, for reports.

    Raises:
        SettingsError: there is no factor, two have one name, or one has no level.
    """

    name: str
    factors: tuple[WorldFactor, ...]
    shape: tuple[int, int, int]
    draw: Callable[[Tensor], Tensor]
    continuous: bool = True
    alike: Callable[[Tensor], Tensor] | None = None
    data: str = ""

    def __post_init__(self) -> None:
        if not self.factors or len(set(self.names)) < len(self.factors) or min(self.sizes) < 1:
            raise SettingsError(
                f"the factors {self.names} have {self.sizes} levels",
                where=f"world {self.name}",
                remedy="give at least one factor, each with a name of its own and one level or more",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the factors."""
        return tuple(f.name for f in self.factors)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of levels of each factor."""
        return tuple(f.size for f in self.factors)

    @property
    def circular(self) -> tuple[str, ...]:
        """Names of the factors whose levels lie on a circle; they are ordered too."""
        return tuple(f.name for f in self.factors if f.period is not None)

    @property
    def ordered(self) -> tuple[str, ...]:
        """Names of the factors whose levels lie on a line or a circle."""
        return tuple(f.name for f in self.factors if f.ordered)

    @property
    def count(self) -> int:
        """Number of combinations of levels."""
        return math.prod(self.sizes)

    def position(self, factor: str | int) -> int:
        """Return the column of a factor.

        Args:
            factor: its name, or the column itself.

        Returns:
            The column, from 0.

        Raises:
            SettingsError: there is no such factor.
        """
        if isinstance(factor, str) and factor in self.names:
            return self.names.index(factor)
        if isinstance(factor, int) and 0 <= factor < len(self.factors):
            return factor
        raise SettingsError(
            f"there is no factor {factor!r}", where=f"world {self.name}", remedy=f"name one of {', '.join(self.names)}"
        )

    def levels_at(self, index: Tensor) -> Tensor:
        """Return combinations by number; the last factor runs fastest.

        Args:
            index: (B,) whole numbers from 0 to below ``count``.

        Returns:
            (B, K) whole levels.
        """
        rest, columns = index.long(), []
        for size in reversed(self.sizes):  # torch.unravel_index imports sympy for this
            columns.append(rest % size)
            rest = rest // size
        return torch.stack(columns[::-1], 1)

    def index_of(self, levels: Tensor) -> Tensor:
        """Return the numbers of combinations.

        Args:
            levels: (B, K) whole levels.

        Returns:
            (B,) whole numbers, such that ``levels_at`` gives the levels.
        """
        index = torch.zeros(len(levels), dtype=torch.long)
        for column, size in zip(levels.long().T, self.sizes, strict=True):
            index = index * size + column
        return index

    def first_alike(self, levels: Tensor) -> Tensor:
        """Return, for every combination, the first one that has the same image.

        Args:
            levels: (B, K) whole levels.

        Returns:
            (B, K) whole levels; equal rows mean equal images, other rows other ones.
        """
        return levels.long() if self.alike is None else self.alike(levels.long())

    def render(self, levels: Tensor) -> Tensor:
        """Draw images.

        Args:
            levels: (B, K) levels: whole for kinds; any number for circular factors; up to 0.75 levels beyond
                the first and the last for other ordered ones.

        Returns:
            (B, C, H, W) float32 in [0, 1]; the same for the same levels.

        Raises:
            DataError: levels have another shape, lie outside of the range or between those that there are.
        """
        exact = self._checked(levels)
        with torch.no_grad():
            parts = [self.draw(part).float() for part in torch.split(exact, CHUNK)]
        return torch.cat(parts) if parts else torch.zeros(0, *self.shape)

    def as_factors(self, levels: Tensor) -> Factors:
        """Make images and what they are made of, as a task takes them.

        Args:
            levels: (B, K) whole levels.

        Returns:
            Factors with the images as inputs, and with the renderer where it draws between levels.
        """
        render = self.render if self.continuous else None
        return Factors(self.names, levels.long(), self.render(levels), self.sizes, render, self.ordered)

    def pooled(self, by: int) -> FactorWorld:
        """Make the same world at a lower resolution.

        Args:
            by: side of the squares of pixels that are averaged; it divides height and width.

        Returns:
            A world with smaller images.

        Raises:
            SettingsError: ``by`` does not divide height and width.
        """
        channels, height, width = self.shape
        if by < 1 or height % by or width % by:
            raise SettingsError(
                f"{height} × {width} pixels cannot be pooled by {by}",
                where=f"world {self.name}",
                remedy="give a common divisor of height and width",
            )

        return replace(self, shape=(channels, height // by, width // by), draw=_Pooled(self.draw, by))

    def _checked(self, levels: Tensor) -> Tensor:
        if levels.dim() != 2 or levels.shape[1] != len(self.factors) or levels.is_complex():
            raise DataError(
                f"levels are of shape {tuple(levels.shape)}",
                where=f"world {self.name}",
                remedy=f"give one row an image and one column for each of {', '.join(self.names)}",
            )
        exact = levels.detach().to(torch.float64)
        columns = []
        for column, factor in zip(exact.T, self.factors, strict=True):
            whole = not (factor.ordered and self.continuous)
            wrong = ~column.isfinite()
            if factor.period is not None:
                column = column % factor.period
            else:
                beyond = 0.0 if whole else BEYOND
                wrong |= (column < -beyond) | (column > factor.size - 1 + beyond)
            if whole:
                wrong |= column != column.round()
            if bool(wrong.any()):
                raise DataError(
                    f"there is no image at level {float(column[wrong][0]):g} of the factor {factor.name!r}",
                    where=f"world {self.name}",
                    remedy=f"give {'whole levels' if whole else 'levels'} from 0 to {factor.size - 1}",
                )
            columns.append(column)
        return torch.stack(columns, 1)
