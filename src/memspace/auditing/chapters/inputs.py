"""Chapter 3b, continued: how far the inputs may move, predicted by the pulled-back metric, attacked and corrupted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from memspace.auditing.claims import above, below
from memspace.auditing.pictures import item
from memspace.auditing.reading import Reading
from memspace.auditing.results import Figure, Finding, Gallery, Series
from memspace.auditing.thresholds import RANKS_WELL
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.attack import DOUBLINGS, AttackSearch
from memspace.measures.corruptions import fitting
from memspace.measures.cost import Facts, Stage
from memspace.measures.input_study import AttackSettings, InputStudy, study_inputs
from memspace.progress import Progress

__all__ = ["InputPart", "input_costs", "input_part"]

EXAMPLES, DRAWS = 200, 2
ATTACKED, SHORTENED = 66, 12  # forwards an input of the quick attack, as measured; those without a gradient
RANK = "input.distance_l2.rank_linear"
QUICK = AttackSearch(steps=8, restarts=1, bisections=5)  # about 65 passes an input; 390 find distances 1 to 2% smaller


@dataclass(frozen=True)
class InputPart:
    """What the chapter on robustness says about inputs; ``said`` is one sentence, or empty."""

    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    findings: tuple[Finding, ...] = ()
    figures: tuple[Figure, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    said: str = ""


def input_part(r: Reading, seed: int, progress: Progress) -> InputPart:
    """The metric at some inputs, a quick attack, and corruptions."""
    s = study_inputs(r.task, AttackSettings(EXAMPLES, QUICK, both_norms=False, draws=DRAWS, seed=seed + 9), progress)
    if s.found is None or s.reading is None:
        return InputPart(s.measurements, s.unmeasured)
    value = {m.name: m.value for m in s.measurements}
    found = s.found.distance
    rank = value[RANK]
    said = (
        f" A step of {value['input.distance_l2']:.2g} (median length) in the worst direction changes a prediction; "
        f"the linearised distance ranks inputs by it with ρ = {rank:.2f}."
    )
    reach = torch.isfinite(found)
    near = torch.where(reach, found, math.inf).argsort()[:8]
    median = float(found[reach].median()) if bool(reach.any()) else 0.0
    small = float(found[near[0]]) / median if median > 0 else math.nan
    evidence = (
        f"Spearman ρ = {rank:.2f} between the linearised and the measured distance on {len(found)} {s.data} inputs; "
        f"the nearest lies at {small:.2g} of the median."
    )
    finding = Finding(
        "note",
        "The linearised distance tells which inputs are easy to flip",
        evidence,
        "Rank inputs by margin over gradient norm, min gap/‖∇gap‖, instead of attacking each of them.",
        "robustness",
        claims=(above(RANK, RANKS_WELL),),
        otherwise=Finding(
            "warn",
            "The linearised distance does not tell which inputs are easy to flip",
            evidence,
            "Attack the inputs that matter (memspace attack).",
            "robustness",
            claims=(below(RANK, RANKS_WELL),),
        ),
    )
    left_out = tuple(f"input.{c.corruption.name}.rank_{k}" for c in s.corruptions for k in ("fisher", "attack"))
    kept = tuple(m for m in s.measurements if m.name not in left_out)  # in full: memspace attack
    return InputPart(kept, s.unmeasured, (finding,), (_scatter(s), _survival(s)), (_weakest(r, s, near),), said)


def _scatter(s: InputStudy) -> Figure:
    assert s.found is not None
    assert s.reading is not None
    reach = torch.isfinite(s.found.distance) & (s.reading.linear > 0)
    measured = s.found.distance[reach].tolist()
    text = [f"{s.data} example {i}" for i in s.index[reach.cpu()].tolist()]
    ends = [min(measured, default=1.0), max(measured, default=1.0)]
    return Figure(
        "input-distance",
        "Distance to another decision: predicted and measured",
        "Each point an input: the linearised distance and the Fisher reading against the smallest perturbation found.",
        "measured (Euclidean, input units)",
        "predicted",
        (
            Series("min gap/‖∇gap‖", measured, s.reading.linear[reach].tolist(), "points", text=text),
            Series("d_FR/√λ_max(G)", measured, s.reading.fisher[reach].tolist(), "points", text=text),
            Series("equal", ends, ends),
        ),
        "log",
        "log",
    )


def _survival(s: InputStudy) -> Figure:
    """Decisions kept, all corruptions on one axis: severity as a share of the greatest tried."""
    return Figure(
        "corruptions",
        "Decisions kept under corruption",
        "Share of inputs whose prediction stays; severity 1 is "
        + ", ".join(f"{c.corruption.severities[-1]:g} {c.corruption.unit} ({c.corruption.name})" for c in s.corruptions)
        + ".",
        "severity, share of the greatest",
        "share of predictions kept",
        tuple(
            Series(
                c.corruption.name,
                [0.0, *(v / c.corruption.severities[-1] for v in c.corruption.severities)],
                [1.0, *c.kept.tolist()],
            )
            for c in s.corruptions
        ),
    )


def _weakest(r: Reading, s: InputStudy, near: torch.Tensor) -> Gallery:
    assert s.found is not None
    data = r.task.test if r.task.test is not None else r.task.train
    items = tuple(
        item(r.task, data, int(s.index[k]), f"a step of {float(s.found.distance[k]):.2g} changes it")
        for k in near.cpu().tolist()
    )
    return Gallery(
        "easily-flipped", "The inputs easiest to flip", f"The shortest distances among {len(s.index)} inputs.", items
    )


def input_costs(facts: Facts) -> list[Stage]:
    """The metric at inputs, a quick attack and corruptions."""
    if not facts.inputs:
        return []
    m = min(facts.judged, EXAMPLES)
    stages = [Stage("input metric", m, 2, facts.outputs, 0, "how inputs move predictions")]
    if facts.classifies:
        runs = sum(len(c.severities) * (DRAWS if c.random else 1) for c in fitting(facts.picture))
        searches = (DOUBLINGS + QUICK.bisections) * (1 + QUICK.restarts) * (1 + QUICK.steps)
        most = float(SHORTENED + searches), float(searches)
        why = "distance to other decisions"
        stages.append(Stage("attack", m, ATTACKED, ATTACKED - SHORTENED, 0, why, most=most))
        stages.append(Stage("corruptions", m, runs, 0, 0, "decisions kept"))
    return stages
