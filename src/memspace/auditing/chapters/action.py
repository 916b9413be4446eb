"""Chapter 6: the action of the recorded training."""

from __future__ import annotations

from memspace.action.slope import MAX_ROWS
from memspace.action.training import LEAST_PROBE, LINE_POINTS, PROBE, SLOPE_PROBE, TrainingAction, training_action
from memspace.auditing.reading import Reading
from memspace.auditing.results import Chapter, Figure, Finding, Series
from memspace.auditing.thresholds import WASTEFUL
from memspace.measurement import Measurement
from memspace.measures.cost import Facts, Stage
from memspace.progress import Progress

__all__ = ["action"]


def action(r: Reading, seed: int, memory: int, progress: Progress) -> Chapter:
    """The chapter; without recorded checkpoints it says why it is empty. ``memory`` in bytes."""
    a = training_action(r.task, seed=seed, progress=progress, space=r.space, memory=memory)
    question = "How far did training travel, and how much of it was needed?"
    if not a.measurements:
        return Chapter("action", "Action", question, "Not measured: " + a.unmeasured[0].reason + ".", (), a.unmeasured)
    found = {m.name: m for m in a.measurements}
    length, bought = _length(found).value, found["action.loss_bought"].value
    ratio = found["action.inefficiency"].value if "action.inefficiency" in found else None
    answer = f"It bought {bought:.3g} nats of loss along a path of {length:.3g} nats^½"
    answer += f", {ratio:.1f} times the shortest." if ratio is not None else "; it ends where it began."
    findings = [f for f in (_travelled(found), _spent(found, a)) if f is not None]
    return Chapter("action", "Action", question, answer, a.measurements, a.unmeasured, tuple(findings), _figures(a))


def _length(found: dict[str, Measurement]) -> Measurement:
    """Without noise where that could be told, else as recorded."""
    return found.get("action.drift_length", found["action.length"])


def _travelled(found: dict[str, Measurement]) -> Finding | None:
    if "action.inefficiency" not in found:
        return None
    m = found["action.inefficiency"]
    length, ambient = _length(found).value, found["action.ambient_distance"].value
    low, high = m.interval or (m.value, m.value)
    evidence = f"Length {length:.3g} against an ambient distance of {ambient:.3g} nats^½: {m.value:.2g} times "
    evidence += f"(95%: {low:.2g} to {high:.2g})."
    if "action.drift_length" in found:
        evidence += f" As recorded, with the noise of its steps, it is {found['action.length'].value:.3g} nats^½ long."
    if not m.reliable:
        title = "How much of the way was needed cannot be told from this recording"
        return Finding("note", title, f"{evidence} {_sentence(m.note)}", "Record more checkpoints.", "action")
    advice = "A smaller learning rate late, or averaging the weights, would shorten the way back and forth."
    return Finding(
        "note",
        f"Training travelled {m.value:.1f} times the least possible distance",
        evidence,
        advice if low > WASTEFUL else "Nothing to do.",
        "action",
    )


def _sentence(note: str) -> str:
    """The last part of a note, which says what makes a number unreliable, as a sentence."""
    last = note.split("; ")[-1]
    return f"{last[:1].upper()}{last[1:]}." if last else ""


def _spent(found: dict[str, Measurement], a: TrainingAction) -> Finding | None:
    """What the loss cost, on the examples the slope was taken on; said as unknown where its interval says so."""
    if "action.excess" not in found or "action.spent_over_bought" not in found:
        return None
    excess, ratio = found["action.excess"], found["action.spent_over_bought"]
    low, high = excess.interval or (excess.value, excess.value)
    measured = f"Action excess {excess.value:.2g} nats (95%: {low:.2g} to {high:.2g}) on {excess.n} examples"
    if not excess.reliable:
        return Finding(
            "note",
            "How wasteful training was cannot be told from this recording",
            f"{measured}. {_sentence(excess.note)}",
            "Record more checkpoints."
            if "checkpoints" in excess.note.split("; ")[-1]
            else "Look at the examples whose labels look wrong first.",
            "action",
        )
    worst = max(range(len(a.segments["excess"])), key=lambda k: a.segments["excess"][k])
    start, end = a.segments["step_from"][worst], a.segments["step_to"][worst]
    share = a.segments["excess"][worst] / excess.value if excess.value > 0 else 0.0
    where = f" {share:.0%} of it arose between steps {start:.0f} and {end:.0f}." if 0 < share <= 1 else ""
    return Finding(
        "note",
        f"It spent {ratio.value:.2g} nats of action for every nat of loss it bought",
        f"{measured}; natural-gradient flow has none.{where}",
        "Compare optimisers and learning rates by this number on the same task."
        if (ratio.interval or (ratio.value,))[0] > WASTEFUL
        else "Nothing to do.",
        "action",
    )


def _figures(a: TrainingAction) -> tuple[Figure, ...]:
    steps = [max(s, 0.5) for s in a.step]
    figures = [
        Figure(
            "path",
            "The training path",
            "Fisher–Rao length travelled without the noise of steps, and the loss, checkpoint by checkpoint.",
            "optimiser step",
            "nats^½, nats",
            (
                Series("length travelled (nats^½)", steps, list(a.length)),
                Series("training loss (nats)", steps, list(a.loss)),
            ),
            "log",
        )
    ]
    if "excess" in a.segments:
        figures.append(
            Figure(
                "excess",
                "Where the action went",
                "Per stretch between checkpoints: the loss it bought, and the action spent beyond it.",
                "optimiser step at the end of the stretch",
                "nats",
                (
                    Series("loss bought", list(a.segments["step_to"]), list(a.segments["bought"])),
                    Series("excess", list(a.segments["step_to"]), list(a.segments["excess"])),
                ),
                "log",
            )
        )
    return tuple(figures)


def costs(facts: Facts) -> list[Stage]:
    """Every checkpoint and the straight line on the probe; the slope at every checkpoint."""
    if facts.checkpoints < 3:
        return []
    followed = facts.checkpoints + LINE_POINTS
    rows = facts.outputs * facts.positions
    sloped = min(facts.n, PROBE, SLOPE_PROBE, MAX_ROWS // rows)
    stages = [Stage("training path", min(facts.n, PROBE), followed, 0, 0, "length and loss along the training")]
    if sloped >= min(LEAST_PROBE, facts.n):
        s = facts.checkpoints
        forwards, backwards = facts.read(rows, 1)
        why, work = "action excess", s * (2 * (sloped * rows) ** 2 * facts.floats + (sloped * rows) ** 3)
        stages.append(Stage("slope along the path", sloped, s * forwards, s * backwards, 0, why, work=work))
    return stages
