"""Weights rounded to a few bits: divergence predicted from F and measured, accuracy, and the layer that bears least."""

from __future__ import annotations

import torch

from memspace.auditing.claims import above, below
from memspace.auditing.reading import Reading
from memspace.auditing.results import Figure, Finding, Series
from memspace.auditing.thresholds import ACCURACY_COST
from memspace.measurement import Measurement, from_change, from_ratio, from_samples
from memspace.measures.cost import Facts, Stage
from memspace.measures.robustness import quantised, split
from memspace.measures.sensitivity import LayerCost, layer_costs, measured_kl, predicted_kl
from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.progress import Progress
from memspace.task.data import Data

__all__ = ["rounding_costs", "rounding_part"]

BITS = (8, 4)
EXAMPLES = 2000  # training examples whose predictions are compared, at most
LAYER_BITS = (4, 3, 2)  # few enough that layers differ
LAYER_EXAMPLES = 500


def _flat(r: Reading, bits: int) -> torch.Tensor:
    """The network's weights after rounding, (P,)."""
    current = {k: p.detach() for k, p in r.space.parameters(r.task.model).items()}
    return r.space.pack(current | quantised(r.task, r.space, bits))


def _right(r: Reading, data: Data, flat: torch.Tensor | None) -> torch.Tensor:
    """Per example 1 where the prediction is right, for sequences the share of right positions, (n,)."""
    law = r.task.likelihood
    f, y = outputs(r.task, data, state=None if flat is None else r.space.unpack(flat))
    right = law.hits(f, y).double()
    weight = law.weight(f, y).double()
    right = right.mean(-1) if right.dim() > weight.dim() else right * weight
    return right.reshape(len(f), -1).sum(1) / weight.reshape(len(f), -1).sum(1).clamp_min(1)


