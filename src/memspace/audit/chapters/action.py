"""Chapter 6: the action of the recorded training."""

from __future__ import annotations

from memspace.action.training import training_action
from memspace.audit.reading import Reading
from memspace.audit.results import Chapter, Figure, Finding, Series
from memspace.progress import Progress

__all__ = ["action"]


def action(r: Reading, seed: int, progress: Progress) -> Chapter:
    """The chapter; without recorded checkpoints it says why it is empty."""
    a = training_action(r.task, seed=seed, progress=progress)
    question = "How far did training travel, and how much of it was needed?"
    if not a.measurements:
        return Chapter("action", "Action", question, "Not measured: " + a.unmeasured[0].reason + ".", (), a.unmeasured)
    value = {m.name: m.value for m in a.measurements}
    ratio = value["action.inefficiency"]
    bought = value["action.loss_bought"]
    findings = [
        Finding(
            "note",
            f"Training travelled {ratio:.1f} times the least possible distance",
            f"Length {value['action.length']:.3g} against an ambient distance of {value['action.ambient_distance']:.3g} nats^½.",
            "A ratio far above 2 is back-and-forth: a smaller learning rate late, or averaging, would shorten it."
            if ratio > 2
            else "Nothing to do.",
            "action",
        )
    ]
    if "action.excess" in value:
        findings.append(
            Finding(
                "note",
                f"It spent {value['action.excess'] + bought:.3g} nats of action to buy {bought:.3g} nats of loss",
                f"Action excess {value['action.excess']:.3g} nats; natural-gradient flow has none.",
                "Compare optimisers by this number on the same task.",
                "action",
            )
        )
    steps = [max(s, 0.5) for s in a.step]
    figures = (
        Figure(
            "path",
            "The training path",
            "Fisher–Rao length travelled and the loss, checkpoint by checkpoint.",
            "optimiser step",
            "nats^½, nats",
            (
                Series("length travelled (nats^½)", steps, list(a.length)),
                Series("training loss (nats)", steps, list(a.loss)),
            ),
            "log",
        ),
    )
    answer = f"It bought {bought:.3g} nats of loss along a path of {value['action.length']:.3g} nats^½, {ratio:.1f} times the shortest."
    return Chapter("action", "Action", question, answer, a.measurements, a.unmeasured, tuple(findings), figures)
