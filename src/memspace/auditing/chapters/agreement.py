"""An estimate from training data next to the measured number: close, off, or too few examples to judge."""

from __future__ import annotations

from memspace.auditing.claims import Finding, above, below
from memspace.measurement import Measurement

__all__ = ["agreement"]


def agreement(gap: Measurement | None, close: float, evidence: str) -> Finding:
    """Return the finding that a difference between estimate and measurement supports.

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
        "The test data are too few to judge the estimate from training data",
        evidence,
        "Use the measured number, or more test examples.",
        "generalisation",
    )
    if gap is None:
        return unsure
    side = above(gap.name, close) if gap.value > 0 else below(gap.name, -close)
    off = Finding(
        "warn",
        "The estimate from training data is too " + ("high" if gap.value > 0 else "low"),
        evidence,
        "Trust the measured number; the test data may differ from the training data.",
        "generalisation",
        claims=(side,),
        otherwise=unsure,
    )
    return Finding(
        "good",
        "The estimate from training data is close to the test result",
        evidence,
        "Trust the estimate on data like these.",
        "generalisation",
        claims=(above(gap.name, -close), below(gap.name, close)),
        otherwise=off,
    )
