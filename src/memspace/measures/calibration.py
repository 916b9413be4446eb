"""Is the network as sure as it is right? The calibration error of its likeliest class, freed of its sampling bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from memspace import intervals
from memspace.value import Value

__all__ = ["BINS", "calibration_error", "calibration_estimate"]

BINS, FEWEST = 10, 8  # bins of equally many examples; the fewest a bin may hold


def calibration_error(f: Tensor, truth: Tensor) -> Value:
    """Return the root mean square of (accuracy − confidence) over bins of equally many examples (Kumar et al. 2019).

    The square of a bin's gap has its sampling variance subtracted, so that a perfectly calibrated predictor gets zero
    in the mean (the plug-in mean of |gap| never does). The interval is that of the mean square, by its normal error.

    Args:
        f: (n, C) log-probabilities of the classes.
        truth: labels (n,), or p(true class) (n, C), by which accuracy is expected.

    Returns:
        in units of probability; not reliable where there are too few examples for two bins.
    """
    p = torch.softmax(f.double(), -1)
    confidence, chosen = p.max(-1)
    right = (chosen == truth).double() if truth.dim() == 1 else truth.double().gather(1, chosen[:, None])[:, 0]
    gap, order = (right - confidence).cpu().numpy(), confidence.cpu().numpy().argsort(kind="stable")
    n = len(gap)
    parts = np.array_split(gap[order], max(1, min(BINS, n // FEWEST)))
    share = np.array([len(part) / n for part in parts])
    means = np.array([part.mean() for part in parts])
    spread = np.array([_variance(part) / len(part) for part in parts])
    squared = float((share * (means**2 - spread)).sum())
    error = float(np.sqrt((share**2 * (2 * spread**2 + 4 * np.maximum(means**2 - spread, 0) * spread)).sum()))
    half = intervals.margin(error)
    value, low, high = (float(np.sqrt(max(v, 0.0))) for v in (squared, squared - half, squared + half))
    how = f"root mean square over {len(parts)} bins of equally many examples, sampling variance subtracted"
    enough = len(parts) > 1
    note = "" if enough else f"{n} examples are too few for two bins"
    return Value(value, n, (low, high), how, enough, note)


def calibration_estimate(outputs: Sequence[Tensor], truths: Sequence[Tensor], others: Sequence[Tensor] = ()) -> Value:
    """Return the error to expect of new examples: the mean over several readings of outputs that did not see them.

    Args:
        outputs: (n, C) log-probabilities each, by leave-one-out and by refits.
        truths: labels or laws of them, as given and as inferred, where these cannot be separated.
        others: further ones that the labels do not exclude.

    Returns:
        in units of probability, with an interval that spans those of all readings.
    """
    readings = [calibration_error(f, truth) for f in outputs for truth in truths]
    further = [calibration_error(f, truth) for f in outputs for truth in others]
    ends = [m.interval for m in (*readings, *further) if m.interval is not None]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    value = sum(m.value for m in readings) / len(readings)
    return replace(readings[0], value=value, interval=(low, high), reliable=all(m.reliable for m in readings))


def _variance(gap: np.ndarray) -> float:
    """Variance of right − confidence in a bin; a little more than none where all of a few are right."""
    m = len(gap)
    return float((((gap - gap.mean()) ** 2).sum() + 2 / (m + 2)) / max(m - 1, 1))
