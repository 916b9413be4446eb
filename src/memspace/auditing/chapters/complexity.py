"""Chapter 2: complexity, in four readings."""

from __future__ import annotations

import math

import numpy as np
import torch

from memspace.attempt import attempt
from memspace.auditing.claims import above, below
from memspace.auditing.reading import Reading
from memspace.auditing.results import Chapter, Figure, Finding, Series
from memspace.auditing.stages import Facts, Stage
from memspace.auditing.thresholds import LABELS_COMPRESSED
from memspace.geometry.distance import output_distance
from memspace.intervals import around
from memspace.measurement import Measurement, Unmeasured, from_samples
from memspace.measures.complexity import LN2, description_bits, fisher_rao_norm, gain_curve, information_bits
from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.progress import Progress
from memspace.task.likelihood import Gaussian

__all__ = ["complexity"]

NORM_EXAMPLES = 5000
SAVED = "complexity.labels_compressed"
GAINS = np.logspace(-1, 1, 21)


def complexity(r: Reading, seed: int, progress: Progress) -> Chapter:
    """The chapter."""
    task, law, n = r.task, r.task.likelihood, r.n
    theta = r.space.flat(task.model)
    generator = torch.Generator().manual_seed(seed + 6)
    index = torch.randperm(n, generator=generator)[:NORM_EXAMPLES].sort().values
    moved = attempt("complexity.fisher_rao", lambda: FisherOperator(task, r.space, index=index).directional(theta))
    g = r.damping.value
    metric = r.metric
    grid = np.logspace(math.log10(g) - 3, math.log10(g) + 3, 25)
    bits_curve = [information_bits(metric, float(x)) for x in grid]
    dimension_curve = [metric.effective_dimension(float(x)).value for x in grid]
    bits, dimension = information_bits(metric, g), metric.effective_dimension(g).value
    mean_loss = float(r.loss.mean())
    residual, prior, information = description_bits(mean_loss, n, theta, metric, g)
    null = law.null_output(r.y.cpu(), r.f.shape[-1]).to(r.f)
    null_f = null.expand(*r.f.shape)
    null_bits = float(law.nll(null_f.double(), r.y).sum()) / LN2
    how = r.estimator
    source = "mackay1992"
    low, high = sorted((information_bits(metric, g * 2), information_bits(metric, g / 2)))
    d_low, d_high = sorted((metric.effective_dimension(g * 2).value, metric.effective_dimension(g / 2).value))
    total = residual + prior + information
    d_null = output_distance(law, null_f, r.f, r.weight)
    measurements = [
        *([] if isinstance(moved, Unmeasured) else _norms(r, moved)),
        Measurement(
            "complexity.information",
            bits,
            "bits",
            f"½ Σ log2(1+λ/γ), γ={g:.2g}; {how}",
            n,
            None,
            source,
            reliable=r.damping.found,
            note=f"exact for this metric and γ; {low:.3g} to {high:.3g} with γ doubled and halved",
        ),
        Measurement(
            "complexity.effective_parameters",
            dimension,
            "1",
            f"Σ λ/(λ+γ), γ={g:.2g}; {how}",
            n,
            None,
            source,
            reliable=r.damping.found,
            note=f"exact for this metric and γ; {d_low:.3g} to {d_high:.3g} with γ doubled and halved",
        ),
        Measurement(
            "complexity.distance_from_null",
            d_null[0],
            "nats^½",
            "ambient Fisher–Rao distance to the class prior (lower bound of the geodesic)",
            n,
            around(*d_null, lower=0.0),
            "rao1945",
        ),
        Measurement(
            "complexity.description_length",
            total,
            "bits",
            f"Laplace evidence code: residual {residual:.0f} + weights {prior:.0f} + precision {information:.0f}",
            n,
            None,
            "mackay1992, rissanen1996",
            reliable=r.damping.found,
        ),
        Measurement("complexity.null_code", null_bits, "bits", "labels sent with the class prior alone", n),
    ]
    unmeasured = [
        *([moved] if isinstance(moved, Unmeasured) else []),
        Unmeasured(
            "complexity.geodesic",
            "the geodesic itself needs a path optimisation",
            "the ambient distance beside it is a lower bound, the training path of the action chapter an upper bound",
        ),
    ]
    if task.run is not None:
        start, _ = outputs(task, task.train, state=task.run.states[0])
        d = output_distance(law, start, r.f, r.weight)
        measurements.append(
            Measurement(
                "complexity.distance_from_initialisation",
                d[0],
                "nats^½",
                "ambient Fisher–Rao distance (lower bound of the geodesic)",
                n,
                around(*d, lower=0.0),
                "rao1945",
            )
        )
    else:
        unmeasured.append(
            Unmeasured(
                "complexity.distance_from_initialisation",
                "the initialisation is not known",
                "hand over the recorded checkpoints: Task(run=...)",
            )
        )
    gains = (
        gain_curve(law, moved["f"], moved["y"], moved["moved"], GAINS)
        if law.name in ("categorical", "bernoulli") and not isinstance(moved, Unmeasured)
        else None
    )
    figures = [
        Figure(
            "damping-effect",
            "What the damping does",
            "Information held and effective parameters against the damping; the line marks the damping used.",
            "damping γ (nats)",
            "bits, parameters",
            (
                Series("information (bits)", grid.tolist(), bits_curve),
                Series("effective parameters", grid.tolist(), dimension_curve),
            ),
            "log",
            "log",
            ((g, "used"),),
        ),
    ]
    if gains is not None:
        span = float(gains.max() / max(gains.min(), 1e-300))
        measurements.append(
            Measurement(
                "complexity.gain_nuisance_range",
                span,
                "1",
                "largest over smallest θᵀFθ while the last layer's gain runs over 0.1..10 at unchanged accuracy",
                len(index),
            )
        )
        figures.append(
            Figure(
                "gain",
                "The gain trap",
                "Multiplying the last layer changes no prediction, yet moves the Fisher–Rao norm this far: compare networks only at matched cross-entropy.",
                "gain of the last layer",
                "θᵀFθ (nats)",
                (Series("Fisher–Rao norm", GAINS.tolist(), gains.tolist()),),
                "log",
                "log",
                ((1.0, "as trained"),),
            )
        )
    saved = 1 - total / null_bits if null_bits > 0 else math.nan
    title = f"Describing the labels takes {saved:.0%} fewer bits with the network than without"
    evidence = f"{total:,.0f} bits with the network, its own cost included; {null_bits:,.0f} bits by frequencies alone."
    if isinstance(law, Gaussian):
        saved, evidence = _explained_net(r, law, prior, information)
        title = f"After paying for its weights the network explains {saved:.0%} of the targets' variance"
    findings: tuple[Finding, ...] = ()
    if math.isfinite(saved):
        how = "share saved of what the labels cost without a network, after paying for the network's weights"
        note = "exact for these data and this damping"
        measurements.append(Measurement(SAVED, saved, "1", how, n, reliable=r.damping.reliable, note=note))
        findings = (_compression(saved, title, evidence),)
    answer = f"At the chosen damping it holds {bits:,.0f} bits in {dimension:,.0f} effective parameters of {r.space.size:,}, {bits / r.space.size:.2g} bits per parameter."
    return Chapter(
        "complexity",
        "Complexity",
        "How much has the network taken in, counted four ways?",
        answer,
        tuple(measurements),
        tuple(unmeasured),
        findings,
        tuple(figures),
        (),
        (r.damping.statement + ".",),
    )


