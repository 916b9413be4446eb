"""The page of results: a chapter a claim, with its verdict, figures, hashes and data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.claims import Finding
from memspace.auditing.page import make_page
from memspace.auditing.results import Chapter, Figure, Results, Series
from memspace.claims.decision import CONTRADICTED, SUPPORTED, UNDECIDED
from memspace.claims.paragraph import effect_in_words
from memspace.claims.record import VerdictRecord
from memspace.claims.run import ClaimResults, JudgedClaim, verdict_rows
from memspace.claims.statistic import statistic_named
from memspace.measurement import Measurement
from memspace.measures.workspace import Workspace
from memspace.report.html import Page, render
from memspace.value import Value

__all__ = ["claims_page", "page_of"]

LEVELS = {SUPPORTED: "good", CONTRADICTED: "bad", UNDECIDED: "note"}


def _lead(findings: Sequence[Finding]) -> str:
    counts = [f"{sum(f.level == level for f in findings)} {word}" for word, level in LEVELS.items()]
    return f"Of {len(findings)} claims {', '.join(counts)}."


PAGE = Page(
    "claims",
    "",
    "judged",
    (),
    words={level: word.capitalize() for word, level in LEVELS.items()},
    lead=_lead,
    downloads=True,
)


def claims_page(results: ClaimResults, command: str = "") -> str:
    """Render the page, which needs nothing but itself.

    Args:
        results: of a run.
        command: the command line that asked for it.

    Returns:
        HTML.
    """
    return render(page_of(results, command), PAGE)


def page_of(results: ClaimResults, command: str = "") -> Results:
    """Put the claims of a run on a page.

    Args:
        results: of the run.
        command: the command line that asked for it.

    Returns:
        A chapter a claim, with its tables and one of all verdicts.
    """
    call = command or "memspace.judge_claims(store=...)  # called from Python"
    page = make_page(
        "The claims, tested",
        [_chapter(claim) for claim in results.claims],
        Workspace({}),
        facts={"store": results.store, "networks": f"{max(c.record.networks for c in results.claims):,}"},
        settings={"command": call} | {c.record.id: c.record.sha256 for c in results.claims},
        plan="\n".join(f"{c.record.id}: registered {c.record.registered}" for c in results.claims),
    )
    of = {claim.record.id: claim for claim in results.claims}
    chapters = tuple(_with_numbers(chapter, of[chapter.id]) for chapter in page.chapters)
    tables = {f"{id}-{name}": columns for id, claim in of.items() for name, columns in claim.evidence.tables.items()}
    verdicts = verdict_rows([claim.record for claim in results.claims])
    return replace(page, created=results.created, chapters=chapters, tables={"verdicts": verdicts, **tables})


def _chapter(claim: JudgedClaim) -> ChapterDeclaration:
    """The claim as a chapter. Its functions need no values: a claim has all of its own."""
    record = claim.record

    def answer() -> str:
        return _answer(record)

    def finding() -> Finding:
        return Finding(LEVELS[record.word], record.title, _answer(record), "", record.id)

    def figures() -> list[Figure]:
        return [_effects(claim), *claim.evidence.figures]

    def notes() -> list[str]:
        registration = claim.registration
        return [
            record.paragraph,
            f"The claim, in our words: {' '.join(registration.claim.split())}",
            f"The rule: {registration.decision.in_words()}",
            f"Registered on {record.registered[:10]} as SHA-256 {record.sha256}; judged from a store with SHA-256 "
            f"{record.store} by memspace {record.version}.",
        ]

    question = " ".join(claim.registration.hypothesis.split())
    return ChapterDeclaration(
        record.id, record.title, question, answer, findings=(finding,), figures=(figures,), notes=(notes,)
    )


def _with_numbers(chapter: Chapter, claim: JudgedClaim) -> Chapter:
    """The chapter with every effect and reading as a measurement: what they are depends on the claim's file."""
    quantities = claim.quantities()
    measured = tuple(q for q in quantities if isinstance(q, Measurement))
    return replace(
        chapter,
        measurements=measured,
        unmeasured=tuple(q for q in quantities if not isinstance(q, Measurement)),
    )


def _answer(record: VerdictRecord) -> str:
    effects = "; ".join(
        (f"{m.measure}: " if m.measure else "") + effect_in_words(m.overall, record.unit) for m in record.measures[:3]
    )
    more = f" and {len(record.measures) - 3} more" if len(record.measures) > 3 else ""
    failing = "" if record.control.holds else " The control fails."
    return f"{record.word.capitalize()}. Effect over all families: {effects}{more}.{failing}"


def _effects(claim: JudgedClaim) -> Figure:
    """Effects by family with their intervals, and the registered bounds as lines."""
    record, decision = claim.record, claim.registration.decision
    families = ["all", *(v.family for v in record.measures[0].families)] if record.measures else ["all"]
    series = []
    for measure in record.measures:
        values = [v.effect or Value(math.nan, 0) for v in (measure.overall, *measure.families)]
        ends = [v.interval or (math.nan, math.nan) for v in values]
        words = [v.word for v in (measure.overall, *measure.families)]
        points = [v.value for v in values]
        low, high = [e[0] for e in ends], [e[1] for e in ends]
        series.append(Series(measure.measure or "effect", families, points, "points", low, high, words))
    for name, bound in _bounds(decision.threshold, decision.contradiction).items():
        series.append(Series(name, families, [bound] * len(families)))
    declared = statistic_named(record.statistic)
    return Figure("effects", "Effects by family", f"{declared.estimator}; 95%.", "family", "effect", tuple(series))


def _bounds(threshold: float, contradiction: float) -> Mapping[str, float]:
    if threshold == contradiction:
        return {"threshold": threshold}
    return {"threshold": threshold, "contradicted beyond": contradiction}
