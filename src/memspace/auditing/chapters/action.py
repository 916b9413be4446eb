"""Action: of the recorded training, and along depth where the network is a chain of blocks of one shape."""

from __future__ import annotations

from memspace.action.measures import DEPTH_MEASURES, TRAINING_MEASURES
from memspace.action.slope import MAX_ROWS
from memspace.action.training import LEAST_PROBE, LINE_POINTS, PROBE, SLOPE_PROBE, TrainingAction, training_action
from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.chapters.depth import depth_figure, depth_note
from memspace.auditing.results import Figure, Finding, Series
from memspace.auditing.thresholds import WASTEFUL
from memspace.measurement import Measurement
from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import provides
from memspace.measures.values import Budget
from memspace.measures.workspace import Measured
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task
from memspace.value import Absent

__all__ = ["ACTION"]


def _cost(facts: Facts) -> list[Stage]:
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


@provides(cost=_cost)
def followed(task: Task, space: ParameterSpace, budget: Budget) -> TrainingAction | Absent:
    """Follow the recorded training through its predictions."""
    training = training_action(task, seed=budget.seed, progress=budget.progress, space=space, memory=budget.memory)
    if not training.measurements:
        why = training.unmeasured[0]
        return Absent(why.reason, why.remedy)
    return training


def answer(measured: Measured, training: TrainingAction) -> str:
    """Say what was bought along which path."""
    bought, length = measured["action.loss_bought"].value, _length(measured).value
    sentence = f"It bought {bought:.3g} nats of loss along a path of {length:.3g} nats^½"
    ratio = measured.get("action.inefficiency")
    return sentence + (f", {ratio.value:.1f} times the shortest." if ratio is not None else "; it ends where it began.")


def _length(found: Measured) -> Measurement:
    """The length without noise where it is known, else as recorded."""
    return found.get("action.drift_length", found["action.length"])


def travelled(found: Measured) -> Finding | None:
    """Compare the path of training with the shortest one."""
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
        title = "This recording does not show how much of the path was needed"
        return Finding("note", title, f"{evidence} {_sentence(m.note)}", "Record more checkpoints.", "action")
    advice = "A smaller learning rate late, or averaging the weights, would shorten the path."
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


def spent(found: Measured, training: TrainingAction) -> Finding | None:
    """State the action spent per nat of loss; or, where its interval is too wide, that it is unknown."""
    if "action.excess" not in found or "action.spent_over_bought" not in found:
        return None
    excess, ratio = found["action.excess"], found["action.spent_over_bought"]
    low, high = excess.interval or (excess.value, excess.value)
    measured = f"Action excess {excess.value:.2g} nats (95%: {low:.2g} to {high:.2g}) on {excess.n} examples"
    if not excess.reliable:
        return Finding(
            "note",
            "This recording does not show how wasteful training was",
            f"{measured}. {_sentence(excess.note)}",
            "Record more checkpoints."
            if "checkpoints" in excess.note.split("; ")[-1]
            else "Review the examples whose labels look wrong first.",
            "action",
        )
    worst = max(range(len(training.segments["excess"])), key=lambda k: training.segments["excess"][k])
    start, end = training.segments["step_from"][worst], training.segments["step_to"][worst]
    share = training.segments["excess"][worst] / excess.value if excess.value > 0 else 0.0
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


def path_figures(training: TrainingAction) -> tuple[Figure, ...]:
    """Draw the length of the path with the loss, and where the action excess arose."""
    steps = [max(s, 0.5) for s in training.step]
    figures = [
        Figure(
            "path",
            "The training path",
            "Fisher–Rao length travelled without the noise of steps, and the loss, checkpoint by checkpoint.",
            "optimiser step",
            "nats^½, nats",
            (
                Series("length travelled (nats^½)", steps, list(training.length)),
                Series("training loss (nats)", steps, list(training.loss)),
            ),
            "log",
        )
    ]
    if "excess" in training.segments:
        figures.append(
            Figure(
                "excess",
                "Where the action went",
                "Per stretch between checkpoints: the loss it bought, and the action spent beyond it.",
                "optimiser step at the end of the stretch",
                "nats",
                (
                    Series("loss bought", list(training.segments["step_to"]), list(training.segments["bought"])),
                    Series("excess", list(training.segments["step_to"]), list(training.segments["excess"])),
                ),
                "log",
            )
        )
    return tuple(figures)


ACTION = ChapterDeclaration(
    id="action",
    title="Action",
    question="How far did training travel, and how much of it was needed?",
    answer=answer,
    measures=(*TRAINING_MEASURES, *DEPTH_MEASURES),
    findings=(travelled, spent),
    figures=(path_figures, depth_figure),
    notes=(depth_note,),
)
