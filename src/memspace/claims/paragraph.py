"""The paragraph on a verdict: what was asked, what was found, how sure that is, and what could still be wrong."""

from __future__ import annotations

from memspace.claims.control import PermutedControl
from memspace.claims.decision import CONTRADICTED, SUPPORTED
from memspace.claims.evidence import Evidence
from memspace.claims.registration import Registration
from memspace.claims.statistic import StatisticDeclaration
from memspace.claims.verdict import ClaimVerdict, FamilyVerdict, MeasureVerdict
from memspace.format import format_interval, format_value, plain

__all__ = ["effect_in_words", "paragraph_on"]

IN_FULL = 3  # measures whose effects are written out family by family


def paragraph_on(
    registration: Registration,
    declared: StatisticDeclaration,
    evidence: Evidence,
    verdict: ClaimVerdict,
    control: PermutedControl,
) -> str:
    """Write the paragraph from the numbers, saying no more than their intervals support.

    Args:
        registration: of the claim.
        declared: its statistic.
        evidence: what the statistic found.
        verdict: on it.
        control: of it.

    Returns:
        Plain sentences.
    """
    parts = [
        f"Asked: {_sentence(registration.hypothesis)}",
        _measured(declared, evidence),
        *_effects(verdict.measures, evidence.unit or declared.unit),
        _concluded(registration, verdict),
        _smaller(registration, verdict),
        control.in_words(),
    ]
    doubts = [*evidence.notes, *declared.limits, *registration.caveats]
    if doubts:
        parts.append("What could still be wrong: " + " ".join(_sentence(d) for d in doubts))
    return " ".join(part for part in parts if part)


def effect_in_words(verdict: FamilyVerdict, unit: str = "1") -> str:
    """Write an effect with its interval.

    Args:
        verdict: on the effect.
        unit: of the effect.

    Returns:
        For example ``0.34 (0.12 to 0.55, n = 54)``; why there is none, where it was not measured.
    """
    effect = verdict.effect
    if effect is None:
        return f"not measured, since {verdict.reason}"
    written = format_value(effect) + ("" if unit == "1" else f" {unit}")
    if effect.interval is None:
        return f"{written} (no interval, n = {effect.n})"
    return f"{written} ({format_interval(effect)}, n = {effect.n})"


def _sentence(text: str) -> str:
    joined = " ".join(text.split()).rstrip(".")
    return f"{joined[:1].upper()}{joined[1:]}."


def _measured(declared: StatisticDeclaration, evidence: Evidence) -> str:
    left = f"; {evidence.left_out:,} rows without a value are left out" if evidence.left_out else ""
    return f"Measured on {evidence.networks:,} networks{left}: {declared.estimator}."


def _effects(measures: tuple[MeasureVerdict, ...], unit: str) -> list[str]:
    """A sentence or two a measure; of many, those over all families alone, since the rest is in the table."""
    if len(measures) <= IN_FULL:
        return [_effect(m, unit) for m in measures]
    listed = "; ".join(f"{m.measure} {effect_in_words(m.overall, unit)}" for m in measures)
    return [f"Effects over all families: {listed}. Those of each family are in the table."]


def _effect(measure: MeasureVerdict, unit: str) -> str:
    """The effect over all families and in each, with 95% intervals."""
    name = f"of {measure.measure} " if measure.measure else ""
    families = "; ".join(f"{v.family} {effect_in_words(v, unit)}, {v.word}" for v in measure.families)
    return f"The effect {name}over all families is {effect_in_words(measure.overall, unit)}. By family: {families}."


def _concluded(registration: Registration, verdict: ClaimVerdict) -> str:
    """The verdict with the rule that gives it."""
    decision = registration.decision
    text = f"Hence the claim is {verdict.word}"
    beyond, short = ("above", "below") if decision.greater else ("below", "above")
    bounds = {
        SUPPORTED: f"what was registered is an effect {beyond} {plain(decision.threshold)}",
        CONTRADICTED: f"an effect {short} {plain(decision.contradiction)} was registered to refute it",
    }
    if verdict.word in bounds:
        words = [v.word for m in verdict.measures for v in m.families]
        where = f", in {words.count(verdict.word)} of {len(words)} families" if decision.families else ""
        if decision.families and len(verdict.measures) > 1:
            where = f", in {words.count(verdict.word)} of {len(words)} measures and families"
        return f"{text}: {bounds[verdict.word]}{where}."
    return (
        f"{text}: the intervals neither lie {beyond} {plain(decision.threshold)} nor {short} "
        f"{plain(decision.contradiction)} as often as was registered, which speaks neither for it nor against it."
    )


def _smaller(registration: Registration, verdict: ClaimVerdict) -> str:
    """What the power calculation asked for and was not reached: in a family, or in all where one estimate is of all."""
    planned, sample = registration.sample.units, registration.sample
    if getattr(registration.statistic.arguments, "pooled", False):
        counts = [0 if m.overall.effect is None else m.overall.effect.n for m in verdict.measures]
        few, units, where = [str(n) for n in counts if n < planned][:1], "units", ""
    else:
        families = [v for m in verdict.measures for v in m.families if v.effect is None or v.effect.n < planned]
        by_family = {v.family: 0 if v.effect is None else v.effect.n for v in families}
        few, units, where = [f"{family} {n}" for family, n in by_family.items()], "units a family", " there"
    if not few:
        return ""
    return (
        f"The {planned} {units} that have a power of {sample.power:.2f} at an effect of {plain(sample.effect)} "
        f"were not reached ({', '.join(few)}), so an effect of that size may go undecided{where}."
    )
