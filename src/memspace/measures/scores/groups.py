"""Rows of a table that share a level of one factor: what replaces a generator that holds the factor fixed.

A generator makes new inputs in which one factor is held and the others vary freely. A table has only the rows it has:
rows of one level are drawn with replacement, so that small groups repeat themselves, and the other factors vary as
they do in the table. Where factors are correlated there, they stay so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memspace.measures.scores.score import Levels

__all__ = ["FactorGroups", "groups_of"]

Rows = np.ndarray


@dataclass(frozen=True)
class FactorGroups:
    """Rows of one factor in the order of their levels; rows that are alone in their level are left out.

    Args:
        rows: (R,) rows.
        start: (R,) where the level of each begins in ``rows``.
        size: (R,) how many rows share it.
    """

    rows: Levels
    start: Levels
    size: Levels

    def sharing(self, count: int, batch: int, generator: np.random.Generator) -> Levels:
        """Draw batches of rows that share one level, with replacement; levels as often as they occur.

        Args:
            count: number of batches.
            batch: rows in a batch.
            generator: of the draws.

        Returns:
            (count, batch) rows.
        """
        at = generator.integers(len(self.rows), size=(count, 1))
        offset = generator.random((count, batch)) * self.size[at]
        return self.rows[self.start[at] + offset.astype(np.int64)]

    def pairs(self, count: int, batch: int, generator: np.random.Generator) -> tuple[Levels, Levels]:
        """Draw batches of pairs of different rows; the two of a pair share a level.

        Args:
            count: number of batches.
            batch: pairs in a batch.
            generator: of the draws.

        Returns:
            (count, batch) rows, and as many partners.
        """
        at = generator.integers(len(self.rows), size=(count, batch))
        start, size = self.start[at], self.size[at]
        further = 1 + (generator.random((count, batch)) * (size - 1)).astype(np.int64)
        return self.rows[at], self.rows[start + (at - start + further) % size]


def groups_of(v: Levels) -> list[FactorGroups]:
    """Group the rows of a table by the levels of each factor.

    Args:
        v: (M, K) levels.

    Returns:
        One for each factor that has two levels with at least two rows.
    """
    groups = []
    for levels in v.T:
        _, index, count = np.unique(levels, return_inverse=True, return_counts=True)
        size = count[index]
        order = np.argsort(index, kind="stable")
        order = order[size[order] > 1]
        if (count > 1).sum() < 2:
            continue
        start = np.searchsorted(index[order], index[order])
        groups.append(FactorGroups(order, start, size[order]))
    return groups