def rounding_part(
    r: Reading, index: torch.Tensor, progress: Progress
) -> tuple[list[Measurement], list[Finding], list[Figure]]:
    """Measurements at 8 and 4 bits, findings, and the figure of the layers."""
    task, space = r.task, r.space
    theta = space.flat(task.model)
    operator = FisherOperator(task, space, index=index)
    before, y = outputs(task, task.train, index=index)
    data, word = split(task.test, task.train)
    base = _right(r, data, None) if task.likelihood.classifies else None
    measured: list[Measurement] = []
    changes: dict[int, Measurement] = {}
    for bits in BITS:
        flat, name = _flat(r, bits), f"robustness.quantised_{bits}bit"
        predicted = predicted_kl(operator, task, flat - theta)
        kl = measured_kl(task, space, flat, before, y, index)
        how = f"weights rounded to {bits} bits, one scale per row"
        measured += [
            from_samples(f"{name}.kl_predicted", predicted, "nats", f"½ δᵀFδ of the change δ; {how}", lower=0.0),
            from_samples(f"{name}.kl", kl, "nats", how, lower=0.0),
            from_ratio(f"{name}.kl_ratio", kl, predicted, "1", f"measured over predicted KL; {how}"),
        ]
        if base is not None:
            how = f"{word} accuracy of the rounded network less the original's, paired"
            changes[bits] = from_change(f"{name}.accuracy_change", base, _right(r, data, flat), how)
            measured.append(changes[bits])
    findings = [_stored(changes, float(base.mean()), word)] if base is not None else []
    figures = []
    if len(space.blocks) > 1:
        part = index[:: -(-len(index) // LAYER_EXAMPLES)]
        costs = {bits: layer_costs(task, space, _flat(r, bits), part, progress) for bits in LAYER_BITS}
        if any(costs.values()):
            figures.append(_figure(costs))
            found = _weakest(costs)
            findings += [found] if found is not None else []
    return measured, findings, figures


def _change(bits: int) -> str:
    return f"robustness.quantised_{bits}bit.accuracy_change"


def _stored(changes: dict[int, Measurement], base: float, word: str) -> Finding:
    """In how few bits the weights can be stored; where the examples are too few to tell, that."""
    told = "; ".join(
        f"{m.value:+.2%} ({m.interval[0]:+.2%} to {m.interval[1]:+.2%}) at {b} bits"
        for b, m in changes.items()
        if m.interval is not None
    )
    evidence, n = f"{word} accuracy {base:.1%}; change {told}.", next(iter(changes.values())).n
    said = Finding(
        "note",
        f"{n:,} examples cannot tell whether rounding to {max(changes)} bits costs {ACCURACY_COST:.0%} accuracy",
        evidence,
        "Measure the rounded network on more examples before relying on it.",
        "robustness",
    )
    said = Finding(
        "warn",
        f"Rounding to {max(changes)} bits costs more than {ACCURACY_COST:.0%} accuracy",
        evidence,
        "Keep full precision, or fine-tune after rounding.",
        "robustness",
        claims=(below(_change(max(changes)), -ACCURACY_COST),),
        otherwise=said,
    )
    for bits in sorted(changes, reverse=True):
        said = Finding(
            "good",
            f"Weights can be stored in {bits} bits",
            evidence,
            f"Quantise to {bits} bits.",
            "robustness",
            claims=(above(_change(bits), -ACCURACY_COST),),
            otherwise=said,
        )
    return said


def _weakest(costs: dict[int, tuple[LayerCost, ...]]) -> Finding | None:
    """The layer that costs most when rounded alone, at the finest rounding at which one surely costs most."""
    for bits, layers in costs.items():
        if len(layers) < 2:
            continue
        first, second = sorted(layers, key=lambda c: -float(c.measured.mean()))[:2]
        lead = from_samples("lead", first.measured - second.measured, "nats", "paired")
        cost, other = float(first.measured.mean()), float(second.measured.mean())
        if cost > 2 * other and cost > 0.01 and lead.interval is not None and lead.interval[0] > 0:
            return Finding(
                "note",
                f"{first.label} bears rounding least",
                f"Rounded alone to {bits} bits it costs {cost:.2g} nats, the next, {second.label}, {other:.2g}.",
                f"Below {bits + 1} bits give {first.label} more bits than the other layers.",
                "robustness",
                unless=(above(_change(bits), -ACCURACY_COST),) if bits in BITS else (),
            )
    return None


def _figure(costs: dict[int, tuple[LayerCost, ...]]) -> Figure:
    series = []
    for bits, layers in costs.items():
        labels = [c.label for c in layers]
        ends = [from_samples("kl", c.measured, "nats", "mean", lower=0.0) for c in layers]
        series.append(Series(f"measured, {bits} bits", labels, [m.value for m in ends], "bar"))
        series.append(Series(f"½ δᵀFδ, {bits} bits", labels, [float(c.predicted.mean()) for c in layers], "points"))
    return Figure(
        "rounding-by-layer",
        "What rounding one layer costs",
        "KL from the network to a copy in which that layer alone is rounded, and its second-order prediction.",
        "layer",
        "KL (nats)",
        tuple(series),
        "linear",
        "log",
    )


def rounding_costs(facts: Facts) -> list[Stage]:
    """Rounding of all layers at once, and of each alone."""
    stages = [Stage("rounding", min(facts.n, EXAMPLES), 1 + 2 * len(BITS), 0, 0, "weights rounded to 8 and 4 bits")]
    if facts.classifies:
        stages.append(Stage("rounded accuracy", facts.judged, 1 + len(BITS), 0, 0, "accuracy after rounding"))
    if facts.blocks > 1:
        part = len(range(0, min(facts.n, EXAMPLES), -(-min(facts.n, EXAMPLES) // LAYER_EXAMPLES)))
        each = len(LAYER_BITS) * (1 + 2 * facts.blocks)
        stages.append(Stage("rounding by layer", part, each, 0, 0, "each layer rounded alone"))
    return stages
