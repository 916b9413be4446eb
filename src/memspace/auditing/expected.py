"""The test loss to expect: by refits where there are any, else by leave-one-out alone."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from memspace import intervals
from memspace.auditing.judge import Judged, covering, log_probabilities_of
from memspace.auditing.reading import HeldOut
from memspace.measurement import Measurement
from memspace.measures.calibration import calibration_estimate
from memspace.measures.correct import by_example, per_prediction
from memspace.measures.damping import DampingChoice, expected_loss
from memspace.measures.test_loss import Expected, expect, expect_by_law
from memspace.task.law import Likelihood
from memspace.task.task import Task

__all__ = ["beyond_a_guess", "expected_calibration", "expected_test_loss"]


def beyond_a_guess(law: Likelihood, f: Tensor, y: Tensor, loo_loss: Tensor, loo_f: Tensor | None) -> str:
    """Why leave-one-out losses to first order do not hold, or nothing: a network without an example may always guess.

    Args:
        f, y: outputs and labels of the training data; loo_loss: (n,), summed over positions; loo_f: outputs, where
            they are known; losses are then no first order.
    """
    if loo_f is not None or not law.classifies:
        return ""
    guess = float(law.nll(torch.zeros((), dtype=torch.float64, device=f.device).expand_as(f), y).sum())
    if not float(loo_loss.sum()) > guess:
        return ""
    return "worse than a uniform guess: to leave one example out changes more than a first order tells"


def expected_test_loss(
    task: Task,
    y: Tensor,
    loss: Tensor,
    weight: Tensor,
    *,
    held_out: HeldOut | None,
    labels: Judged | None,
    damping: DampingChoice,
    loo_f: Tensor | None,
    loo_loss: Tensor,
) -> Expected:
    """Nats per prediction.

    Args:
        y, loss, weight: of the training data: labels, losses summed over positions, positions counted.
        held_out: refits; labels: every label judged; damping: of leave-one-out.
        loo_f, loo_loss: leave-one-out outputs, where there are any, and losses.
    """
    counted, law = by_example(weight), task.likelihood
    floor = law.floor(y.shape[-1])
    if held_out is None:
        log_p = None if loo_f is None else law.log_probabilities(loo_f.double())
        return _alone(y, counted, labels, damping, log_p, loo_loss, floor)
    at, f = held_out.index.to(y.device), held_out.f
    train = float(loss.sum() / weight.sum())
    parts = max(2, round(len(y) * held_out.folds / max(len(at), 1)))
    if labels is None:
        losses = per_prediction(by_example(law.nll(f.double(), y[at])), counted[at])
        return expect(losses.double(), train, parts, folds=held_out.folds, floor=floor)
    laws = labels.laws[0][at], labels.laws[1][at]
    admitted = (true[at] for true in labels.model.admitted_laws(labels.opinions, y))
    log_p = law.log_probabilities(f.double())
    loo = law.log_probabilities(loo_f[at].double()) if loo_f is not None and damping.reliable else None
    assert log_p is not None
    return expect_by_law(
        log_p, y[at], laws, admitted, train, parts, folds=held_out.folds, told=labels.model.reliable, loo=loo
    )


def _alone(
    y: Tensor,
    counted: Tensor,
    labels: Judged | None,
    damping: DampingChoice,
    loo: Tensor | None,
    loo_loss: Tensor,
    floor: float,
) -> Expected:
    """Without refits: as good as the damping, which only theory can vouch for."""
    if loo is not None and labels is not None:
        each, against = expected_loss(loo, labels.truth), "against the inferred true label"
    else:
        each, against = per_prediction(loo_loss, counted).double(), "against the labels as given"
    value, found = float(each.mean()), intervals.of_mean(each.cpu().numpy(), lower=floor)
    low, high = found.ends if found.ends is not None else (value, value)
    exact = damping.rule == "decay"
    half = 0.0 if exact else value - floor
    told = labels is None or labels.model.reliable
    note = "" if exact else "leave-one-out with which no refit was compared"
    interval = max(floor, low - half), high + half
    return Expected(value, interval, f"leave-one-out, {against}", damping.reliable and told and not found.doubt, note)


def expected_calibration(
    law: Likelihood,
    y: Tensor,
    labels: Judged,
    held_out: HeldOut | None,
    loo_f: Tensor,
    damping: DampingChoice,
    by: str,
) -> Measurement:
    """Calibration error to expect of test data: of leave-one-out, where its damping is sound, and of refits."""
    loo = law.log_probabilities(loo_f.double())
    assert loo is not None, "labels were judged, so that they are classes"
    told = labels.model.reliable
    truths = [labels.truth] if told else [labels.truth, y]
    others = list(labels.model.admitted_posteriors(labels.opinions, y))
    others += [] if told else [labels.laws[0].argmax(-1)]  # what overlaps may all be wrong labels
    refits = covering(log_probabilities_of(law, held_out), len(y))
    outputs = {"leave-one-out": loo} if damping.reliable or refits is None else {}
    if refits is not None:
        outputs["refits"] = refits.to(loo)
    against = "the inferred true label" if told else "labels as given and as inferred"
    how = f"calibration error of {' and of '.join(outputs)}, against {against}; {by}"
    found = calibration_estimate("generalisation.calibration_estimate", list(outputs.values()), truths, how, others)
    return replace(found, reliable=found.reliable and (damping.reliable or refits is not None))
