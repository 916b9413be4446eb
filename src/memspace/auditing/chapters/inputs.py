"""Robustness, continued: how far the inputs may move. The lists are part of the chapter ``robustness``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from memspace.auditing.claims import above, below
from memspace.auditing.pictures import item
from memspace.auditing.results import Figure, Finding, Gallery, Series
from memspace.auditing.thresholds import RANKS_WELL
from memspace.measures.attack import DOUBLINGS, AttackSearch, Found
from memspace.measures.corruptions import fitting
from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import MeasureDeclaration, declaration_of, provides
from memspace.measures.input_measures import INPUT_MEASURES
from memspace.measures.input_study import AttackSettings, InputStudy, probed_inputs
from memspace.measures.values import Budget
from memspace.measures.workspace import Measured
from memspace.task.task import Task

__all__ = ["SHOWN_INPUT_MEASURES", "easily_flipped", "input_figures", "linearised_rank", "probed", "sentence_on_inputs"]

EXAMPLES, DRAWS = 200, 2
ATTACKED, SHORTENED = 66, 12  # forwards an input of the quick attack, as measured; those without a gradient
RANK = "input.distance_l2.rank_linear"
QUICK = AttackSearch(steps=8, restarts=1, bisections=5)  # about 65 passes; 390 find distances 1 to 2% smaller
NEAREST = 8  # inputs shown

# The others are declared for the chapter of memspace attack: the largest-entry norm, corruptions by other readings.
SHOWN_INPUT_MEASURES = tuple(
    d.function
    for d in map(declaration_of, INPUT_MEASURES)
    if isinstance(d, MeasureDeclaration) and d.chapter == "robustness"
)


def _cost(facts: Facts) -> list[Stage]:
    if not facts.inputs:
        return []
    m = min(facts.judged, EXAMPLES)
    stages = [Stage("input metric", m, 2, facts.outputs, 0, "how inputs move predictions")]
    if facts.boundary:
        runs = sum(len(c.severities) * (DRAWS if c.random else 1) for c in fitting(facts.picture))
        searches = (DOUBLINGS + QUICK.bisections) * (1 + QUICK.restarts) * (1 + QUICK.steps)
        most = float(SHORTENED + searches), float(searches)
        why = "distance to other decisions"
        stages.append(Stage("attack", m, ATTACKED, ATTACKED - SHORTENED, 0, why, most=most))
        stages.append(Stage("corruptions", m, runs, 0, 0, "decisions kept"))
    return stages


@provides(cost=_cost)
def probed(task: Task, budget: Budget) -> InputStudy:
    """Read the metric at some inputs, and attack and corrupt them quickly."""
    settings = AttackSettings(EXAMPLES, QUICK, both_norms=False, draws=DRAWS, seed=budget.seed + 9)
    return probed_inputs(task, settings, budget.progress)


def sentence_on_inputs(measured: Measured) -> str:
    """Say how far inputs are from another decision.

    Args:
        measured: of the chapter.

    Returns:
        a sentence that begins with a space; empty where that was not measured.
    """
    if RANK not in measured or "input.distance_l2" not in measured:
        return ""
    return (
        f" A step of {measured['input.distance_l2'].value:.2g} (median length) in the worst direction changes a "
        f"prediction; the linearised distance ranks inputs by it with ρ = {measured[RANK].value:.2f}."
    )


def linearised_rank(study: InputStudy, measured: Measured) -> Finding | None:
    """Say whether the linearised distance shows which inputs are easy to flip."""
    if study.found is None or RANK not in measured:
        return None
    distance = study.found.distance
    near, reach = _nearest(study.found), torch.isfinite(distance)
    median = float(distance[reach].median()) if bool(reach.any()) else 0.0
    nearest = float(distance[near[0]]) / median if median > 0 else math.nan
    evidence = (
        f"Spearman ρ = {measured[RANK].value:.2f} between the linearised and the measured distance on "
        f"{len(distance)} {study.data} inputs; the nearest lies at {nearest:.2g} of the median."
    )
    poor = Finding(
        "warn",
        "The linearised distance does not show which inputs are easy to flip",
        evidence,
        "Attack the inputs that matter (memspace attack).",
        "robustness",
        claims=(below(RANK, RANKS_WELL),),
    )
    return Finding(
        "note",
        "The linearised distance shows which inputs are easy to flip",
        evidence,
        "Rank inputs by margin over gradient norm, min gap/‖∇gap‖, instead of attacking each of them.",
        "robustness",
        claims=(above(RANK, RANKS_WELL),),
        otherwise=poor,
    )


def _nearest(found: Found) -> Tensor:
    """The inputs with the smallest perturbations, those without any last."""
    return torch.where(torch.isfinite(found.distance), found.distance, math.inf).argsort()[:NEAREST]


def input_figures(study: InputStudy) -> tuple[Figure, ...]:
    """Draw predicted against measured distances, and decisions kept under corruptions."""
    if study.found is None or study.reading is None:
        return ()
    reach = torch.isfinite(study.found.distance) & (study.reading.linear > 0)
    measured = study.found.distance[reach].tolist()
    text = [f"{study.data} example {i}" for i in study.index[reach.cpu()].tolist()]
    ends = [min(measured, default=1.0), max(measured, default=1.0)]
    distances = Figure(
        "input-distance",
        "Distance to another decision: predicted and measured",
        "Each point is an input: the linearised distance and the Fisher distance against the smallest perturbation found.",
        "measured (Euclidean, input units)",
        "predicted",
        (
            Series("min gap/‖∇gap‖", measured, study.reading.linear[reach].tolist(), "points", text=text),
            Series("d_FR/√λ_max(G)", measured, study.reading.fisher[reach].tolist(), "points", text=text),
            Series("equal", ends, ends),
        ),
        "log",
        "log",
    )
    return distances, _survival(study)


def _survival(study: InputStudy) -> Figure:
    """Decisions kept, all corruptions on one axis: severity as a share of the greatest tried."""
    greatest = (f"{c.corruption.severities[-1]:g} {c.corruption.unit} ({c.corruption.name})" for c in study.corruptions)
    return Figure(
        "corruptions",
        "Decisions kept under corruption",
        f"Share of inputs whose prediction stays; severity 1 is {', '.join(greatest)}.",
        "severity, share of the greatest",
        "share of predictions kept",
        tuple(
            Series(
                c.corruption.name,
                [0.0, *(v / c.corruption.severities[-1] for v in c.corruption.severities)],
                [1.0, *c.kept.tolist()],
            )
            for c in study.corruptions
        ),
    )


def easily_flipped(task: Task, study: InputStudy) -> Gallery | None:
    """Show the inputs with the smallest perturbations."""
    if study.found is None:
        return None
    data = task.test if task.test is not None else task.train
    items = tuple(
        item(task, data, int(study.index[k]), f"a step of {float(study.found.distance[k]):.2g} changes it")
        for k in _nearest(study.found).cpu().tolist()
    )
    caption = f"The shortest distances among {len(study.index)} inputs."
    return Gallery("easily-flipped", "The inputs easiest to flip", caption, items)
