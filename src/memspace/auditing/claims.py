"""The one rule by which a finding may speak.

A finding names the claims it rests on: "the whole interval of this measurement lies above that bound". It is spoken
where every claim holds: the measurement was made, is reliable, and its interval, not its point, supports it. It is
silent where another measurement of the same audit refutes it. What cannot be said is replaced by what the finding
says ``otherwise``, or left out.
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
    """What a measurement must show.

    Args:
        measure: its name.
        relation: ``above`` or ``below``: the whole 95% interval (of an exact value, the value) lies there;
            ``reliable``: it was measured and may be trusted; ``unreliable``: it says of itself that it should not.
        bound: for the first two.
    """

    measure: str
    relation: str
    bound: float = 0.0

    def holds(self, measured: Mapping[str, Measurement]) -> bool:
        """Whether it was measured and shows that."""
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
    """The claim that all of the measurement's interval lies above ``bound``."""
    return Claim(measure, ABOVE, bound)


def below(measure: str, bound: float) -> Claim:
    """The claim that all of the measurement's interval lies below ``bound``."""
    return Claim(measure, BELOW, bound)


def reliable(measure: str) -> Claim:
    """The claim that the measurement was made and may be trusted."""
    return Claim(measure, RELIABLE)


def unreliable(measure: str) -> Claim:
    """The claim that the measurement is marked not reliable."""
    return Claim(measure, UNRELIABLE)


@dataclass(frozen=True)
class Finding:
    """A sentence a person can act on.

    Args:
        level: ``bad``, ``warn``, ``good`` or ``note``; all but a note must rest on claims.
        title, evidence, action: what is so, the figures, what to do.
        chapter: where the evidence stands.
        claims: what must hold for the finding to be spoken.
        unless: claims of which none may hold: measurements that refute the finding or its advice.
        first: whether it goes before all others, because it changes how they are to be read.
        otherwise: what is said instead where a claim does not hold or something refutes it; may be None.
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
        """Inverse of ``dataclasses.asdict``."""
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
    """The findings that may be spoken, beside ``measured``: every measurement of the audit by name."""
    spoken = (_spoken(finding, measured) for finding in findings)
    return tuple(f for f in spoken if f is not None)


def _spoken(finding: Finding, measured: Mapping[str, Measurement]) -> Finding | None:
    supported = all(c.holds(measured) for c in finding.claims)
    refuted = any(c.holds(measured) for c in finding.unless)
    if supported and not refuted:
        # A verdict that rests on nothing measured is no verdict.
        return finding if finding.claims or finding.level == "note" else replace(finding, level="note")
    return None if finding.otherwise is None else _spoken(finding.otherwise, measured)
