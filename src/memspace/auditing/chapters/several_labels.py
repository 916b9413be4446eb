"""What is said of labels that look wrong, and of examples with several labels each."""

from __future__ import annotations

from memspace.auditing.chapters.verdict import verdict
from memspace.auditing.claims import above
from memspace.auditing.outputs_judged import judge_outputs
from memspace.auditing.reading import Reading
from memspace.auditing.results import Finding
from memspace.measurement import Measurement

__all__ = ["verdict_on_labels", "wrong_outputs"]


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
    found = f"{likely:,} {'label is' if likely == 1 else 'labels are'} more likely wrong than right"
    titles = (
        found if likely else "Some labels are wrong",
        "No label looks wrong",
        f"No sign of wrong labels, but up to {high:.0%} cannot be ruled out"
        if noise.reliable
        else "Whether labels are wrong cannot be told",
    )
    return verdict(
        titles, "bad", evidence, column="p_wrong_label", share="labels.noise", claim=above("labels.noise", 0.0)
    )
