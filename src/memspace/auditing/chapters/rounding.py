"""Robustness, continued: weights rounded to a few bits. The lists are part of the chapter ``robustness``."""

from __future__ import annotations

from memspace.auditing.claims import above, below
from memspace.auditing.results import Figure, Finding, Series
from memspace.auditing.thresholds import ACCURACY_COST, ROUNDING_LEAD, ROUNDING_NOTICED
from memspace.measures.rounded_weights import BITS, LayersRounded, WeightsRounded, accuracy_change
from memspace.measures.sensitivity import LayerCost
from memspace.measures.workspace import Measured
from memspace.value import Value

__all__ = ["bits_needed", "layer_figure", "weakest_layer"]


def bits_needed(rounded: WeightsRounded, measured: Measured) -> Finding | None:
    """Say in how few bits the weights can be stored, or that the examples are too few to show it."""
    if rounded.right_before is None:
        return None
    changes = {bits: measured[accuracy_change(bits)] for bits in BITS if accuracy_change(bits) in measured}
    listed = "; ".join(
        f"{m.value:+.2%} ({m.interval[0]:+.2%} to {m.interval[1]:+.2%}) at {bits} bits"
        for bits, m in changes.items()
        if m.interval is not None
    )
    evidence = f"{rounded.judged_on} accuracy {float(rounded.right_before.mean()):.1%}; change {listed}."
    finding = _unknown_or_costly(max(changes), next(iter(changes.values())).n, evidence)
    for bits in sorted(changes, reverse=True):
        finding = Finding(
            "good",
            f"Weights can be stored in {bits} bits",
            evidence,
            f"Quantise to {bits} bits.",
            "robustness",
            claims=(above(accuracy_change(bits), -ACCURACY_COST),),
            otherwise=finding,
        )
    return finding


def _unknown_or_costly(most: int, n: int, evidence: str) -> Finding:
    """The finding that even the finest rounding costs accuracy, or that the examples are too few."""
    unknown = Finding(
        "note",
        f"{n:,} examples are too few to show whether rounding to {most} bits costs {ACCURACY_COST:.0%} accuracy",
        evidence,
        "Measure the rounded network on more examples before relying on it.",
        "robustness",
    )
    return Finding(
        "warn",
        f"Rounding to {most} bits costs more than {ACCURACY_COST:.0%} accuracy",
        evidence,
        "Keep full precision, or fine-tune after rounding.",
        "robustness",
        claims=(below(accuracy_change(most), -ACCURACY_COST),),
        otherwise=unknown,
    )


def weakest_layer(layers: LayersRounded) -> Finding | None:
    """Name the layer that costs most when rounded alone, at the finest rounding at which one surely costs most."""
    for bits, costs in layers.costs.items():
        if len(costs) < 2:
            continue
        first, second = sorted(costs, key=lambda c: -float(c.measured.mean()))[:2]
        cost, other = float(first.measured.mean()), float(second.measured.mean())
        if cost > ROUNDING_LEAD * other and cost > ROUNDING_NOTICED and _surely_more(first, second):
            return Finding(
                "note",
                f"{first.label} is most sensitive to rounding",
                f"Rounded alone to {bits} bits it costs {cost:.2g} nats, the next, {second.label}, {other:.2g}.",
                f"Below {bits + 1} bits give {first.label} more bits than the other layers.",
                "robustness",
                unless=(above(accuracy_change(bits), -ACCURACY_COST),) if bits in BITS else (),
            )
    return None


def _surely_more(first: LayerCost, second: LayerCost) -> bool:
    lead = Value.mean(first.measured - second.measured)
    return lead.interval is not None and lead.interval[0] > 0


def layer_figure(layers: LayersRounded) -> Figure:
    """Draw what rounding each layer alone costs, measured and predicted."""
    series = []
    for bits, costs in layers.costs.items():
        labels = [c.label for c in costs]
        measured = [Value.mean(c.measured, lower=0.0).value for c in costs]
        series.append(Series(f"measured, {bits} bits", labels, measured, "bar"))
        series.append(Series(f"½ δᵀFδ, {bits} bits", labels, [float(c.predicted.mean()) for c in costs], "points"))
    return Figure(
        "rounding-by-layer",
        "Cost of rounding one layer",
        "KL from the network to a copy in which that layer alone is rounded, and its second-order prediction.",
        "layer",
        "KL (nats)",
        tuple(series),
        "linear",
        "log",
    )
