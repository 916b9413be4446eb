"""Heavy tails of the layers' spectra: eigenvalues λ of WᵀW fall as λ^−α above some λ_min (Martin & Mahoney 2021a)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from memspace.measures.declaration import measure, provides
from memspace.measures.predictors.values import WeightMatrices
from memspace.value import Absent, Value

__all__ = ["PowerLaw", "SpectralTails", "fit_power_law"]

LEAST = 20  # eigenvalues of a layer that is fitted
TAIL = 10  # eigenvalues of a tail


@dataclass(frozen=True)
class PowerLaw:
    """A density that falls as x^−α above x_min, fitted to a sample.

    Args:
        alpha: α, by maximum likelihood.
        start: x_min, at which the fitted tail is nearest to the sample's.
        distance: Kolmogorov–Smirnov distance of the two above x_min.
        tail: values above x_min.
    """

    alpha: float
    start: float
    distance: float
    tail: int

    @property
    def error(self) -> float:
        """Standard error of α at this x_min, (α − 1)/√tail."""
        return (self.alpha - 1) / math.sqrt(self.tail)


@dataclass(frozen=True)
class SpectralTails:
    """Fits to the layers whose spectra are large enough.

    Args:
        laws: a fit for each layer.
        spectra: eigenvalues of WᵀW of each.
    """

    laws: tuple[PowerLaw, ...]
    spectra: tuple[np.ndarray, ...]

    def mean(self, values: list[float]) -> Value:
        """Average over the layers.

        Args:
            values: one a layer.

        Returns:
            the mean, exact for these weights.
        """
        return Value(float(np.mean(values)), len(values), how=f"{len(values)} layers of {LEAST} eigenvalues or more")


def fit_power_law(values: ArrayLike) -> PowerLaw | None:
    """Fit a power law to the upper tail of a sample, whose start is chosen (Clauset et al. 2009, eqs. 3.1 and 3.9).

    α = 1 + n/Σ ln(x_i/x_min) over the n values from x_min on; x_min is the value at which the distance is least.

    Args:
        values: (n,), those that are not positive are left out.

    Returns:
        the fit; None where fewer than ten values, or all equal ones, would be the tail.
    """
    x = np.sort(np.asarray(values, dtype=float))
    x = x[x > 0]
    fits = [_tail(x[i:]) for i in range(len(x) - TAIL + 1) if i == 0 or x[i] > x[i - 1]]
    some = [fit for fit in fits if fit is not None]
    return min(some, key=lambda fit: fit.distance) if some else None


def _tail(x: np.ndarray) -> PowerLaw | None:
    """The fit to a sorted sample, from its first value on."""
    n, logs = len(x), np.log(x / x[0])
    if not logs[-1] > 0:
        return None
    alpha = 1 + n / float(logs.sum())
    below = -np.expm1((1 - alpha) * logs)  # the fitted distribution function
    distance = max(float((np.arange(1, n + 1) / n - below).max()), float((below - np.arange(n) / n).max()))
    return PowerLaw(alpha, float(x[0]), distance, n)


@provides()
def spectral_tails(weights: WeightMatrices) -> SpectralTails | Absent:
    """Fit a power law to the spectrum of every layer that is large enough."""
    laws, spectra = [], []
    for matrix in weights.matrices:
        values = matrix.singular.numpy() ** 2
        law = fit_power_law(values) if len(values) >= LEAST else None
        if law is not None:
            laws.append(law)
            spectra.append(values)
    if not laws:
        return Absent(f"no layer has {LEAST} eigenvalues", f"read a network of layers at least {LEAST} units wide")
    return SpectralTails(tuple(laws), tuple(spectra))


@measure(
    "tails.alpha",
    chapter="predictors",
    unit="1",
    estimator="mean over layers of α, by maximum likelihood above the best x_min",
    source="martin2021a, clauset2009",
    better="smaller",
)
def alpha(tails: SpectralTails) -> Value:
    """Exponent at which the layers' spectra fall."""
    return tails.mean([law.alpha for law in tails.laws])


@measure(
    "tails.weighted_alpha",
    chapter="predictors",
    unit="1",
    estimator="mean over layers of α log₁₀ λ_max",
    source="martin2021b",
    better="smaller",
)
def weighted_alpha(tails: SpectralTails) -> Value:
    """Exponent of the layers' spectra, weighed by their size."""
    pairs = zip(tails.laws, tails.spectra, strict=True)
    return tails.mean([law.alpha * math.log10(values.max()) for law, values in pairs])


@measure(
    "tails.log_alpha_norm",
    chapter="predictors",
    unit="1",
    estimator="mean over layers of log₁₀ Σ λ^α",
    source="martin2021b",
    better="smaller",
)
def log_alpha_norm(tails: SpectralTails) -> Value:
    """Size of the layers' weights in the norm of their own exponent."""
    pairs = zip(tails.laws, tails.spectra, strict=True)
    sizes = []
    for law, values in pairs:
        top = float(values.max())
        sizes.append(law.alpha * math.log10(top) + math.log10(float(((values / top) ** law.alpha).sum())))
    return tails.mean(sizes)


@measure(
    "tails.distance",
    chapter="predictors",
    unit="1",
    estimator="mean over layers of the Kolmogorov–Smirnov distance of the spectrum's tail from its power law",
    source="martin2021b, clauset2009",
    better="smaller",
)
def distance(tails: SpectralTails) -> Value:
    """How far the layers' spectra are from power laws."""
    return tails.mean([law.distance for law in tails.laws])
