"""The loss to expect on data like the training data, from networks that did not see the examples.

The plain mean of held-out losses is noisy, too high and refers to the labels as given. Three things are corrected:

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

__all__ = ["Expected", "LabelLaws", "Refitted", "expect", "expect_by_law"]

# Standard errors that sampling does not show (docs/labels.md): relative, of another training and of the law itself;
# and as a share of the gap between held-out and training loss, of another training set.
AGAIN, ANOTHER_SET = 0.09, 0.1


@dataclass(frozen=True)
class Expected:
    """An expected loss per prediction.

    Args:
        value: nats.
        interval: 95%, nats.
        how: estimator, for people.
        reliable: whether it holds.
        note: for people.
    """

    value: float
    interval: tuple[float, float]
    how: str
    reliable: bool = True
    note: str = ""


@dataclass(frozen=True)
class Refitted:
    """What refits are compared with.

    Args:
        train: the network's own mean training loss, nats.
        parts: K, of which each refit lacks one.
        folds: refits made.
    """

    train: float
    parts: int
    folds: int

    def lacked(self, mean: float) -> float:
        """Return what a refit loses by the examples it lacks, nats.

        Args:
            mean: mean held-out loss, nats.

        Returns:
            (held-out loss − training loss)/2K.
        """
        return max(mean - self.train, 0.0) / (2 * self.parts)

    def __str__(self) -> str:
        return "one refit" if self.folds == 1 else f"{self.folds} refits"


@dataclass(frozen=True)
class LabelLaws:
    """What the label of an example may be.

    Args:
        true: (m, C) law of the true label.
        observed: (m, C) law of the label as given.
        admitted: laws (m, C) of the true label that the labels do not exclude.
        separable: whether the noise model distinguishes wrong labels from classes that overlap.
    """

    true: Tensor
    observed: Tensor
    admitted: Iterable[Tensor]
    separable: bool


def _margins(held_out: Tensor, value: float, train: float, floor: float = 0.0) -> tuple[float, float, str]:
    """How far the loss may lie below and above, and why that may not hold ("" if it does)."""
    mean = float(held_out.mean())
    sampled = intervals.of_mean(held_out.cpu().numpy(), lower=floor)
    low, high = sampled.ends if sampled.ends is not None else (floor, 2 * mean - floor)
    again = float(intervals.margin(np.hypot(AGAIN * (value - floor), ANOTHER_SET * max(mean - train, 0.0))))
    return float(np.hypot(mean - low, again)), float(np.hypot(high - mean, again)), sampled.doubt


def expect(held_out: Tensor, refits: Refitted, *, floor: float = 0.0) -> Expected:
    """Return the mean held-out loss, put right for the examples that each refit lacked.

    Args:
        held_out: (m,) losses, nats.
        refits: how they came about.
        floor: what no loss is below. The loss of a density has none at 0, and moves with the unit of its targets.

    Returns:
        nats per prediction, with interval.
    """
    mean = float(held_out.mean())
    value = mean - refits.lacked(mean)
    below, above, doubt = _margins(held_out, value, refits.train, floor)
    how = f"mean held-out loss of {refits}, put right for the examples they lacked; against the labels as given"
    return Expected(value, (max(floor, value - below), mean + above), how, not doubt, doubt)


def expect_by_law(f: Tensor, y: Tensor, laws: LabelLaws, refits: Refitted, *, loo: Tensor | None) -> Expected:
    """Return the same for classes, each loss a mean over the label.

    Args:
        f: (m, C) held-out outputs.
        y: (m,) labels.
        laws: what the labels may be.
        refits: how the held-out outputs came about.
        loo: (m, C) leave-one-out outputs at a damping that meets the refits, or None.

    Returns:
        nats per prediction, with interval.
    """
    surprise = -torch.log_softmax(f.double(), -1)
    held_out = surprise.gather(1, y.unsqueeze(1)).squeeze(1)
    true, observed = _mean_under(laws.true, surprise), _mean_under(laws.observed, surprise)
    mean = float(held_out.mean())
    lacked = refits.lacked(mean)
    ends = [true, *(_mean_under(law, surprise) for law in laws.admitted)]
    if not laws.separable:
        value, against = (
            (true + observed) / 2,
            "half way between true and observed labels, which cannot be separated",
        )
        ends += [observed, mean]
    else:
        value, against = true, "against the true label under the noise model"
        if loo is not None:
            value = _mean_under(laws.true.to(surprise), -torch.log_softmax(loo.double(), -1))
            ends.append(value)
    value = value - lacked
    below, above, doubt = _margins(held_out, max(ends), refits.train)
    low, high = max(0.0, min(ends) - lacked - below), max(ends) + above
    source = "leave-one-out that meets" if laws.separable and loo is not None else "held-out losses of"
    how = f"{source} {refits}, put right for the examples they lacked; {against}"
    return Expected(value, (low, high), how, not doubt, doubt)


def _mean_under(law: Tensor, surprise: Tensor) -> float:
    """Mean over the examples of the mean surprise under a law of the label, nats."""
    return float((law.to(surprise) * surprise).sum(1).mean())
