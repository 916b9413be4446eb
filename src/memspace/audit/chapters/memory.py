"""Chapter 3: capacity used, robustness to noise in the weights, and what can be cut."""

from __future__ import annotations

import math

import numpy as np
import torch

from memspace.audit.reading import Reading
from memspace.audit.results import Chapter, Figure, Finding, Series
from memspace.measurement import Measurement, Unmeasured, from_samples
from memspace.measures.complexity import LN2, information_bits
from memspace.measures.efficiency import PruningCurve, pruning_curve, smallest_share
from memspace.measures.robustness import NoiseCurve, departure, noise_curve, quantised, sigma_at_accuracy_loss
from memspace.passes.outputs import outputs
from memspace.progress import Progress

__all__ = ["capacity", "efficiency", "robustness"]

PREDICTED = (0.001, 0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0)
KEPT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
NOISE_EXAMPLES = 2000


def capacity(r: Reading, tables: dict[str, dict[str, object]]) -> Chapter:
    """Bits used, by layer and by example."""
    g, n = r.damping.value, r.n
    bits = information_bits(r.metric, g)
    by_layer = (r.layer_trace(lambda x: torch.log1p(x / g)) / (2 * LN2)).tolist()
    names = r.space.labels
    sizes = [b.size for b in r.space.blocks]
    tables["layers"]["bits"] = by_layer
    tables["layers"]["effective_parameters"] = r.layer_trace(lambda x: x / (x + g)).tolist()
    tables["layers"]["self_influence"] = r.parts.sum(0).tolist()
    measurements = [
        Measurement("capacity.bits_used", bits, "bits", r.estimator, n, None, "MacKay 1992"),
        Measurement("capacity.bits_per_parameter", bits / r.space.size, "bits", r.estimator, n),
        Measurement("capacity.bits_per_example", bits / n, "bits", r.estimator, n),
    ]
    unmeasured = [
        Unmeasured(
            "capacity.left",
            "the bits of random labels this architecture can store are not measured in an audit",
            "train copies on random labels and take the plateau",
        )
    ]
    figures = [
        Figure(
            "bits-by-layer",
            "Where the bits are",
            "Bits used by each layer; the parts sum to the whole.",
            "layer",
            "bits",
            (Series("bits", names, by_layer, "bar"),),
        )
    ]
    if r.leverage is not None:
        root = r.task.likelihood.fisher_root(r.f.double())
        held = root.transpose(1, 2) @ r.leverage @ root
        eye = torch.eye(held.shape[1], dtype=held.dtype, device=held.device)
        each = -0.5 * torch.linalg.slogdet(eye - held).logabsdet / LN2
        tables["examples"]["leverage"] = held.diagonal(dim1=1, dim2=2).sum(-1).tolist()
        tables["examples"]["bits"] = each.tolist()
        measurements.append(
            from_samples(
                "capacity.bits_given_the_rest",
                each.tolist(),
                "bits",
                "−½ log2 det(I − SᵀVS) per example: what each adds to all others",
                source="Cook & Weisberg 1982 (leverage)",
            )
        )
        order = each.sort(descending=True).values
        share = np.cumsum(order.cpu().numpy()) / max(float(order.sum()), 1e-300)
        at = np.unique(np.linspace(0, n - 1, min(n, 200)).astype(int))
        half = int(np.searchsorted(share, 0.5)) + 1
        figures.append(
            Figure(
                "bits-by-example",
                "Who takes the room",
                "Share of the per-example bits held by the most demanding examples.",
                "share of examples",
                "share of bits",
                (Series("bits", ((at + 1) / n).tolist(), share[at].tolist()),),
            )
        )
        extra = f" Half of what examples add one by one belongs to {half / n:.0%} of them."
    else:
        unmeasured.append(
            Unmeasured(
                "capacity.bits_given_the_rest",
                "leverage matrices of sequences are out of reach here",
                "use the self-influence of the chapter on what is stored",
            )
        )
        extra = ""
    top = int(np.argmax(np.asarray(by_layer) / np.asarray(sizes)))
    idle = int(np.argmin(np.asarray(by_layer) / np.asarray(sizes)))
    findings = (
        Finding(
            "note",
            f"{names[top]} is the fullest layer, {names[idle]} the emptiest",
            f"{by_layer[top] / sizes[top]:.2g} against {by_layer[idle] / sizes[idle]:.2g} bits per parameter.",
            f"If the network must grow, widen {names[top]}; if it must shrink, start with {names[idle]}.",
            "capacity",
        ),
    )
    answer = f"{bits:,.0f} bits are in use, {bits / n:.2g} per training example and {bits / r.space.size:.2g} per parameter.{extra}"
    return Chapter(
        "capacity",
        "Capacity",
        "How full is the memory, and with what?",
        answer,
        tuple(measurements),
        tuple(unmeasured),
        findings,
        tuple(figures),
    )


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


