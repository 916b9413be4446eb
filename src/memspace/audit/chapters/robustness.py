"""Chapter 3b: how far the weights may move: random noise and rounding, predicted and measured. Inputs: ``inputs``."""

from __future__ import annotations

import math

import numpy as np
import torch

from memspace.audit.chapters.inputs import input_part
from memspace.audit.reading import Reading
from memspace.audit.results import Chapter, Figure, Finding, Series
from memspace.measurement import Measurement, Unmeasured, from_samples
from memspace.measures.robustness import NoiseCurve, departure, noise_curve, quantised, sigma_at_accuracy_loss
from memspace.passes.outputs import outputs
from memspace.progress import Progress

__all__ = ["robustness"]

PREDICTED = (0.001, 0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0)
NOISE_EXAMPLES = 2000


def _noise_figures(c: NoiseCurve, off: float | None, classifies: bool) -> list[Figure]:
    marks = () if off is None else ((float(np.sqrt(off / c.predicted[0]) * c.sigma[0]), "second order is 10% off"),)
    band = (c.kl - 1.96 * c.kl_error).clip(1e-12), c.kl + 1.96 * c.kl_error
    figures = [
        Figure(
            "weight-noise",
            "Weight noise: predicted and measured",
            "KL from the network to its noisy copy: ½σ² tr F against measurement with a 95% band.",
            "σ of the noise",
            "KL (nats)",
            (
                Series("predicted ½σ² tr F", c.sigma.tolist(), c.predicted.tolist()),
                Series("measured", c.sigma.tolist(), c.kl.tolist(), low=band[0].tolist(), high=band[1].tolist()),
            ),
            "log",
            "log",
            marks,
        )
    ]
    if classifies:
        a, e = c.accuracy, 1.96 * c.accuracy_error
        figures.append(
            Figure(
                "noise-accuracy",
                "Accuracy under weight noise",
                f"Mean over {c.draws} draws with a 95% band.",
                "σ of the noise",
                "accuracy",
                (Series("accuracy", c.sigma.tolist(), a.tolist(), low=(a - e).tolist(), high=(a + e).tolist()),),
                "log",
            )
        )
    return figures


def _rounding(r: Reading, index: torch.Tensor) -> tuple[list[Measurement], list[Finding]]:
    """Weights rounded to 8 and 4 bits: divergence predicted from the Fisher diagonal and measured, and accuracy."""
    task, law = r.task, r.task.likelihood
    measurements: list[Measurement] = []
    theta = r.space.flat(task.model)
    data, word = (task.test, "test") if task.test is not None else (task.train, "training")
    base, y = outputs(task, data)
    base_accuracy = float((law.predict(base) == y).double().mean()) if law.classifies else math.nan
    costs = {}
    before, _ = outputs(task, task.train, index=index)
    for bits in (8, 4):
        state = quantised(task, r.space, bits)
        full = {k: p.detach() for k, p in r.space.parameters(task.model).items()} | state
        delta = (r.space.pack(full) - theta).double()
        predicted = 0.5 * float((delta * delta * r.diagonal.to(delta)).sum())
        moved, _ = outputs(task, task.train, state=state, index=index)
        kl = (
            law.kl(before.double(), moved.double()).flatten(1).sum(1)
            if r.sequence
            else law.kl(before.double(), moved.double())
        )
        measurements.append(
            Measurement(
                f"robustness.quantised_{bits}bit.kl_predicted",
                predicted,
                "nats",
                "½ Σ F_ii Δ_i² from the Fisher diagonal",
                r.n,
            )
        )
        measurements.append(
            from_samples(
                f"robustness.quantised_{bits}bit.kl",
                kl.tolist(),
                "nats",
                f"weights rounded to {bits} bits, one scale per row",
            )
        )
        if law.classifies:
            f, _ = outputs(task, data, state=state)
            hit = (law.predict(f) == y).double()
            was = (law.predict(base) == y).double()
            change = (hit - was).flatten(1).mean(1) if hit.dim() > 1 else hit - was
            measurements.append(
                from_samples(
                    f"robustness.quantised_{bits}bit.accuracy_change",
                    change.tolist(),
                    "1",
                    f"{word} accuracy of the rounded network less the original's, paired",
                )
            )
            costs[bits] = float(change.mean())
    findings = []
    if costs:
        safe = [b for b in (4, 8) if costs[b] > -0.01]
        findings.append(
            Finding(
                "good" if safe else "warn",
                f"Weights can be stored in {min(safe)} bits"
                if safe
                else "Rounding to 8 bits costs more than 1% accuracy",
                f"{word} accuracy {base_accuracy:.1%}; change {costs[8]:+.2%} at 8 bits, {costs[4]:+.2%} at 4 bits.",
                f"Quantise to {min(safe)} bits." if safe else "Keep full precision, or fine-tune after rounding.",
                "robustness",
            )
        )
    return measurements, findings


