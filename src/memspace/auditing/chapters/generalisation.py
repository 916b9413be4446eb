"""Generalisation: test loss estimated from training data alone, next to the measured one where there is one."""

from __future__ import annotations

import numpy as np

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.chapters.agreement import agreement
from memspace.auditing.chapters.regression import explained_against_test
from memspace.auditing.claims import reliable, unreliable
from memspace.auditing.results import Figure, Finding, Series
from memspace.auditing.thresholds import ESTIMATE_OFF
from memspace.intervals import margin
from memspace.measures import explained
from memspace.measures import generalisation as measures
from memspace.measures.damping import DampingChoice
from memspace.measures.explained import TargetSpread
from memspace.measures.generalisation import floor_of
from memspace.measures.test_loss import Expected
from memspace.measures.values import HeldOut, LeaveOneOutLosses, TestOutputs, TrainingOutputs
from memspace.measures.workspace import Measured
from memspace.task.task import Task
from memspace.training.refit import refit_of

__all__ = ["GENERALISATION"]

DRAWN = 1000  # examples in the figure
ESTIMATE, MEASURED = "generalisation.loo_estimate", "generalisation.test_loss"
GAP, EXPLAINED = "generalisation.loo_relative_error", "regression.r2_test"


def answer(
    outputs: TrainingOutputs,
    expected: Expected,
    measured: Measured,
    test: TestOutputs | None,
    spread: TargetSpread | None,
) -> str:
    """Say which test loss to expect, and what was measured."""
    low, high = expected.interval
    estimated = (
        f"From training data alone: test loss {expected.value:.3g} {outputs.nats} "
        f"({low:.2g} to {high:.2g}; {expected.how})."
    )
    return estimated if test is None else estimated + _as_measured(len(test.f), measured, real=spread is not None)


def _as_measured(n: int, measured: Measured, *, real: bool) -> str:
    """The result on n test examples; ``real``: whether targets are real numbers."""
    loss, gap, share = (measured.get(name) for name in (MEASURED, GAP, EXPLAINED))
    if real:
        return "" if share is None else f" It explains {share.value:.0%} of the variance of the test targets."
    if loss is None:
        return ""
    off = "" if gap is None else f" ({gap.value:+.0%})"
    return f" Measured on {n:,} test examples: {loss.value:.3g}{off}."


def estimate_against_test(
    outputs: TrainingOutputs, expected: Expected, measured: Measured, spread: TargetSpread | None
) -> Finding | None:
    """Compare the loss expected from training data with the measured one."""
    loss = measured.get(MEASURED)
    if loss is None or spread is not None:
        return None
    evidence = f"{expected.value:.3g} {outputs.nats} from training data alone, {loss.value:.3g} measured."
    return agreement(measured.get(GAP), ESTIMATE_OFF, evidence)


def to_expect(
    task: Task,
    outputs: TrainingOutputs,
    expected: Expected,
    test: TestOutputs | None,
    spread: TargetSpread | None,
) -> Finding | None:
    """Say which test loss to expect, where none was measured."""
    if test is not None or spread is not None:
        return None
    low, high = expected.interval
    train = float(outputs.loss.sum()) / outputs.count
    return Finding(
        "note",
        f"Expect a test loss of {max(low, floor_of(task, outputs)):.2g} to {high:.2g} {outputs.nats}",
        f"Training loss {train:.2g}; without the examples {expected.value:.2g}.",
        "Check on held-out data when there are any.",
        "generalisation",
        claims=(reliable(ESTIMATE),),
    )


def damping_doubted(task: Task, damping: DampingChoice, held_out: HeldOut | None) -> Finding:
    """Warn where the damping is not reliable."""
    advice = (
        "Read leave-one-out numbers of single examples as a ranking."
        if held_out is not None or refit_of(task) is not None
        else "Pass a way to train again, Task(refit=...), and the damping is calibrated on examples left out."
    )
    return Finding(
        "warn",
        "The damping is not calibrated",
        f"{damping.statement}.",
        advice,
        "generalisation",
        claims=(unreliable("damping"),),
    )


def damping_figure(damping: DampingChoice) -> Figure | None:
    """Draw the leave-one-out estimate against the damping, where it was chosen over a grid."""
    if not damping.grid:
        return None
    grid, goal, half = list(damping.grid), damping.target, margin(damping.target_error)
    count = len(grid)
    return Figure(
        "damping",
        "How the damping was chosen",
        "The leave-one-out estimate of the held-out examples' loss falls with the damping; it is chosen where it meets networks trained without them (95% band).",
        "damping γ (nats)",
        "loss (nats)",
        (
            Series("leave-one-out estimate", grid, list(damping.estimate)),
            Series("held-out refits", grid, [goal] * count, low=[goal - half] * count, high=[goal + half] * count),
        ),
        "log",
        "log",
        ((damping.value, "chosen"),),
    )


def loo_figure(outputs: TrainingOutputs, without: LeaveOneOutLosses) -> Figure:
    """Draw the loss of examples without themselves against their training loss."""
    n, positions = outputs.n, outputs.count / outputs.n
    some = np.linspace(0, n - 1, min(n, DRAWN)).astype(int)
    before, after = ((loss / positions).cpu().numpy()[some].clip(1e-6) for loss in (outputs.loss, without.loss))
    text = [f"example {i}" for i in some]
    return Figure(
        "loo",
        "Every example without itself",
        "Training loss against leave-one-out loss: far above the diagonal is memorised.",
        "training loss (nats)",
        "leave-one-out loss (nats)",
        (Series("examples", before.tolist(), after.tolist(), "points", text=text),),
        "log",
        "log",
    )


def damping_note(damping: DampingChoice) -> str:
    """Say how the damping was chosen."""
    return f"{damping.statement}."


GENERALISATION = ChapterDeclaration(
    id="generalisation",
    title="Generalisation",
    question="Will it do as well on examples it has not seen?",
    answer=answer,
    measures=(
        measures.train_loss,
        measures.tic_gap,
        measures.tic_estimate,
        measures.loo_estimate,
        measures.loo_estimate_as_given,
        measures.damping_used,
        measures.calibration_to_expect,
        measures.measured_calibration,
        measures.measured_loss,
        measures.measured_accuracy,
        measures.loo_relative_error,
        explained.r2_train,
        explained.r2_loo,
        explained.sigma,
        explained.r2_test,
        explained.loo_gap,
        measures.true_label_estimate,
    ),
    findings=(estimate_against_test, to_expect, explained_against_test, damping_doubted),
    figures=(damping_figure, loo_figure),
    notes=(damping_note,),
)