def robustness(r: Reading, seed: int, progress: Progress) -> Chapter:
    """Noise in the weights and rounding of the weights, predicted and measured."""
    task, law = r.task, r.task.likelihood
    generator = torch.Generator().manual_seed(seed + 7)
    index = torch.randperm(r.n, generator=generator)[:NOISE_EXAMPLES].sort().values
    trace = float(r.trace[index.to(r.trace.device)].mean()) if r.trace is not None else r.mean_trace[0]
    c = noise_curve(
        task,
        r.space,
        trace,
        index=index,
        predicted=PREDICTED,
        pairs=64 if len(index) < NOISE_EXAMPLES else 8,
        seed=seed + 8,
        progress=progress,
    )
    off, sigma = departure(c), sigma_at_accuracy_loss(c)
    how = f"{c.draws} antithetic draws"
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
            Measurement("robustness.sigma_one_percent", sigma, "weight units", f"σ that costs 1% accuracy; {how}", c.n)
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
    theta = r.space.flat(task.model)
    data, word = (task.test, "test") if task.test is not None else (task.train, "training")
    base, y = outputs(task, data)
    base_accuracy = float((law.predict(base) == y).double().mean()) if law.classifies else math.nan
    costs = {}
    for bits in (8, 4):
        state = quantised(task, bits)
        full = {k: p.detach() for k, p in task.model.named_parameters() if p.requires_grad} | state
        delta = (r.space.pack(full) - theta).double()
        predicted = 0.5 * float((delta * delta * r.diagonal.to(delta)).sum())
        moved, _ = outputs(task, task.train, state=state, index=index)
        before, _ = outputs(task, task.train, index=index)
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
    said = (
        f"it departs by more than 10% beyond {off:.2g} nats"
        if off is not None
        else "it holds over the whole range tried"
    )
    answer = (
        f"A noise of σ = {sigma:.2g} on every weight costs 1% accuracy. " if sigma is not None else ""
    ) + f"The second-order prediction is {ratio[2]:.2f} of measurement's inverse at {PREDICTED[2]} nats; {said}."
    answer = answer.replace(
        f"is {ratio[2]:.2f} of measurement's inverse at",
        f"meets measurement at a ratio of {ratio[2]:.2f} for",
    )
    return Chapter(
        "robustness",
        "Robustness",
        "How much may the weights move before the memory suffers?",
        answer,
        tuple(measurements),
        tuple(unmeasured),
        tuple(findings),
        tuple(_noise_figures(c, off, law.classifies)),
    )


def efficiency(r: Reading, progress: Progress) -> Chapter:
    """Accuracy against weights kept."""
    task = r.task
    data, word = (task.test, "test") if task.test is not None else (task.train, "training")
    index = torch.arange(min(len(data), 10_000))
    theta = r.space.flat(task.model)
    saliency = {"magnitude": theta.abs(), "Fisher (OBD)": 0.5 * r.diagonal.to(theta) * theta.square()}
    curves = [
        pruning_curve(task, r.space, s, name, data=data, index=index, kept=KEPT, progress=progress)
        for name, s in saliency.items()
    ]
    measurements, series = [], []
    classifies = task.likelihood.classifies
    for c in curves:
        key = "magnitude" if c.method == "magnitude" else "fisher"
        value, error = (c.accuracy, c.accuracy_error) if classifies else (c.loss, c.loss_error)
        series.append(
            Series(
                c.method,
                c.kept.tolist(),
                value.tolist(),
                low=(value - 1.96 * error).tolist(),
                high=(value + 1.96 * error).tolist(),
            )
        )
        least = smallest_share(c)
        if least is not None:
            measurements.append(
                Measurement(
                    f"efficiency.{key}.smallest_share",
                    least,
                    "1",
                    f"smallest share of weights kept within 1% of the {word} accuracy, on a grid of {len(KEPT)}, no retraining",
                    c.n,
                    None,
                    "LeCun et al. 1990" if key == "fisher" else "",
                )
            )
        for share in (0.5, 0.2, 0.1):
            k = KEPT.index(share)
            measurements.append(
                Measurement(
                    f"efficiency.{key}.{'accuracy' if classifies else 'loss'}_at_{int(100 * share)}",
                    float(value[k]),
                    "1" if classifies else "nats",
                    f"{word} data, pruned copy",
                    c.n,
                    (float(value[k] - 1.96 * error[k]), float(value[k] + 1.96 * error[k])),
                )
            )
    figure = Figure(
        "pruning",
        "What can be cut",
        f"{word.capitalize()} {'accuracy' if classifies else 'loss'} of a copy with the least salient weights set to zero, 95% band.",
        "share of weights kept",
        "accuracy" if classifies else "loss (nats)",
        tuple(series),
    )
    unmeasured: tuple[Unmeasured, ...] = ()
    findings: tuple[Finding, ...] = ()
    if classifies:
        shares = {c.method: smallest_share(c) or 1.0 for c in curves}
        best = min(shares, key=lambda k: shares[k])
        cut = 1 - shares[best]
        findings = (
            Finding(
                "good" if cut >= 0.3 else "note",
                f"{cut:.0%} of the weights can go",
                f"By {best}, without retraining, within 1% of the {word} accuracy ({', '.join(f'{k}: keep {v:.0%}' for k, v in shares.items())}).",
                f"Prune {cut:.0%} by {best}." if cut > 0 else "Do not prune without retraining.",
                "efficiency",
            ),
        )
        answer = f"{cut:.0%} of the weights can be set to zero at a cost below 1% {word} accuracy, chosen by {best}."
    else:
        unmeasured = (
            Unmeasured(
                "efficiency.smallest_share",
                "the output law has no classes, so no accuracy",
                "read the loss curve",
            ),
        )
        answer = "See how the loss rises as weights are set to zero."
    return Chapter(
        "efficiency",
        "Efficiency",
        "What can be cut?",
        answer,
        tuple(measurements),
        unmeasured,
        findings,
        (figure,),
    )


_ = PruningCurve
