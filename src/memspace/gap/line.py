"""Ridge regression in which every group of networks counts alike, its penalty chosen on groups left out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["Line", "fit_line"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
PENALTIES = np.logspace(-4, 2, 13)  # of standardised predictors
LEAST = 1e-3  # of a standardised predictor's variance, below which a direction counts as one that does not vary


@dataclass(frozen=True)
class Line:
    """A fitted line, y = intercept + Σ w_k (x_k − centre_k).

    Args:
        intercept: in the unit of what is told.
        weights: a predictor each, on its scale.
        centre: mean of each predictor, groups counted alike.
        precision: (p, p) inverse of the predictors' covariance, bounded.
        groups: that it was fitted on.
    """

    intercept: float
    weights: tuple[float, ...]
    centre: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    groups: int

    def values(self, x: Floats) -> Floats:
        """Compute what the line says.

        Args:
            x: (n, p) predictors on their scales.

        Returns:
            (n,).
        """
        return np.asarray(self.intercept + (x - self._arrays[1]) @ self._arrays[0])

    def distances(self, x: Floats) -> Floats:
        """Compute squared Mahalanobis distances from the networks that it was fitted on.

        Args:
            x: (n, p) predictors on their scales.

        Returns:
            (n,) d² = (x − centre)ᵀ precision (x − centre).
        """
        off = x - self._arrays[1]
        return np.asarray(np.einsum("np,pq,nq->n", off, self._arrays[2], off))

    def errors(self, x: Floats) -> Floats:
        """Compute how the error grows away from the centre: groups, not networks, are what was drawn.

        Args:
            x: (n, p) predictors on their scales.

        Returns:
            (n,) √(1 + d²/groups).
        """
        return np.asarray(np.sqrt(1 + self.distances(x) / self.groups))

    @cached_property
    def _arrays(self) -> tuple[Floats, Floats, Floats]:
        shape = (len(self.weights),) * 2
        return np.array(self.weights), np.array(self.centre), np.array(self.precision).reshape(shape)


def fit_line(x: Floats, y: Floats, group: Codes) -> Line:
    """Fit a line.

    Args:
        x: (n, p) predictors on their scales, finite.
        y: (n,) what is told.
        group: (n,) number of the group, two or more.

    Returns:
        The line, with the penalty that predicts groups left out best.
    """
    groups = np.unique(group)
    errors = np.zeros(len(PENALTIES))
    for one in groups if len(groups) > 2 else ():
        inside = group != one
        guessed = _Ridge.of(x[inside], y[inside], group[inside]).path(x[~inside])
        errors += ((guessed - y[~inside, None]) ** 2).mean(0)
    penalty = float(PENALTIES[int(np.argmin(errors)) if len(groups) > 2 else -1])  # nothing to choose by: the strongest
    ridge = _Ridge.of(x, y, group)
    weights = ridge.weights(np.array([penalty]))[:, 0] / ridge.spread
    root = ridge.directions / np.sqrt(ridge.values + max(penalty, LEAST))
    precision = root @ root.T / np.outer(ridge.spread, ridge.spread)
    return Line(
        ridge.mean,
        tuple(map(float, weights)),
        tuple(map(float, ridge.centre)),
        tuple(tuple(map(float, row)) for row in precision),
        len(groups),
    )


@dataclass(frozen=True)
class _Ridge:
    """Covariance of a training part's standardised predictors in its eigenbasis, groups counted alike."""

    centre: Floats
    spread: Floats
    mean: float
    values: Floats
    directions: Floats
    slope: Floats  # covariance with y, in the eigenbasis

    @staticmethod
    def of(x: Floats, y: Floats, group: Codes) -> _Ridge:
        _, place, count = np.unique(group, return_inverse=True, return_counts=True)
        weight = 1 / (len(count) * count[place.ravel()])
        centre, mean = weight @ x, float(weight @ y)
        spread = np.sqrt(weight @ (x - centre) ** 2)
        spread = np.where(spread > 1e-12 * (1 + np.abs(centre)), spread, 1.0)
        z = (x - centre) / spread
        values, directions = np.linalg.eigh((z * weight[:, None]).T @ z)
        return _Ridge(centre, spread, mean, values.clip(0), directions, directions.T @ ((z.T * weight) @ (y - mean)))

    def weights(self, penalties: Floats) -> Floats:
        """Of standardised predictors, (p, penalties)."""
        return np.asarray(self.directions @ (self.slope[:, None] / (self.values[:, None] + penalties)))

    def path(self, new: Floats) -> Floats:
        """Predictions at every penalty, (new, penalties)."""
        return np.asarray(self.mean + ((new - self.centre) / self.spread) @ self.weights(PENALTIES))