def _norms(r: Reading, moved: dict[str, torch.Tensor]) -> list[Measurement]:
    exact, empirical = fisher_rao_norm(r.task.likelihood, moved["f"], moved["y"], moved["moved"])
    how = "θᵀFθ, exact Fisher information, one forward-mode pass"
    of_labels = "training labels (empirical form): not the Fisher information"
    source, name = "liang2019", "complexity.fisher_rao"
    return [
        from_samples(name, exact.tolist(), "nats", how, lower=0.0, source=source),
        from_samples(f"{name}.empirical", empirical.tolist(), "nats", of_labels, lower=0.0, source=f"{source} [eq. 8]"),
    ]


def _compression(saved: float, title: str, evidence: str) -> Finding:
    warn = Finding(
        "warn",
        "The network costs more bits than it saves on its labels",
        evidence,
        "It stores examples one by one rather than a rule for them: try more data, stronger decay or a smaller network.",
        "complexity",
        claims=(below(SAVED, 0.0),),
    )
    level = "good" if saved > LABELS_COMPRESSED else "note"
    return Finding(level, title, evidence, "Nothing to do.", "complexity", claims=(above(SAVED, 0.0),), otherwise=warn)


def costs(facts: Facts) -> list[Stage]:
    """One product with the weights, and the outputs of the initialisation where it was recorded."""
    stages = [Stage("Fisher–Rao norm", min(facts.n, NORM_EXAMPLES), 1, 0, 0, "complexity")]
    if facts.checkpoints:
        stages.append(Stage("initialisation", facts.n, 1, 0, 0, "distance travelled"))
    return stages


def _explained_net(r: Reading, law: Gaussian, prior: float, information: float) -> tuple[float, str]:
    """What a Gaussian network saves as a code of its targets, as a share of their variance: 1 − 4^(−bits saved a target).

    Both codes are taken at the σ that suits them best, so that neither the targets' unit nor the law's σ matters;
    without weights to pay for it would be R².
    """
    residual = (r.y.double() - r.f.double()).reshape(-1, r.y.shape[-1])
    targets = r.y.double().reshape(-1, r.y.shape[-1])
    own, null = residual.square().mean(0), targets.var(0, correction=0)
    if not bool((null > 0).all()):
        return 0.0, "The targets do not vary."
    own = torch.maximum(own, 1e-12 * null)
    given = law.scale(own).expand(len(own)).square()
    bits = 0.5 * len(targets) * float(torch.log2(null / own).sum())
    cost = information + prior * float((given / own).log().mean().exp())
    saved = (bits - cost) / targets.numel()
    share = 1 - 4.0 ** -min(max(saved, -50.0), 500.0)
    return share, f"{bits:,.0f} bits saved on the targets, {cost:,.0f} bits for the network's own weights."
