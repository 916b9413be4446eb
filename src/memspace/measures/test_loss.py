"""The loss to expect on data like the training data, from networks that did not see the examples.

The plain mean of held-out losses is noisy, too high and asks after the labels as given. Three things are mended:

- each held-out loss is replaced by its mean over the label, under the calibrated law of the noise model: what one
  label happened to be drops out;
- a network trained on (K − 1)/K of the data is worse than one trained on all. Where the excess loss falls as 1/n and
  optimism and excess are alike (Akaike), that is (held-out loss − training loss)/2K. A network that fits every example
  may gain nothing, so the upper end of the interval keeps it;
- test labels are taken to be right: the law is that of the true label where the noise model can tell it, and lies half
  way between true and observed where it can't. The interval spans every law that the labels do not exclude.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memspace import intervals

__all__ = ["Expected", "expect", "expect_by_law"]

# Standard errors that sampling does not show (docs/labels.md): relative, of another training and of the law itself;
# and as a share of the gap between held-out and training loss, of another training set.
AGAIN, ANOTHER_SET = 0.09, 0.1


@dataclass(frozen=True)
class Expected:
    """An expected loss, nats per prediction, with its 95% interval and how it came about."""

    value: float
    interval: tuple[float, float]
    how: str
    reliable: bool = True
    note: str = ""


def _margins(held_out: Tensor, value: float, train: float, floor: float = 0.0) -> tuple[float, float, str]:
    """How far the loss may lie below and above, and why that may not hold ("" if it does)."""
    mean = float(held_out.mean())
    found = intervals.of_mean(held_out.cpu().numpy(), lower=floor)
    low, high = found.ends if found.ends is not None else (floor, 2 * mean - floor)
    again = float(intervals.margin(np.hypot(AGAIN * (value - floor), ANOTHER_SET * max(mean - train, 0.0))))
    return float(np.hypot(mean - low, again)), float(np.hypot(high - mean, again)), found.doubt


def expect(held_out: Tensor, train: float, parts: int, *, folds: int, floor: float = 0.0) -> Expected:
    """The mean held-out loss, put right for the examples that each refit lacked.

    Args:
        held_out: (m,) losses; train: the network's own mean training loss; parts: K; folds: refits made.
        floor: what no loss is below. The loss of a density has none at 0, and moves with the unit of its targets.
    """
    mean = float(held_out.mean())
    value = mean - max(mean - train, 0.0) / (2 * parts)
    below, above, doubt = _margins(held_out, value, train, floor)
    how = f"mean held-out loss of {_refits(folds)}, put right for the examples they lacked; against the labels as given"
    return Expected(value, (max(floor, value - below), mean + above), how, not doubt, doubt)


def expect_by_law(
    f: Tensor,
    y: Tensor,
    laws: tuple[Tensor, Tensor],
    admitted: Iterable[Tensor],
    train: float,
    parts: int,
    *,
    folds: int,
    told: bool,
    loo: Tensor | None,
) -> Expected:
    """The same for classes, each loss a mean over the label.

    Args:
        f: (m, C) held-out outputs; y: (m,) labels; laws: (m, C) of the true and of the observed label.
        admitted: laws (m, C) of the true label that the labels do not exclude.
        train, parts, folds: as in :func:`expect`.
        told: whether the noise model tells wrong labels from classes that overlap.
        loo: (m, C) leave-one-out outputs at a damping that meets the refits, or None.
    """
    surprise = -torch.log_softmax(f.double(), -1)
    held_out = surprise.gather(1, y.unsqueeze(1)).squeeze(1)
    true, observed = (float((law.to(surprise) * surprise).sum(1).mean()) for law in laws)
    mean = float(held_out.mean())
    lacked = max(mean - train, 0.0) / (2 * parts)
    ends = [true, *(float((law.to(surprise) * surprise).sum(1).mean()) for law in admitted)]
    value, against = (true + observed) / 2, "half way between true and observed labels, which can't be told apart"
    if not told:
        ends += [observed, mean]
    else:
        value, against = true, "against the true label under the noise model"
        if loo is not None:
            value = float((laws[0].to(surprise) * -torch.log_softmax(loo.double(), -1)).sum(1).mean())
            ends.append(value)
    value = value - lacked
    below, above, doubt = _margins(held_out, max(ends), train)
    low, high = max(0.0, min(ends) - lacked - below), max(ends) + above
    source = "leave-one-out that meets" if told and loo is not None else "held-out losses of"
    how = f"{source} {_refits(folds)}, put right for the examples they lacked; {against}"
    return Expected(value, (low, high), how, not doubt, doubt)


def _refits(folds: int) -> str:
    return "one refit" if folds == 1 else f"{folds} refits"
