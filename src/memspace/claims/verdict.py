"""From effects to words: supported, contradicted or undecided, by family and as a whole, corrected for multiplicity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memspace.claims.decision import CONTRADICTED, SUPPORTED, UNDECIDED, Decision
from memspace.claims.effects import Effect
from memspace.claims.evidence import Evidence
from memspace.claims.sampling import Floats
from memspace.judging.multiplicity import Adjusted, adjusted
from memspace.value import Absent, Value

__all__ = ["ClaimVerdict", "FamilyVerdict", "MeasureVerdict", "verdict_of"]


@dataclass(frozen=True)
class FamilyVerdict:
    """The verdict on one effect.

    Args:
        family: its name; empty for the effect over all families.
        word: supported, contradicted or undecided.
        effect: with its 95% interval; None where it could not be measured.
        reason: why it could not, or empty.
        supporting: corrected p-value of "the effect does not exceed the threshold".
        contradicting: corrected p-value of "the effect is not on the contradicting side".
    """

    family: str
    word: str
    effect: Value | None
    reason: str
    supporting: float
    contradicting: float


@dataclass(frozen=True)
class MeasureVerdict:
    """The verdict on one measure.

    Args:
        measure: its name; empty where the statistic judges no single measure.
        word: supported, contradicted or undecided.
        overall: on the effect over all families.
        families: on that of each.
    """

    measure: str
    word: str
    overall: FamilyVerdict
    families: tuple[FamilyVerdict, ...]


@dataclass(frozen=True)
class ClaimVerdict:
    """The verdict on a claim.

    Args:
        word: supported, contradicted or undecided.
        measures: on each measure.
    """

    word: str
    measures: tuple[MeasureVerdict, ...]


def verdict_of(evidence: Evidence, decision: Decision) -> ClaimVerdict:
    """Judge the effects of a claim by its registered rule.

    An effect is supported where its one-sided p-value against the threshold is at most α/2, which without correction
    is the same as its whole 1 − α interval lying beyond the threshold. p-values are corrected first over measures
    (Benjamini & Hochberg 1995), in each family; then over families (Holm 1979), for each measure.

    Args:
        evidence: of the claim's statistic.
        decision: the registered rule.

    Returns:
        The verdict, with every part of it.
    """
    names = list(evidence.measures)
    families = list(dict.fromkeys(f for e in evidence.measures.values() for f in e.families))
    single = {(m, f): evidence.measures[m].families[f] for m in names for f in families}
    whole = {(m, ""): evidence.measures[m].overall for m in names}
    judged = _judged(single, names, families, decision) | _judged(whole, names, [""], decision)
    measures = []
    for m in names:
        of = tuple(judged[m, f] for f in families)
        words = [v.word for v in of]
        word = _counted(words, decision.families) if decision.families else _unopposed(judged[m, ""].word, words)
        measures.append(MeasureVerdict(m, word, judged[m, ""], of))
    return ClaimVerdict(_counted([m.word for m in measures], decision.measures), tuple(measures))


def _counted(words: Sequence[str], needed: int) -> str:
    """Supported where enough are and none is contradicted; the reverse; else undecided."""
    for word, other in ((SUPPORTED, CONTRADICTED), (CONTRADICTED, SUPPORTED)):
        if words.count(word) >= needed and other not in words:
            return word
    return UNDECIDED


def _unopposed(word: str, families: Sequence[str]) -> str:
    """The word of the mean, unless a family is judged the other way round."""
    opposed = (word == SUPPORTED and CONTRADICTED in families) or (word == CONTRADICTED and SUPPORTED in families)
    return UNDECIDED if opposed else word


Effects = Mapping[tuple[str, str], Effect | Absent]


def _judged(
    effects: Effects, measures: list[str], families: list[str], decision: Decision
) -> dict[tuple[str, str], FamilyVerdict]:
    """A verdict on every effect of a table of measures and families."""
    support, contradict = (
        _corrected(np.array([[_p(effects[m, f], bound, up) for f in families] for m in measures]), decision.corrected)
        for bound, up in ((decision.threshold, decision.greater), (decision.contradiction, not decision.greater))
    )
    judged = {}
    for i, m in enumerate(measures):
        for j, f in enumerate(families):
            effect, p, q = effects[m, f], float(support[i, j]), float(contradict[i, j])
            word = SUPPORTED if p <= decision.alpha / 2 else CONTRADICTED if q <= decision.alpha / 2 else UNDECIDED
            if isinstance(effect, Absent):
                judged[m, f] = FamilyVerdict(f, UNDECIDED, None, effect.reason or "it was not measured", p, q)
            else:
                judged[m, f] = FamilyVerdict(f, word, effect.stated(), "", p, q)
    return judged


def _p(effect: Effect | Absent, bound: float, up: bool) -> float:
    """The p-value against "it lies above the bound", or below."""
    if isinstance(effect, Absent):
        return math.nan
    return effect.not_above(bound) if up else effect.not_below(bound)


def _corrected(p: Floats, over: tuple[str, ...]) -> Floats:
    """p-values of measures (rows) and families (columns); what was not measured does not count, and keeps 1."""
    p = p.copy()
    if "measures" in over:
        for j, column in enumerate(p.T):
            p[:, j] = [one.q for one in _adjusted(column)]
    if "families" in over:
        for i, row in enumerate(p):
            p[i] = [one.holm for one in _adjusted(row)]
    return np.where(np.isfinite(p), p, 1.0)


def _adjusted(p: Floats) -> list[Adjusted]:
    return list(adjusted({str(k): float(value) for k, value in enumerate(p)}).values())
