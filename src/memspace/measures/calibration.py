"""Is the network as sure as it is right? The expected calibration error of its likeliest class."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.measurement import Measurement

__all__ = ["BINS", "calibration_error"]

BINS, RESAMPLES = 15, 200


def calibration_error(name: str, f: Tensor, truth: Tensor, how: str) -> Measurement:
    """Σ_b (n_b/n) |accuracy_b − confidence_b| over equal-width bins of confidence (Guo et al. 2017).

    Args:
        f: (n, C) outputs; truth: labels (n,), or p(true class) (n, C), by which accuracy is expected.
        how: goes into the estimator.

    Returns:
        With a 95% bootstrap interval; an average of absolute values, it is biased upwards where bins are small.
    """
    p = torch.softmax(f.double(), -1)
    confidence, chosen = p.max(-1)
    right = (chosen == truth).double() if truth.dim() == 1 else truth.double().gather(1, chosen[:, None])[:, 0]
    gap = (right - confidence).cpu()
    bins = (confidence.cpu() * BINS).long().clamp_max(BINS - 1)
    n = len(gap)

    def error(at: Tensor) -> float:
        return float(torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins[at], gap[at]).abs().sum() / n)

    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor([error(torch.randint(n, (n,), generator=generator)) for _ in range(RESAMPLES)])
    low, high = (float(torch.quantile(drawn.double(), q)) for q in (0.025, 0.975))
    value = error(torch.arange(n))
    interval = (min(low, value), max(high, value))
    return Measurement(name, value, "1", f"{how}; {BINS} bins of confidence", n, interval, "Guo et al. 2017")
