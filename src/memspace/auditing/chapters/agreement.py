"""An estimate made without test data next to the measured one: close, off, or too few examples to tell."""

from __future__ import annotations

from memspace.auditing.claims import Finding, above, below
from memspace.measurement import Measurement

__all__ = ["agreement"]


def agreement(gap: Measurement | None, close: float, evidence: str) -> Finding:
    """Return what a difference between estimate and measurement says.

    Args:
        gap: estimate less measurement, with the interval of both together; not reliable where the estimate is not; None
            where it is not defined.
        close: how large it may be, in its unit.
        evidence: both numbers, for people.

    Returns:
        the first of three findings that is supported.
    """
    unsure = Finding(
        "note",
        "Whether the estimate made without test data is close cannot be told",
        evidence,
        "Use the measured number; more test examples would tell.",
        "generalisation",
    )
    if gap is None:
        return unsure
    side = above(gap.name, close) if gap.value > 0 else below(gap.name, -close)
    off = Finding(
        "warn",
        "The estimate made without test data is too " + ("high" if gap.value > 0 else "low"),
        evidence,
        "Trust the measured number; the test data may differ from the training data.",
        "generalisation",
        claims=(side,),
        otherwise=unsure,
    )
    return Finding(
        "good",
        "The estimate made without test data is close",
        evidence,
        "Trust the estimate on data like these.",
        "generalisation",
        claims=(above(gap.name, -close), below(gap.name, close)),
        otherwise=off,
    )
