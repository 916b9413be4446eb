"""Chapter 5: test loss estimated from training data alone, with the measured one beside it where there is one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from memspace.auditing.chapters.agreement import agreement
from memspace.auditing.chapters.regression import explained
from memspace.auditing.claims import reliable as reliable_claim
from memspace.auditing.claims import unreliable
from memspace.auditing.expected import beyond_a_guess, expected_calibration, expected_test_loss
from memspace.auditing.reading import Reading
from memspace.auditing.results import Chapter, Figure, Finding, Series
from memspace.auditing.thresholds import ESTIMATE_OFF
from memspace.intervals import margin, of_independent_ratio
from memspace.measurement import Measurement, Unmeasured, from_samples, from_share
from memspace.measures.calibration import calibration_error
from memspace.measures.correct import by_example, correct, per_prediction
from memspace.training.refit import refit_of

__all__ = ["generalisation"]


def _calibration(r: Reading) -> list[Measurement | Unmeasured]:
    """Whether the network is as sure as it is right: estimated without test data, and measured on them."""
    name = "generalisation.calibration_estimate"
    if r.loo_f is None or r.labels is None:
        reason = "a sequence model, another output law than categorical, or too many outputs"
        return [Unmeasured(name, reason, "audit a classifier with one label per example")]
    found: list[Measurement | Unmeasured] = [
        expected_calibration(r.task.likelihood, r.y, r.labels, r.held_out, r.loo_f, r.damping, r.estimator)
    ]
    log_p = None if r.test_f is None else r.task.likelihood.log_probabilities(r.test_f.double())
    if log_p is not None and r.test_y is not None:
        how = "calibration error on the test examples"
        found.append(calibration_error("generalisation.test_calibration", log_p, r.test_y, how))
    return found


def generalisation(r: Reading) -> Chapter:
    """The chapter."""
    law, n = r.task.likelihood, r.n
    nats = "nats per position" if r.sequence else "nats"
    positions = r.units / n
    train = float(r.loss.sum()) / r.units
    tic_gap = float(r.self_influence.mean()) / positions
    expected = expected_test_loss(
        r.task,
        r.y,
        r.loss,
        r.weight,
        held_out=r.held_out,
        labels=r.labels,
        damping=r.damping,
        loo_f=r.loo_f,
        loo_loss=r.loo_loss,
    )
    absurd = beyond_a_guess(law, r.f, r.y, r.loo_loss, r.loo_f)
    if absurd and r.held_out is None:
        expected = replace(expected, reliable=False, note=absurd)
    estimate, (low, high) = expected.value, expected.interval
    reliable = r.damping.reliable and not absurd
    expected_loss = Measurement(
        "generalisation.loo_estimate",
        estimate,
        nats,
        f"{expected.how}; {r.estimator}",
        n,
        (low, high),
        "rad2020",
        reliable=expected.reliable,
        note=expected.note,
    )
    # A loss of discrete labels is never negative; a density's may be, and so may a sequence's linearised mean.
    floor = -math.inf if r.sequence or law.continuous else 0.0
    measurements = [
        from_samples(
            "generalisation.train_loss",
            per_prediction(r.loss, by_example(r.weight)).tolist(),
            nats,
            "mean over training labels as given",
            lower=floor,
        ),
        Measurement(
            "generalisation.tic_gap",
            tic_gap,
            nats,
            f"tr((F+γI)⁻¹C)/N, γ={r.damping.value:.2g}; {r.estimator}",
            n,
            None,
            "takeuchi1976, thomas2020",
            reliable=reliable,
        ),
        Measurement(
            "generalisation.tic_estimate",
            train + tic_gap,
            nats,
            "training loss plus TIC gap, labels as given",
            n,
            None,
            "takeuchi1976",
            reliable=reliable,
        ),
        expected_loss,
        Measurement(
            "generalisation.loo_estimate_as_given",
            float(r.loo_loss.sum()) / r.units,
            nats,
            f"leave-one-out against the labels as given; {r.estimator}",
            n,
            None,
            reliable=reliable,
            note=absurd,
        ),
        Measurement(
            "damping",
            r.damping.value,
            "nats",
            r.damping.rule,
            n,
            reliable=r.damping.reliable,
            note=r.damping.statement,
        ),
    ]
    unmeasured: list[Unmeasured] = []
    findings: list[Finding] = []
    for found in _calibration(r):
        if isinstance(found, Measurement):
            measurements.append(found)
        else:
            unmeasured.append(found)
    verdict = ""
    if r.test_f is not None and r.test_y is not None:
        losses = law.nll(r.test_f.double(), r.test_y)
        count = law.weight(r.test_f, r.test_y)
        per = per_prediction(by_example(losses), by_example(count))
        measured = from_samples("generalisation.test_loss", per, nats, "mean over test examples", lower=floor)
        measurements.append(measured)
        if law.classifies:
            right = correct(law, r.test_f, r.test_y)
            of = torch.arange(len(right), device=right.device).reshape(-1, *[1] * (right.dim() - 1)).expand_as(right)
            groups = of[count > 0].cpu().numpy() if right.dim() > 1 else None  # positions of a sequence are one draw
            hits = right[count > 0].cpu()
            measurements.append(
                from_share("generalisation.test_accuracy", hits, "share right, test examples", groups=groups)
            )
        gap = _relative_error(expected_loss, measured)
        measurements.append(gap)
        verdict = f" Measured on {len(per):,} test examples: {measured.value:.3g} ({gap.value:+.0%})."
        told = f"{estimate:.3g} {nats} from training data alone, {measured.value:.3g} measured."
        findings.append(agreement(gap, ESTIMATE_OFF, told))
    else:
        unmeasured.append(
            Unmeasured(
                "generalisation.test_loss",
                "no test data were given",
                "pass test data to see the estimate checked",
            )
        )
        findings.append(
            Finding(
                "note",
                f"Expect a test loss of {max(low, floor):.2g} to {high:.2g} {nats}",
                f"Training loss {train:.2g}; without the examples {estimate:.2g}.",
                "Check on held-out data when there are any.",
                "generalisation",
                claims=(reliable_claim(expected_loss.name),),
            )
        )
    regression = explained(r)
    if regression is not None:  # a density's nats change with the targets' unit: no ratio of them is a verdict
        measurements = [m for m in measurements if m.name != "generalisation.loo_relative_error"]
        measurements += regression.measurements
        findings = [regression.finding] if regression.finding is not None else []
        verdict = regression.said
    figures = []
    if r.damping.grid:
        marks = ((r.damping.value, "chosen"),)
        target = [r.damping.target] * len(r.damping.grid)
        half = margin(r.damping.target_error)
        figures.append(
            Figure(
                "damping",
                "How the damping was chosen",
                "The leave-one-out estimate of the held-out examples' loss falls with the damping; it is chosen where it meets networks that really did not see them (95% band).",
                "damping γ (nats)",
                "loss (nats)",
                (
                    Series("leave-one-out estimate", list(r.damping.grid), list(r.damping.estimate)),
                    Series(
                        "held-out refits",
                        list(r.damping.grid),
                        target,
                        low=[t - half for t in target],
                        high=[t + half for t in target],
                    ),
                ),
                "log",
                "log",
                marks,
            )
        )
    if r.labels is None and not r.sequence:
        unmeasured.append(
            Unmeasured(
                "generalisation.true_label_estimate",
                "no model of wrong labels for this output law"
                if r.loo_f is not None
                else "too many outputs for leave-one-out outputs, by which labels are judged",
                "read the estimate against the labels as given",
            )
        )
    loss = (r.loss / positions).cpu().numpy()
    after = (r.loo_loss / positions).cpu().numpy()
    some = np.linspace(0, n - 1, min(n, 1000)).astype(int)
    text = [f"example {i}" for i in some]
    figures.append(
        Figure(
            "loo",
            "Every example without itself",
            "Training loss against leave-one-out loss: far above the diagonal is memorised.",
            "training loss (nats)",
            "leave-one-out loss (nats)",
            (
                Series(
                    "examples",
                    loss[some].clip(1e-6).tolist(),
                    after[some].clip(1e-6).tolist(),
                    "points",
                    text=text,
                ),
            ),
            "log",
            "log",
        )
    )
    findings.append(_damping(r))
    answer = (
        f"From training data alone: test loss {estimate:.3g} {nats} ({low:.2g} to {high:.2g}; {expected.how})."
        + verdict
    )
    return Chapter(
        "generalisation",
        "Generalisation",
        "Will it do as well on examples it has not seen?",
        answer,
        tuple(measurements),
        tuple(unmeasured),
        tuple(findings),
        tuple(figures),
        (),
        (r.damping.statement + ".",),
    )


def _relative_error(estimate: Measurement, measured: Measurement) -> Measurement:
    """Estimate over measurement, less one; the interval joins both on a logarithmic scale (Zou & Donner 2008)."""
    ends = of_independent_ratio(estimate.value, estimate.interval, measured.value, measured.interval)
    known = estimate.value > 0 and measured.value > 0
    return Measurement(
        "generalisation.loo_relative_error",
        estimate.value / measured.value - 1 if known else math.nan,
        "1",
        "loss expected without test data over measured test loss, less one",
        measured.n,
        None if ends is None else (ends[0] - 1, ends[1] - 1),
        "zou2008",
        reliable=estimate.reliable and measured.reliable and ends is not None,
        note=estimate.note if not estimate.reliable else measured.note if not measured.reliable else "",
    )


def _damping(r: Reading) -> Finding:
    """Spoken only where the damping says of itself that it is not to be trusted."""
    advice = (
        "Read leave-one-out numbers of single examples as a ranking."
        if r.held_out is not None or refit_of(r.task) is not None
        else "Pass a way to train again, Task(refit=...), and the damping is calibrated on examples left out."
    )
    return Finding(
        "warn",
        "The damping is not calibrated",
        r.damping.statement + ".",
        advice,
        "generalisation",
        claims=(unreliable("damping"),),
    )
