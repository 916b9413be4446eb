"""What a training study says: settings chosen, means over seeds, differences from the baseline, and the verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student

from memspace.experiments.action_training import Outcome
from memspace.measurement import Measurement

__all__ = ["OUTCOMES", "SHOWN", "MethodComparison", "OutcomeKind", "chosen", "compare", "matched", "means"]


# The outcomes that a person is told; the rest is in the measurements.
SHOWN = (
    "loss",
    "calibrated_loss",
    "accuracy",
    "calibration_error",
    "corrupted_accuracy",
    "memorised",
    "memorised_matched",
)


@dataclass(frozen=True)
class OutcomeKind:
    """An outcome.

    Args:
        name: of the outcome.
        unit: its unit.
        better: sign of an improvement (−1: less is better; 0: neither).
        what: it is, in words.
    """

    name: str
    unit: str
    better: int
    what: str


OUTCOMES = (
    OutcomeKind("loss", "nats", -1, "test loss"),
    OutcomeKind("calibrated_loss", "nats", -1, "test loss at the temperature of least validation loss"),
    OutcomeKind("accuracy", "1", 1, "test accuracy"),
    OutcomeKind("calibration_error", "1", -1, "expected calibration error on test examples"),
    OutcomeKind("corrupted_accuracy", "1", 1, "test accuracy, mean over corruptions of the inputs"),
    OutcomeKind("memorised", "1", -1, "share of wrong training labels fitted at the end"),
    OutcomeKind("memorised_matched", "1", -1, "the same where the training first reaches the matched test accuracy"),
    OutcomeKind("norm", "nats", 0, "Fisher–Rao norm on test examples"),
    OutcomeKind("length", "nats^½", 0, "Fisher–Rao length of the training path"),
)


@dataclass(frozen=True)
class MethodComparison:
    """A method against the baseline on one outcome.

    Args:
        method: its name.
        outcome: its name.
        difference: mean over seeds of (method − baseline) with its 95% Student interval.
        verdict: ``better``, ``worse`` or ``undecided`` (the interval holds 0); ``different`` where neither is better.
        strict: whether it stays so at 95% for all methods together (Bonferroni).
    """

    method: str
    outcome: str
    difference: Measurement
    verdict: str
    strict: bool


def chosen(outcomes: Iterable[Outcome]) -> dict[str, tuple[float, float]]:
    """Choose each method's setting of least validation loss, mean over the tuning seeds.

    Args:
        outcomes: of the tuning trainings.

    Returns:
        Method → (rate, strength).
    """
    losses: dict[str, dict[tuple[float, float], list[float]]] = {}
    for o in outcomes:
        losses.setdefault(o.job.method, {}).setdefault((o.job.rate, o.job.strength), []).append(o.valid_loss)
    return {m: min(settings, key=lambda s: statistics.fmean(settings[s])) for m, settings in losses.items()}


def matched(curve: Mapping[str, Sequence[float]], accuracy: float) -> float:
    """Read the share of wrong labels fitted where a training first reaches a test accuracy; linear between readings.

    Args:
        curve: of a final training.
        accuracy: to reach.

    Returns:
        A share; NaN where it never does.
    """
    a, m = curve["accuracy"], curve["memorised"]
    for k, now in enumerate(a):
        if now >= accuracy:
            if k == 0:
                return m[0]
            share = (accuracy - a[k - 1]) / (now - a[k - 1])  # a[k-1] < accuracy: it was not reached before
            return m[k - 1] + share * (m[k] - m[k - 1])
    return math.nan


def means(outcomes: Mapping[str, Sequence[Outcome]], noise: bool) -> list[Measurement]:
    """State every outcome of every method, mean over seeds; memorisation only where labels are wrong.

    The matched accuracy is the greatest that every training reaches.

    Args:
        outcomes: final trainings by method.
        noise: whether labels are wrong.

    Returns:
        One measurement a method and outcome.
    """
    target = min(max(o.curve["accuracy"]) for trainings in outcomes.values() for o in trainings)
    out = []
    for name, trainings in outcomes.items():
        for r in _read(noise):
            if r.name == "memorised_matched":
                values = [matched(o.curve, target) for o in trainings]
                how = f"{r.what} of {target:.4f}, which every training reaches"
            else:
                values, how = [o.values[r.name] for o in trainings], r.what
            out.append(_mean(f"{name}.{r.name}", values, r.unit, f"{how}; mean over seeds"))
    return out


def compare(outcomes: Mapping[str, Sequence[Outcome]], baseline: str, noise: bool) -> list[MethodComparison]:
    """Compare every method with the baseline, seed by seed: same split, wrong labels, initialisation and order.

    Memorisation is matched for each pair at the lower of the two trainings' best test accuracies.

    Args:
        outcomes: final trainings by method.
        baseline: its name.
        noise: whether labels are wrong.

    Returns:
        One comparison a method and outcome.
    """
    base = {o.job.seed: o for o in outcomes[baseline]}
    others = [m for m in outcomes if m != baseline]
    out = []
    for name in others:
        pairs = [(o, base[o.job.seed]) for o in outcomes[name] if o.job.seed in base]
        for r in _read(noise):
            if r.name == "memorised_matched":
                differences = [_matched_difference(a, b) for a, b in pairs]
            else:
                differences = [a.values[r.name] - b.values[r.name] for a, b in pairs]
            how = f"{r.what}: {name} less {baseline}, paired by seed"
            d = _mean(f"{name}.{r.name}.less {baseline}", differences, r.unit, how)
            wide = _mean("wide", differences, r.unit, how, 1 - 0.05 / max(1, len(others)))
            verdict = _verdict(d, r.better)
            out.append(
                MethodComparison(
                    name, r.name, d, verdict, verdict != "undecided" and _verdict(wide, r.better) == verdict
                )
            )
    return out


def _read(noise: bool) -> list[OutcomeKind]:
    return [r for r in OUTCOMES if noise or not r.name.startswith("memorised")]


def _matched_difference(a: Outcome, b: Outcome) -> float:
    target = min(max(a.curve["accuracy"]), max(b.curve["accuracy"]))
    return matched(a.curve, target) - matched(b.curve, target)


def _verdict(d: Measurement, better: int) -> str:
    if d.interval is None or d.interval[0] <= 0 <= d.interval[1]:
        return "undecided"
    if better == 0:
        return "different"
    return "better" if (d.value > 0) == (better > 0) else "worse"


def _mean(name: str, values: Sequence[float], unit: str, how: str, level: float = 0.95) -> Measurement:
    """Mean with a Student interval over seeds."""
    n, mean = len(values), statistics.fmean(values)
    if n < 2:
        return Measurement(name, mean, unit, how, n, None, reliable=False, note="one seed: no interval")
    half = float(student.ppf((1 + level) / 2, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return Measurement(name, mean, unit, how, n, (mean - half, mean + half))
