"""Disentanglement of a layer, where the generating factors are known."""

from __future__ import annotations

import math

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.claims import above
from memspace.auditing.results import Figure, Finding, Series
from memspace.auditing.thresholds import ALIGNED
from memspace.measures.disentanglement import FACTOR_MEASURES, LayerCodes
from memspace.measures.factor_pairs import FACTOR_PAIR_MEASURES
from memspace.measures.scores.repeated import RepeatedScores
from memspace.measures.workspace import Measured

__all__ = ["DISENTANGLEMENT"]

MIG, NULL = "disentanglement.mig", "disentanglement.mig.null"
NAMED = ("mig", "dci", "sap")
LABELS = {
    "mig": "MIG",
    "dci": "DCI",
    "sap": "SAP",
    "snc": "SNC",
    "irs": "IRS",
    "modularity": "modularity",
    "explicitness": "explicitness",
    "factor_vae": "FactorVAE",
    "beta_vae": "BetaVAE",
}


def answer(scores: RepeatedScores, codes: LayerCodes) -> str:
    """Say how far factors lie along single units, against a random rotation."""
    rotated = float(scores.rotated["mig"].mean())
    return f"Scores of {codes.layer} ({codes.words}): MIG {scores.value['mig']:.2f} (rotated {rotated:.2f})."


def single_units(scores: RepeatedScores, measured: Measured) -> Finding | None:
    """Say whether units can be read one by one."""
    if MIG not in measured or NULL not in measured:
        return None
    value, rotated = scores.value, {key: float(scores.rotated[key].mean()) for key in NAMED}
    ends = measured[NULL].interval
    evidence = (
        f"MIG {value['mig']:.2f} against {rotated['mig']:.2f} after random rotations; DCI {value['dci']:.2f} "
        f"against {rotated['dci']:.2f}."
    )
    return Finding(
        "good",
        "Factors lie along single units",
        evidence,
        "Units can be read one by one.",
        "disentanglement",
        # Beyond what one more rotation would give, and by as much again: a trace of alignment is none to read units by.
        claims=(above(MIG, max(ends[1] if ends else math.inf, ALIGNED * rotated["mig"])),),
        otherwise=Finding(
            "note",
            "Factors are not seen in single units",
            evidence,
            "Read this layer by directions, not by units.",
            "disentanglement",
        ),
    )


def score_figure(scores: RepeatedScores) -> Figure:
    """Draw each score next to those of random rotations and of shuffled factors."""
    drawn = [key for key in LABELS if math.isfinite(scores.value[key])]
    names = [LABELS[key] for key in drawn]
    rotated, by_chance = ([float(of[key].mean()) for key in drawn] for of in (scores.rotated, scores.by_chance))
    return Figure(
        "disentanglement",
        "Disentanglement against random rotations and chance",
        "A score that a random rotation of the layer also reaches carries no information about its units. "
        "Shuffled factors show what a score gives by chance, which is not 0 for all of them.",
        "score",
        "value",
        (
            Series("this layer", names, [scores.value[key] for key in drawn], "bar"),
            Series("random rotations (mean)", names, rotated, "bar"),
            Series("factors shuffled (mean)", names, by_chance, "bar"),
        ),
    )


DISENTANGLEMENT = ChapterDeclaration(
    id="disentanglement",
    title="Disentanglement",
    question="Does the network separate independent factors?",
    answer=answer,
    measures=FACTOR_MEASURES + FACTOR_PAIR_MEASURES,
    findings=(single_units,),
    figures=(score_figure,),
)
