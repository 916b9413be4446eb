"""Whether examples look wrong: some, none, or unclear; one rule for labels and for targets."""

from __future__ import annotations

from memspace.auditing.claims import Claim, Finding, below
from memspace.auditing.thresholds import FEW_WRONG

__all__ = ["verdict"]


def verdict(
    titles: tuple[str, str, str], level: str, evidence: str, *, column: str, share: str, claim: Claim
) -> Finding:
    """Return the first of three findings that is supported.

    Args:
        titles: where some look wrong, where none does, where that is unclear.
        level: of the first.
        evidence: the numbers, the same for all three.
        column: of the table of examples, by which they are ranked.
        share: the measurement of how many are wrong.
        claim: of the first.

    Returns:
        the first, which gives way to the second, and that to the third.
    """
    wrong, none, unsure = titles
    rank = f"in the table of examples, sorted by {column}"
    unclear = Finding(
        "note", unsure, evidence, f"Read the likeliest ones {rank}, as a list to review, not as a count.", "stored"
    )
    nothing = Finding(
        "good", none, evidence, "Nothing to do.", "stored", claims=(below(share, FEW_WRONG),), otherwise=unclear
    )
    return Finding(level, wrong, evidence, f"Review them {rank}.", "stored", claims=(claim,), otherwise=nothing)
