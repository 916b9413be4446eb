"""The chapter on what is stored: memorised examples, wrong labels, where they are stored, influence."""

from __future__ import annotations

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.chapters.influence import explained_predictions, influence_columns
from memspace.auditing.chapters.leaks import copies_among_tests
from memspace.auditing.chapters.regression import suspicious_targets, verdict_on_targets
from memspace.auditing.chapters.twice import (
    alike_in_tests,
    alike_in_training,
    copies_in_training,
    gallery_of_leaks,
    gallery_of_repeats,
)
from memspace.auditing.chapters.wrong_labels import calibration_figure, suspicious_labels, verdict_on_labels
from memspace.auditing.claims import above, reliable
from memspace.auditing.pictures import class_name, item
from memspace.auditing.repeated import duplicate_columns
from memspace.auditing.results import Figure, Finding, Gallery, Series
from memspace.auditing.thresholds import MEMORISED_BY_TOP
from memspace.measures import leaks, memory, outputs_judged, repeats, targets, wrong_labels
from memspace.measures.judge import Judged
from memspace.measures.memory import InfluenceDoubt, most_memorised, top_count
from memspace.measures.values import LeaveOneOutLosses, SelfInfluence, TrainingOutputs
from memspace.measures.workspace import Measured
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["STORED"]

SHOWN = 24
TOP_SHARE = "memory.top_percent_share"


def answer(
    outputs: TrainingOutputs, influence: SelfInfluence, without: LeaveOneOutLosses, labels: Judged | None
) -> str:
    """Say how leaving an example out changes its loss, and how the labels are judged."""
    rise = without.loss - outputs.loss
    top = most_memorised(influence)[0]
    losses = (
        f"Leaving an example out raises its own loss by {float(rise.mean()):.3g} nats on average; "
        f"the most memorised one by {float(rise[top]):.3g}."
    )
    if labels is None:
        return losses
    statement = labels.model.statement
    return f"{losses} {statement[0].upper()}{statement[1:]}."


def concentrated(space: ParameterSpace, influence: SelfInfluence, measured: Measured) -> Finding | None:
    """State the share of self-influence of the top 1%, with a warning where it is large."""
    if TOP_SHARE not in measured:
        return None
    total, share = influence.total, measured[TOP_SHARE].value
    count = top_count(len(total))
    place = space.labels[int(influence.parts.sum(0).argmax())]
    evidence = (
        f"Self-influence {float(total.max()):.2g} nats at the top against {float(total.median()):.2g} at the median; "
        f"the largest part lies in {place}."
    )
    hold = "example holds" if count == 1 else "examples hold"
    title = f"The {'most' if count == 1 else f'{count:,} most'} memorised {hold} {share:.0%} of all self-influence"
    note = Finding("note", title, evidence, "Nothing to do.", "stored", claims=(reliable(TOP_SHARE),))
    return Finding(
        "warn",
        title,
        evidence,
        "Review the most memorised examples: rare but right ones deserve more data, wrong ones a new label.",
        "stored",
        claims=(above(TOP_SHARE, MEMORISED_BY_TOP),),
        otherwise=note,
    )


def where_figure(space: ParameterSpace, influence: SelfInfluence) -> Figure:
    """Draw each layer's share of self-influence."""
    parts, total = influence.parts, influence.total
    top = most_memorised(influence)[: max(10, len(total) // 20)]
    shares = {"most memorised 5%": parts[top].sum(0) / total[top].sum(), "all examples": parts.sum(0) / total.sum()}
    return Figure(
        "where",
        "Where memories are stored",
        "Each layer's share of self-influence, for the most memorised 5% and for all; parts sum to the whole.",
        "layer",
        "share",
        tuple(Series(name, space.labels, share.tolist(), "bar") for name, share in shares.items()),
    )


def memorised(task: Task, outputs: TrainingOutputs, influence: SelfInfluence) -> Gallery:
    """Show the most memorised examples."""
    items = []
    for i in most_memorised(influence)[:SHOWN].tolist():
        label = f", label {class_name(task, outputs.y[i])}" if outputs.classes else ""
        items.append(item(task, task.train, i, f"self-influence {float(influence.total[i]):.3g} nats{label}"))
    return Gallery(
        "memorised",
        "Most memorised",
        "The training examples whose prediction depends most on having been stored themselves.",
        tuple(items),
    )


def doubt_note(doubt: InfluenceDoubt) -> str | None:
    """Say why influence is not reliable in size, where it is not."""
    return f"Influence and self-influence are not reliable in size: {doubt.reason}." if doubt.reason else None


STORED = ChapterDeclaration(
    id="stored",
    title="What is stored",
    question="Which examples has the network memorised, which labels look wrong, and who supports a prediction?",
    answer=answer,
    measures=(
        memory.self_influence,
        memory.loo_loss_rise,
        memory.top_percent_share,
        wrong_labels.noise,
        wrong_labels.expected_wrong,
        wrong_labels.average_precision,
        wrong_labels.suggestion_accuracy,
        targets.outlier_share,
        targets.expected_outliers,
        repeats.exact_within,
        repeats.near_within,
        repeats.beyond_chance_within,
        repeats.exact_across,
        repeats.near_across,
        repeats.beyond_chance_across,
        leaks.leaked_share,
        leaks.accuracy_without_copies,
        leaks.loss_without_copies,
    ),
    tables=(
        memory.example_columns,
        wrong_labels.wrong_label_columns,
        targets.outlier_columns,
        outputs_judged.label_columns,
        duplicate_columns,
        influence_columns,
    ),
    findings=(
        verdict_on_labels,
        verdict_on_targets,
        copies_in_training,
        alike_in_training,
        copies_among_tests,
        alike_in_tests,
        concentrated,
    ),
    figures=(where_figure, calibration_figure),
    galleries=(
        memorised,
        suspicious_labels,
        suspicious_targets,
        gallery_of_repeats,
        gallery_of_leaks,
        explained_predictions,
    ),
    notes=(doubt_note,),
)
