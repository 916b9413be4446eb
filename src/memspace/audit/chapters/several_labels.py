"""What is said of labels that look wrong, and of examples with several labels each."""

from __future__ import annotations

from memspace.audit.claims import above, below
from memspace.audit.outputs_judged import judge_outputs
from memspace.audit.reading import Reading
from memspace.audit.results import Finding
from memspace.measurement import Measurement

__all__ = ["verdict_on_labels", "wrong_outputs"]

FEW = 0.05  # share of wrong labels below which none is said to look wrong


def wrong_outputs(
    r: Reading,
    tables: dict[str, dict[str, object]],
    measurements: list[Measurement],
    findings: list[Finding],
    seed: int = 0,
) -> bool:
    """Each example's likeliest wrong output, into ``examples``; False where its labels are no choices."""
    found = judge_outputs(r, seed)
    if found is None:
        return False
    tables["examples"] |= found.columns()
    measurements += [found.noise, found.expected]
    findings.append(verdict_on_labels(found.noise, int((found.p > 0.5).sum())))
    return True


def verdict_on_labels(noise: Measurement, likely: int) -> Finding:
    """Found, none, or not to be told; ``likely``: labels more likely wrong than right."""
    evidence = f"{noise.note[:1].upper()}{noise.note[1:]}."
    high = 1.0 if noise.interval is None else noise.interval[1]
    unsure = Finding(
        "note",
        f"No sign of wrong labels, but up to {high:.0%} cannot be ruled out"
        if noise.reliable
        else "Whether labels are wrong cannot be told",
        evidence,
        "Read the likeliest ones in the table of examples, sorted by p_wrong_label, as a list to look at, not as a count.",
        "stored",
    )
    none = Finding(
        "good",
        "No label looks wrong",
        evidence,
        "Nothing to do.",
        "stored",
        claims=(below("labels.noise", FEW),),
        otherwise=unsure,
    )
    return Finding(
        "bad",
        f"{likely:,} {'label is' if likely == 1 else 'labels are'} more likely wrong than right"
        if likely
        else "Some labels are wrong",
        evidence,
        "Review them in the table of examples, sorted by p_wrong_label.",
        "stored",
        claims=(above("labels.noise", 0.0),),
        otherwise=none,
    )
