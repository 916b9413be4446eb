"""The test loss to expect: by refits where there are any, else by leave-one-out alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace import intervals
from memspace.measures.calibration import calibration_estimate
from memspace.measures.correct import by_example, per_prediction
from memspace.measures.damping import DampingChoice, expected_loss
from memspace.measures.declaration import provides
from memspace.measures.judge import Judged, Unseen, covering
from memspace.measures.test_loss import Expected, LabelLaws, Refitted, expect, expect_by_law
from memspace.measures.values import HeldOut, LeaveOneOutLosses, LeaveOneOutOutputs, TrainingOutputs
from memspace.task.law import Likelihood
from memspace.task.task import Task
from memspace.value import Value

__all__ = ["LeaveOneOutDoubt", "beyond_a_guess", "expected_calibration", "expected_test_loss"]


@dataclass(frozen=True)
class LeaveOneOutDoubt:
    """Why leave-one-out losses may be wrong.

    Args:
        reason: empty where nothing speaks against them.
    """

    reason: str


@provides()
def doubt_of_losses(
    task: Task, outputs: TrainingOutputs, without: LeaveOneOutLosses, loo: LeaveOneOutOutputs | None
) -> LeaveOneOutDoubt:
    """Compare leave-one-out losses with a guess."""
    known = None if loo is None else loo.f
    return LeaveOneOutDoubt(beyond_a_guess(task.likelihood, outputs.f, outputs.y, without.loss, known))


@provides()
def expected_on_new_data(
    task: Task,
    outputs: TrainingOutputs,
    without: LeaveOneOutLosses,
    unseen: Unseen,
    damping: DampingChoice,
    doubt: LeaveOneOutDoubt,
    labels: Judged | None,
) -> Expected:
    """Estimate the test loss without test data."""
    expected = expected_test_loss(task.likelihood, outputs, unseen, damping, labels, without.loss)
    if doubt.reason and unseen.refits is None:
        return replace(expected, reliable=False, note=doubt.reason)
    return expected


def beyond_a_guess(law: Likelihood, f: Tensor, y: Tensor, loo_loss: Tensor, loo_f: Tensor | None) -> str:
    """Return why leave-one-out losses to first order do not hold: a network without an example may always guess.

    Args:
        law: output law.
        f: (n, ..., C) outputs of the training data.
        y: (n, ...) labels.
        loo_loss: (n,) nats, summed over positions.
        loo_f: (n, C) leave-one-out outputs, where they are known: losses are then no first order.

    Returns:
        the reason, or nothing.
    """
    if loo_f is not None or not law.classifies:
        return ""
    guess = float(law.nll(torch.zeros((), dtype=torch.float64, device=f.device).expand_as(f), y).sum())
    if not float(loo_loss.sum()) > guess:
        return ""
    return "worse than a uniform guess: leaving one example out changes more than a first order can predict"


def expected_test_loss(
    law: Likelihood,
    outputs: TrainingOutputs,
    unseen: Unseen,
    damping: DampingChoice,
    labels: Judged | None,
    loo_loss: Tensor,
) -> Expected:
    """Estimate the test loss without test data.

    Args:
        law: output law.
        outputs: of the training data.
        unseen: outputs of predictors that did not see the labels.
        damping: of leave-one-out.
        labels: every label judged, or None.
        loo_loss: (n,) leave-one-out losses, nats, summed over positions.

    Returns:
        nats per prediction, with interval.
    """
    floor = law.floor(outputs.y.shape[-1])
    if unseen.refits is None:
        loo = None if unseen.loo is None else law.log_probabilities(unseen.loo.double())
        return _alone(outputs, loo, damping, labels, loo_loss, floor)
    return _by_refits(law, outputs, unseen, unseen.refits, labels, floor)


def _by_refits(
    law: Likelihood, outputs: TrainingOutputs, unseen: Unseen, refits: HeldOut, labels: Judged | None, floor: float
) -> Expected:
    """By networks that did not see the examples."""
    y, f, at = outputs.y, refits.f, refits.index.to(outputs.y.device)
    train = float(outputs.loss.sum() / outputs.weight.sum())
    parts = max(2, round(len(y) * refits.folds / max(len(at), 1)))
    made = Refitted(train, parts, refits.folds)
    classes = unseen.in_classes(law)
    if labels is None or classes is None or classes.refits is None:
        losses = per_prediction(by_example(law.nll(f.double(), y[at])), by_example(outputs.weight)[at])
        return expect(losses.double(), made, floor=floor)
    admitted = (true[at] for true in labels.model.admitted_laws(labels.opinions, y))
    laws = LabelLaws(labels.laws[0][at], labels.laws[1][at], admitted, labels.model.reliable)
    loo = classes.loo[at] if classes.loo is not None and unseen.matched else None
    return expect_by_law(classes.refits.f, y[at], laws, made, loo=loo)


def _alone(
    outputs: TrainingOutputs,
    loo: Tensor | None,
    damping: DampingChoice,
    labels: Judged | None,
    loo_loss: Tensor,
    floor: float,
) -> Expected:
    """The estimate without refits: as accurate as the damping, which only theory supports."""
    if loo is not None and labels is not None:
        losses, against = expected_loss(loo, labels.truth), "against the inferred true label"
    else:
        losses, against = per_prediction(loo_loss, by_example(outputs.weight)).double(), "against the labels as given"
    value, mean = float(losses.mean()), intervals.of_mean(losses.cpu().numpy(), lower=floor)
    low, high = mean.ends if mean.ends is not None else (value, value)
    exact = damping.rule == "decay"
    half = 0.0 if exact else value - floor
    clear = labels is None or labels.model.reliable
    note = "" if exact else "leave-one-out with which no refit was compared"
    interval = max(floor, low - half), high + half
    return Expected(value, interval, f"leave-one-out, {against}", damping.reliable and clear and not mean.doubt, note)


def expected_calibration(
    law: Likelihood, y: Tensor, labels: Judged, unseen: Unseen, damping: DampingChoice, by: str
) -> Value | None:
    """Estimate the calibration error on test data: of leave-one-out, where its damping is sound, and of refits.

    Args:
        law: output law.
        y: (n,) labels.
        labels: every label judged.
        unseen: outputs of predictors that did not see the labels.
        damping: of leave-one-out.
        by: how the metric was read, for people.

    Returns:
        in units of probability; None without leave-one-out outputs of classes.
    """
    classes = unseen.in_classes(law)
    if classes is None or classes.loo is None:
        return None
    clear = labels.model.reliable
    truths = [labels.truth] if clear else [labels.truth, y]
    others = list(labels.model.admitted_posteriors(labels.opinions, y))
    others += [] if clear else [labels.laws[0].argmax(-1)]  # what overlaps may all be wrong labels
    refits = covering(classes.refits, len(y))
    outputs = {"leave-one-out": classes.loo} if damping.reliable or refits is None else {}
    if refits is not None:
        outputs["refits"] = refits.to(classes.loo)
    against = "the inferred true label" if clear else "labels as given and as inferred"
    estimate = calibration_estimate(list(outputs.values()), truths, others)
    how = f"of {' and of '.join(outputs)}, against {against}; {estimate.how}; {by}"
    return replace(estimate, how=how, reliable=estimate.reliable and (damping.reliable or refits is not None))
