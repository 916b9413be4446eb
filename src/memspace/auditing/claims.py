"""The one rule by which a finding is shown.

A finding names the claims it rests on: "the whole interval of this measurement lies above that bound". It is shown
where every claim holds: the measurement was made, is reliable, and its interval, not its point, supports it. It is
not shown where another measurement of the same audit refutes it. Then its ``otherwise`` takes its place, or nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from memspace.measurement import Measurement

__all__ = ["Claim", "Finding", "above", "below", "reliable", "reviewed", "unreliable"]

ABOVE, BELOW, RELIABLE, UNRELIABLE = "above", "below", "reliable", "unreliable"


@dataclass(frozen=True)
class Claim:
    """The condition on a measurement that a finding rests on.

    Args:
        measure: its name.
        relation: ``above`` or ``below``: the whole 95% interval (of an exact value, the value) lies there;
            ``reliable``: it was measured reliably; ``unreliable``: it is marked as not reliable.
        bound: of ``above`` and ``below``, in the measurement's unit.
    """

    measure: str
    relation: str
    bound: float = 0.0

    def holds(self, measured: Mapping[str, Measurement]) -> bool:
        """Return whether the quantity was measured and supports the claim.

        Args:
            measured: every measurement of the audit by name.

        Returns:
            False where it was not measured, or is not reliable where the claim needs it.
        """
        m = measured.get(self.measure)
        if m is None:
            return False
        if self.relation == UNRELIABLE:
            return not m.reliable or not math.isfinite(m.value)
        if not m.reliable or not math.isfinite(m.value):
            return False
        if self.relation == RELIABLE:
            return True
        low, high = m.interval if m.interval is not None else (m.value, m.value)
        return low > self.bound if self.relation == ABOVE else high < self.bound


def above(measure: str, bound: float) -> Claim:
    """Make the claim that the whole interval of a measurement lies above a bound.

    Args:
        measure: name of the measurement.
        bound: in its unit.

    Returns:
        the claim.
    """
    return Claim(measure, ABOVE, bound)


def below(measure: str, bound: float) -> Claim:
    """Make the claim that the whole interval of a measurement lies below a bound.

    Args:
        measure: name of the measurement.
        bound: in its unit.

    Returns:
        the claim.
    """
    return Claim(measure, BELOW, bound)


def reliable(measure: str) -> Claim:
    """Make the claim that a quantity was measured reliably.

    Args:
        measure: name of the measurement.

    Returns:
        the claim.
    """
    return Claim(measure, RELIABLE)


def unreliable(measure: str) -> Claim:
    """Make the claim that a measurement is marked as not reliable.

    Args:
        measure: name of the measurement.

    Returns:
        the claim.
    """
    return Claim(measure, UNRELIABLE)


@dataclass(frozen=True)
class Finding:
    """A sentence a person can act on.

    Args:
        level: ``bad``, ``warn``, ``good`` or ``note``; all but a note must rest on claims.
        title: the conclusion.
        evidence: the numbers behind it.
        action: the advice.
        chapter: id of the chapter with the evidence.
        claims: all must hold for the finding to be shown.
        unless: claims of which none may hold: measurements that refute the finding or its advice.
        first: whether it comes before all others, because it changes how they are to be read.
        otherwise: finding shown instead where a claim does not hold or something refutes it; may be None.
    """

    level: str
    title: str
    evidence: str
    action: str
    chapter: str
    claims: tuple[Claim, ...] = ()
    unless: tuple[Claim, ...] = ()
    first: bool = False
    otherwise: Finding | None = None

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> Finding:
        """Restore a finding from ``dataclasses.asdict``.

        Args:
            d: its fields.

        Returns:
            the finding.
        """
        words = {k: d[k] for k in ("level", "title", "evidence", "action", "chapter")}
        claims, unless = (tuple(Claim(**c) for c in d.get(k) or ()) for k in ("claims", "unless"))
        instead = d.get("otherwise")
        return Finding(
            **words,
            claims=claims,
            unless=unless,
            first=bool(d.get("first")),
            otherwise=None if instead is None else Finding.from_dict(instead),
        )


def reviewed(findings: Iterable[Finding], measured: Mapping[str, Measurement]) -> tuple[Finding, ...]:
    """Keep the findings that the measurements support.

    Args:
        findings: of all chapters.
        measured: every measurement of the audit by name.

    Returns:
        the findings, with alternatives in place of those that do not hold.
    """
    spoken = (_spoken(finding, measured) for finding in findings)
    return tuple(f for f in spoken if f is not None)


def _spoken(finding: Finding, measured: Mapping[str, Measurement]) -> Finding | None:
    supported = all(c.holds(measured) for c in finding.claims)
    refuted = any(c.holds(measured) for c in finding.unless)
    if supported and not refuted:
        # Only a note may rest on nothing measured.
        return finding if finding.claims or finding.level == "note" else replace(finding, level="note")
    return None if finding.otherwise is None else _spoken(finding.otherwise, measured)