def robustness(r: Reading, seed: int, progress: Progress) -> Chapter:
    """Noise in the weights, rounding of the weights, and inputs moved; each predicted and measured."""
    task, law = r.task, r.task.likelihood
    generator = torch.Generator().manual_seed(seed + 7)
    index = torch.randperm(r.n, generator=generator)[:NOISE_EXAMPLES].sort().values
    trace = float(r.trace[index.to(r.trace.device)].mean()) if r.trace is not None else r.mean_trace[0]
    c = noise_curve(
        task,
        r.space,
        trace,
        exact_trace=r.trace is not None,
        index=index,
        predicted=PREDICTED,
        pairs=64 if len(index) < NOISE_EXAMPLES else 8,
        seed=seed + 8,
        progress=progress,
    )
    where, fall = departure(c), sigma_at_accuracy_loss(c)
    off, sigma = where.value, None if fall is None else fall[0]
    how = f"{c.draws} antithetic draws" + (", ½σ² εᵀFε as control variate" if r.trace is not None else "")
    ratio = c.kl / c.predicted
    measurements = [
        Measurement(
            "robustness.kl_ratio_small",
            float(ratio[2]),
            "1",
            f"measured over predicted KL at {PREDICTED[2]} nats; {how}",
            c.n,
            (
                float((c.kl[2] - 1.96 * c.kl_error[2]) / c.predicted[2]),
                float((c.kl[2] + 1.96 * c.kl_error[2]) / c.predicted[2]),
            ),
        ),
    ]
    unmeasured = []
    if off is not None:
        measurements.append(
            Measurement(
                "robustness.second_order_limit",
                off,
                "nats",
                f"predicted KL beyond which prediction and measurement differ by more than 10%; {how}",
                c.n,
                (where.low, min(where.high, PREDICTED[-1])),
                reliable=math.isfinite(where.high),
                note="" if math.isfinite(where.high) else "within its error the two agree over the whole range",
            )
        )
    else:
        unmeasured.append(
            Unmeasured(
                "robustness.second_order_limit",
                f"prediction and measurement agree within 10% up to {PREDICTED[-1]} nats",
                "raise the noise further",
            )
        )
    if law.classifies and sigma is not None:
        measurements.append(
            Measurement(
                "robustness.sigma_one_percent",
                sigma,
                "weight units",
                f"σ that costs 1% accuracy; {c.draws} antithetic draws",
                c.n,
                None if fall is None else fall[1],
                reliable=fall is not None and fall[1] is not None,
                note="" if fall is not None and fall[1] is not None else "its interval leaves the range tried",
            )
        )
    else:
        unmeasured.append(
            Unmeasured(
                "robustness.sigma_one_percent",
                "accuracy does not fall by 1% within the noise tried"
                if law.classifies
                else "the output law has no classes",
                "raise the noise further" if law.classifies else "read the loss instead",
            )
        )
    rounded, findings = _rounding(r, index)
    measurements += rounded
    said = (
        f"it departs by more than 10% beyond {off:.2g} nats"
        if off is not None
        else "it holds over the whole range tried"
    )
    bears = f"A noise of σ = {sigma:.2g} on every weight costs 1% accuracy. " if sigma is not None else ""
    answer = (
        f"{bears}At a predicted {PREDICTED[2]} nats the measured divergence is {ratio[2]:.2f} times the "
        f"second-order prediction; {said}."
    )
    inputs = input_part(r, seed, progress)
    return Chapter(
        "robustness",
        "Robustness",
        "How much may weights and inputs move before the memory suffers?",
        answer + inputs.said,
        (*measurements, *inputs.measurements),
        (*unmeasured, *inputs.unmeasured),
        (*findings, *inputs.findings),
        (*_noise_figures(c, off, law.classifies), *inputs.figures),
        inputs.galleries,
    )
