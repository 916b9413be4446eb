"""Chapter 7: disentanglement of a layer, where the generating factors are known."""

from __future__ import annotations

import math

from memspace.auditing.claims import above
from memspace.auditing.reading import Reading
from memspace.auditing.results import Chapter, Figure, Finding, Series
from memspace.measurement import Unmeasured
from memspace.measures.cost import Facts, Stage
from memspace.measures.disentanglement import DIRECTIONS, FOLDS, ROTATIONS, SAMPLES, disentangle
from memspace.progress import Progress

__all__ = ["disentanglement", "factor_costs"]

SCORED = 0.1  # seconds that the scores of one factor take a core


def disentanglement(r: Reading, seed: int, progress: Progress) -> Chapter:
    """The chapter; absent, with the reason, where no factors are given."""
    question = "Does the network keep independent facts apart?"
    if r.task.factors is None:
        why = Unmeasured(
            "disentanglement",
            "the generating factors of the inputs are not known",
            "hand over Task(factors=Factors(...))",
        )
        return Chapter("disentanglement", "Disentanglement", question, "Not measured: " + why.reason + ".", (), (why,))
    d = disentangle(r.task, seed=seed, progress=progress)
    value = {m.name: m.value for m in d.measurements}
    shown = ("disentanglement", "Disentanglement", question)
    if "disentanglement.mig" not in value:
        answer = "Not measured: " + d.unmeasured[0].reason + "."
        return Chapter(*shown, answer, d.measurements, d.unmeasured)
    mig, null = value["disentanglement.mig"], value["disentanglement.mig.null"]
    rotated = next(m.interval for m in d.measurements if m.name == "disentanglement.mig.null")
    evidence = (
        f"MIG {mig:.2f} against {null:.2f} after random rotations; DCI {value['disentanglement.dci']:.2f} "
        f"against {value['disentanglement.dci.null']:.2f}."
    )
    finding = Finding(
        "good",
        "Factors lie along single units",
        evidence,
        "Units can be read one by one.",
        "disentanglement",
        # Beyond what one more rotation would give, and by as much again: a trace of alignment is none to read units by.
        claims=(above("disentanglement.mig", max(rotated[1] if rotated else math.inf, 2 * null)),),
        otherwise=Finding(
            "note",
            "Factors are not seen in single units",
            evidence,
            "Read this layer by directions, not by units.",
            "disentanglement",
        ),
    )
    names = ["MIG", "DCI", "SAP"]
    keys = ["mig", "dci", "sap"]
    nulls = [value[f"disentanglement.{k}.null"] for k in keys]
    figure = Figure(
        "disentanglement",
        "Disentanglement against random rotations",
        "A score that a random rotation of the layer also reaches says nothing about its units.",
        "score",
        "value",
        (
            Series("this layer", names, [value[f"disentanglement.{k}"] for k in keys], "bar"),
            Series("random rotations (mean)", names, nulls, "bar"),
        ),
    )
    answer = f"Scores of {d.layer} ({d.codes}): MIG {mig:.2f} (rotated {null:.2f})."
    return Chapter(*shown, answer, d.measurements, d.unmeasured, (finding,), (figure,))


def factor_costs(facts: Facts) -> list[Stage]:
    """A layer read once, and inputs rendered with each ordered factor moved, by two steps, both ways."""
    if not facts.described:
        return []
    scored = (1 + FOLDS + ROTATIONS) * facts.factors * SCORED
    why = "factors held apart by a layer"
    stages = [Stage("disentanglement", min(SAMPLES, facts.described), 1, 0, 0, why, seconds=scored)]
    if facts.rendered > 1:
        moved = min(DIRECTIONS, facts.described)
        stages.append(Stage("factors moved", moved, 1 + 4 * facts.rendered, 0, 0, "directions of factors"))
    return stages
