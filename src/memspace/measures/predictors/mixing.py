"""How well chains have mixed: effective sample size and split R̂ (Vehtari et al. 2021), without the rank transform."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

__all__ = ["Mixing", "mixing"]


@dataclass(frozen=True)
class Mixing:
    """The mean over chains and what is known of its error.

    Args:
        mean: over all draws.
        error: its standard error, the larger of that by autocorrelations and that by the means of halves of chains.
        df: degrees of freedom of the error, halves less one.
        size: effective number of independent draws.
        rhat: √ of the variance over all halves of chains, over that within them; 1 where chains agree.
    """

    mean: float
    error: float
    df: int
    size: float
    rhat: float


def mixing(values: NDArray[np.float64]) -> Mixing:
    """Estimate the mean of a chain's quantity, its error and whether chains agree.

    Autocorrelations combine the variance within chains with that between them, and are summed in pairs as long as the
    pairs are positive and fall (Geyer 1992). Their error √(variance/size) is too small where chains are hardly longer
    than their memory; the spread of the means of halves is not.

    Args:
        values: (chains, draws), four draws or more.

    Returns:
        The mean; of draws that are all equal the size is 1 and R̂ is not a number.
    """
    half = values.shape[1] // 2
    halves = np.concatenate([values[:, :half], values[:, half : 2 * half]])
    count, draws = halves.shape
    within = halves.var(1, ddof=1).mean()
    between = halves.mean(1).var(ddof=1)
    variance = (draws - 1) / draws * within + between
    if not within > 0:
        return Mixing(float(values.mean()), math.inf, count - 1, 1.0, math.nan)
    covariance = np.mean([_autocovariance(chain) for chain in halves], 0)
    correlation = 1 - (within - covariance * draws / (draws - 1)) / variance
    correlation[0] = 1.0
    pairs = correlation[: draws // 2 * 2].reshape(-1, 2).sum(1)
    stop = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs)
    time = max(-1 + 2 * float(np.minimum.accumulate(pairs[:stop]).sum()), 1 / math.log10(max(count * draws, 10)))
    size = count * draws / time
    error = math.sqrt(max(variance / size, between / count))
    return Mixing(float(values.mean()), error, count - 1, size, math.sqrt(variance / within))


def _autocovariance(chain: NDArray[np.float64]) -> NDArray[np.float64]:
    """(draws,) at lags 0, 1, …, each over the number of draws."""
    centred = chain - chain.mean()
    n = len(centred)
    result: NDArray[np.float64] = signal.correlate(centred, centred, "full", "fft")[n - 1 :] / n
    return result
