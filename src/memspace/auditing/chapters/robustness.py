"""Chapter 3b: how far the weights may move: random noise and rounding, predicted and measured. Inputs: ``inputs``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from memspace.attempt import attempt
from memspace.auditing.chapters.inputs import InputPart, input_costs, input_part
from memspace.auditing.chapters.rounding import rounding_costs, rounding_part
from memspace.auditing.reading import Reading
from memspace.auditing.results import Chapter, Figure, Series
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.cost import Facts, Stage
from memspace.measures.robustness import NoiseCurve, departure, noise_curve, sigma_at_accuracy_loss
from memspace.progress import Progress

__all__ = ["robustness"]

PREDICTED = (0.001, 0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0)
NOISE_EXAMPLES = 2000


def _noise_figures(c: NoiseCurve, off: float | None, classifies: bool) -> list[Figure]:
    marks = () if off is None else ((float(np.sqrt(off / c.predicted[0]) * c.sigma[0]), "second order is 10% off"),)
    half = c.kl_margin
    band = (c.kl - half).clip(1e-12), c.kl + half
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
        a, e = c.accuracy, c.accuracy_margin
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


def robustness(r: Reading, seed: int, progress: Progress) -> Chapter:
    """Noise in the weights, rounding of the weights, and inputs moved; each predicted and measured."""
    generator = torch.Generator().manual_seed(seed + 7)
    index = torch.randperm(r.n, generator=generator)[:NOISE_EXAMPLES].sort().values
    noise = attempt("robustness.weight_noise", lambda: _noise_part(r, index, seed, progress))
    rounded = attempt("robustness.rounding", lambda: rounding_part(r, index, progress))
    inputs = attempt("robustness.inputs", lambda: input_part(r, seed, progress))
    absent = tuple(part for part in (noise, rounded, inputs) if isinstance(part, Unmeasured))
    noise = _Noise() if isinstance(noise, Unmeasured) else noise
    inputs = InputPart((), ()) if isinstance(inputs, Unmeasured) else inputs
    measured, findings, by_layer = ([], [], []) if isinstance(rounded, Unmeasured) else rounded
    return Chapter(
        "robustness",
        "Robustness",
        "How much may weights and inputs move before the memory suffers?",
        noise.said + inputs.said,
        (*noise.measurements, *measured, *inputs.measurements),
        (*absent, *noise.unmeasured, *inputs.unmeasured),
        (*findings, *inputs.findings),
        (*noise.figures, *by_layer, *inputs.figures),
        inputs.galleries,
    )


@dataclass(frozen=True)
class _Noise:
    """What the chapter says about noise in the weights."""

    measurements: tuple[Measurement, ...] = ()
    unmeasured: tuple[Unmeasured, ...] = ()
    figures: tuple[Figure, ...] = ()
    said: str = "What noise in the weights costs could not be measured."


def _noise_part(r: Reading, index: torch.Tensor, seed: int, progress: Progress) -> _Noise:
    task, law = r.task, r.task.likelihood
    trace = float(r.trace[index.to(r.trace.device)].mean()) if r.trace is not None else r.mean_trace[0]
    c = noise_curve(
        task,
        r.space,
        trace,
        exact_trace=r.trace is not None,
        index=index,
        predicted=PREDICTED,
        pairs=_pairs(len(index)),
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
                max(0.0, float((c.kl[2] - c.kl_margin[2]) / c.predicted[2])),
                float((c.kl[2] + c.kl_margin[2]) / c.predicted[2]),
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
    said = (
        f"the two differ by more than 10% where more than {off:.2g} nats are predicted"
        if off is not None
        else "the two agree over the whole range tried"
    )
    bears = f"A noise of σ = {sigma:.2g} on every weight costs 1% accuracy. " if sigma is not None else ""
    answer = (
        f"{bears}At a predicted {PREDICTED[2]} nats the measured divergence is {ratio[2]:.2f} times the "
        f"second-order prediction; {said}."
    )
    figures = tuple(_noise_figures(c, off, law.classifies))
    return _Noise(tuple(measurements), tuple(unmeasured), figures, answer)


def costs(facts: Facts) -> list[Stage]:
    """Noise in the weights; rounding and inputs state their own."""
    m = min(facts.n, NOISE_EXAMPLES)
    pairs = _pairs(m)
    products = 0 if facts.first_order else pairs  # the control variate's
    forwards = 2 * len(PREDICTED) * pairs + products + 2
    noise = Stage("weight noise", m, forwards, 0, 0, "predicted against measured degradation")
    return [noise, *rounding_costs(facts), *input_costs(facts)]


def _pairs(examples: int) -> int:
    return 64 if examples < NOISE_EXAMPLES else 8
