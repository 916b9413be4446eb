"""The contract of an output law, checked in float64 against its own negative log-likelihood and sampler."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.errors import LabelError
from memspace.task.law import Likelihood
from memspace.task.likelihood import law_from_dict, law_to_dict

__all__ = ["check_law"]

DRAWS = 10_000  # labels a position, for what is checked by sampling
ERRORS = 6.0  # standard errors that a mean over draws may be off
STEP = 1e-3  # of what is checked by differences, and by how much a second order may be off
EXACT = 1e-9  # relative, of what holds but for rounding
ROWS = 4  # outputs that are sampled from
GRID = 200_001  # levels of the quantile function for a quadrature


@dataclass(frozen=True)
class _Checked:
    """A law with outputs (n, C), their labels, and the same outputs in another order."""

    law: Likelihood
    f: Tensor
    y: Tensor
    other: Tensor

    def equal(self, found: Tensor, expected: Tensor, what: str, tolerance: float = EXACT) -> None:
        """Raise unless the two tensors are equal within a tolerance, relative to the larger of 1 and their size."""
        self.that(found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}, not {tuple(expected.shape)}")
        off = (found - expected).abs() / expected.abs().clamp_min(1.0)
        worst = float(off.max()) if off.numel() else 0.0
        self.that(worst <= tolerance, f"{what}: they differ by {worst:.2g}")

    def that(self, holds: bool, what: str) -> None:
        """Raise with the law's name and the sentence unless it holds."""
        if not holds:
            raise AssertionError(f"{type(self.law).__name__}: {what}")


def check_law(law: Likelihood, outputs: Tensor, labels: Tensor | None = None, *, seed: int = 0) -> None:
    """Check that an output law keeps its contract: density, derivatives, metric, distances, decisions, storage.

    Densities are summed or integrated where a label is a class or one number; expectations over labels are means over
    draws of the law's own sampler, within six standard errors.

    Args:
        law: the output law.
        outputs: (n, C) outputs of a network in the range that matters, at least two rows.
        labels: labels of these outputs; None: drawn from the law.
        seed: random seed of the draws.

    Raises:
        AssertionError: naming the first property that does not hold.
    """
    f = outputs.detach().double()
    generator = torch.Generator().manual_seed(seed)
    y = law.sample(f, generator) if labels is None else labels
    at = _Checked(law, f, y, f[torch.randperm(len(f), generator=generator)])
    for check in _CHECKS:
        check(at, generator.manual_seed(seed))  # no check depends on those before it


def _labels(at: _Checked, generator: torch.Generator) -> None:
    at.law.check(at.f, at.y, "labels")
    classes, log_p = at.law.classes(at.f.shape[-1]), at.law.log_probabilities(at.f)
    at.that((classes is None) == (log_p is None), "only one of classes and log_probabilities is there")
    nll = at.law.nll(at.f, at.y)
    at.that(nll.shape == at.f.shape[:-1], f"nll has shape {tuple(nll.shape)}, not one number a position")
    at.that(bool(torch.isfinite(nll).all()), "nll is not finite at the labels")
    floor = at.law.floor(at.f.shape[-1])
    at.that(float(nll.min()) >= floor - EXACT, f"nll is {float(nll.min()):.4g}, below its floor {floor:.4g}")
    excess = at.law.excess(at.f, at.y)
    constant = nll - excess
    at.equal(constant, constant[:1].expand_as(constant), "excess is not nll less a constant")
    try:
        at.law.check(at.f, at.y.double().new_full((len(at.f) + 1, 17), math.nan), "labels")
    except LabelError:
        return
    at.that(False, "check accepts labels of a wrong shape that are NaN")


def _normalised(at: _Checked, generator: torch.Generator) -> None:
    """The density sums to one where all labels can be gone through; its ratios have mean one under the sampler."""
    law, f = at.law, at.f[:ROWS]
    classes = law.classes(f.shape[-1])
    if classes is not None:
        every = torch.arange(classes).expand(len(f), -1)
        p = (-law.nll(f.unsqueeze(1).expand(-1, classes, -1), every)).exp().sum(-1)
        at.equal(p, torch.ones_like(p), "the probabilities of all classes do not sum to 1")
    elif f.shape[-1] == 1 and law.drawn(f) == tuple(f.shape):
        _integrated(at)
    f2 = f + 0.05 * torch.randn(f.shape, generator=generator, dtype=f.dtype)
    many, near = (t.unsqueeze(0).expand(DRAWS, *t.shape) for t in (f, f2))
    y = law.sample(many, generator)
    ratio = (law.nll(many, y) - law.nll(near, y)).exp()
    _mean_is(at, ratio, torch.ones_like(ratio[0]), "the ratio of two densities does not have mean 1 under the sampler")


def _integrated(at: _Checked) -> None:
    """Over labels from one end of the quantile function to the other; a density by trapezoids between quantiles."""
    ends = 36.0 if at.law.continuous else 25.0
    logits = torch.linspace(-ends, ends, GRID if at.law.continuous else 2, dtype=torch.float64)
    u = torch.sigmoid(logits).clamp(2.0**-53, 1 - 2.0**-53).unsqueeze(1)
    for row in at.f[:ROWS]:
        y = at.law.quantile(row.expand(len(u), 1), u)
        if not at.law.continuous:
            y = torch.arange(float(y.min()), float(y.max()) + 1, dtype=torch.float64).unsqueeze(1)
        density = (-at.law.nll(row.expand(len(y), 1), y)).exp()
        total = torch.trapezoid(density, y.squeeze(1)) if at.law.continuous else density.sum()
        at.equal(total, torch.ones_like(total), "the density does not sum to 1 over all labels", 1e-4)


def _mean_is(at: _Checked, draws: Tensor, expected: Tensor, what: str) -> None:
    error = draws.std(0) / math.sqrt(len(draws))
    off = (draws.mean(0) - expected).abs() - ERRORS * error - EXACT * expected.abs().clamp_min(1.0)
    at.that(bool((off <= 0).all()), f"{what}: it is off by {float((draws.mean(0) - expected).abs().max()):.2g}")


def _residual(at: _Checked, generator: torch.Generator) -> None:
    leaf = at.f.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(at.law.nll(leaf, at.y).sum(), leaf)
    at.equal(at.law.residual(at.f, at.y), gradient, "residual is not the gradient of nll")


def _fisher(at: _Checked, generator: torch.Generator) -> None:
    law, f = at.law, at.f[:ROWS]
    root = law.fisher_root(f)
    h = root @ root.mT
    many = f.unsqueeze(0).expand(DRAWS, *f.shape)
    score = law.residual(many, law.sample(many, generator))
    _mean_is(at, score, torch.zeros_like(f), "the residual does not have mean 0 under the sampler")
    outer = score.unsqueeze(-1) * score.unsqueeze(-2)
    _mean_is(at, outer, h, "S Sᵀ of fisher_root is not the mean of residual·residualᵀ under the sampler")
    v = torch.randn(f.shape, generator=generator, dtype=f.dtype)
    at.equal(law.fisher_matvec(f, v), (h @ v.unsqueeze(-1)).squeeze(-1), "fisher_matvec is not S Sᵀ u")
    merged = law.merged_root(f, 0.1)
    at.that(merged.shape[-1] == law.merged_columns(f, 0.1), "merged_columns does not count the columns of merged_root")
    lost = h - merged @ merged.mT
    at.that(float(torch.linalg.eigvalsh(lost).min()) >= -EXACT, "merged_root is above the Fisher information")
    trace = h.diagonal(dim1=-2, dim2=-1).sum(-1)
    at.that(
        bool((merged.square().sum((-2, -1)) >= 0.9 * trace - EXACT).all()),
        "merged_root loses more of the trace than its share",
    )


def _divergence(at: _Checked, generator: torch.Generator) -> None:
    law, f = at.law, at.f
    at.that(float(law.kl(f, at.other).min()) >= 0, "kl is negative")
    at.equal(law.kl(f, f), torch.zeros(len(f), dtype=f.dtype), "kl of a law with itself is not 0")
    v = STEP * torch.randn(f.shape, generator=generator, dtype=f.dtype)
    twice = law.kl(f, f + v) + law.kl(f, f - v)
    _second_order(at, twice, v, "kl is not half the Fisher information to second order")


def _second_order(at: _Checked, found: Tensor, v: Tensor, what: str) -> None:
    expected = (v * at.law.fisher_matvec(at.f, v)).sum(-1)
    scale = expected.clamp_min(1e-3 * float(expected.max()))
    worst = float(((found - expected).abs() / scale).max())
    at.that(worst <= 0.02, f"{what}: it is off by {worst:.1%}")


def _distance(at: _Checked, generator: torch.Generator) -> None:
    law, f, g = at.law, at.f, at.other
    h = f[torch.randperm(len(f), generator=generator)]
    there = law.distance(f, g)
    known = law.coordinates(f) is not None
    close = 1e-7 if known else 1e-2  # a search for the shortest path ends within the error of its polygon
    at.equal(there, law.distance(g, f), "distance is not symmetric", close)
    at.equal(law.distance(f, f), torch.zeros_like(there), "distance of a law to itself is not 0", 1e-7)
    at.equal(law.squared_distance(f, g), there.square(), "squared_distance is not the square of distance", close)
    triangle = law.distance(f, h) - there - law.distance(g, h)
    at.that(float(triangle.max()) <= close * (1 + float(there.max())), "distance breaks the triangle inequality")
    v = STEP * torch.randn(f.shape, generator=generator, dtype=f.dtype)
    _second_order(at, law.squared_distance(f, f + v), v, "squared_distance is not the Fisher metric to second order")
    leaf = f.clone().requires_grad_()
    (slope,) = torch.autograd.grad(law.squared_distance(f, leaf).sum(), leaf)
    at.equal(slope, torch.zeros_like(f), "squared_distance of a law to itself has no derivative 0", 1e-7)
    if known:
        pushed = torch.func.jvp(lambda z: _coordinates(law, z), (f,), (v,))[1]
        _second_order(at, pushed.square().sum(-1), v, "coordinates are not an isometry of the Fisher metric")


def _coordinates(law: Likelihood, f: Tensor) -> Tensor:
    phi = law.coordinates(f)
    assert phi is not None
    return phi


def _draws(at: _Checked, generator: torch.Generator) -> None:
    law, f = at.law, at.f[:ROWS]
    y = law.sample(f, generator)
    at.that(torch.equal(y, law.sample(f, generator.manual_seed(generator.initial_seed()))), "sample is not repeatable")
    law.check(f, y, "draws")
    many = f.unsqueeze(0).expand(DRAWS, *f.shape)
    drawn = law.sample(many, generator)
    mean, classes = law.mean(f), law.classes(f.shape[-1])
    if classes is not None:
        drawn = torch.nn.functional.one_hot(drawn, classes)
    at.that(drawn.shape[1:] == mean.shape, f"mean has shape {tuple(mean.shape)}, labels {tuple(drawn.shape[1:])}")
    _mean_is(at, drawn.double(), mean, "mean is not the mean of the sampler")
    tails = None if classes is not None else law.tails(y, f)
    if tails is not None:
        u = torch.rand(law.drawn(f), generator=generator, dtype=torch.float64)
        below, upto = law.tails(law.quantile(f, u), f) or tails
        inside = bool((below <= u + 1e-6).all()) and bool((upto >= u - 1e-6).all())
        at.that(inside, "tails at a quantile do not hold its level between them")


def _decisions(at: _Checked, generator: torch.Generator) -> None:
    law, f = at.law, at.f
    classes, log_p = law.classes(f.shape[-1]), law.log_probabilities(f)
    if log_p is not None:
        at.that(log_p.shape[-1] == classes, f"there are {classes} classes and {log_p.shape[-1]} log-probabilities")
        at.equal(law.predict(f), log_p.argmax(-1), "predict is not the likeliest class")
    decisions = law.decisions(f, at.y)
    if decisions is not None:
        log_p, chosen = decisions
        nll = -log_p.gather(-1, chosen.unsqueeze(-1)).squeeze(-1).sum(-1)
        at.equal(nll, law.nll(f, at.y), "the log-probabilities of the decisions do not add up to nll")
        total = log_p.exp().sum(-1)
        at.equal(total, torch.ones_like(total), "probabilities of a choice do not sum to 1")
    predicted = law.predict(f)
    if law.classifies:
        at.that(bool((law.hits(f, predicted) == 1).all()), "a label equal to the prediction is no hit")
    if law.gain_free:
        at.that(torch.equal(law.predict(3 * f), predicted), "predictions move with the outputs' gain")
    if law.shift_free:
        at.equal(law.nll(f + 3, at.y), law.nll(f, at.y), "the loss sees a shift of all outputs")
    if law.boundary is not None:
        at.that(bool((law.boundary.gaps(f, predicted) >= 0).all()), "a gap is negative at its own decision")
        at.that(bool((law.boundary.distance(f) >= 0).all()), "the distance to the boundary is negative")


def _constant(at: _Checked, generator: torch.Generator) -> None:
    law, f = at.law, at.f
    best = law.null_output(at.y, f.shape[-1])
    at.that(best.shape == f.shape[-1:], f"null_output has shape {tuple(best.shape)}, not one number an output")
    least = float(law.nll(best.to(f).expand_as(f), at.y).sum())
    for size in (1e-3, 0.1):
        moved = best.to(f) + size * torch.randn(best.shape, generator=generator, dtype=f.dtype)
        now = float(law.nll(moved.expand_as(f), at.y).sum())
        at.that(now >= least - 1e-6 * (1 + abs(least)), "a constant output is better than null_output")


def _stored(at: _Checked, generator: torch.Generator) -> None:
    law = at.law
    try:
        arguments = json.loads(json.dumps(law.arguments()))
    except TypeError as error:
        raise AssertionError(f"{type(law).__name__}: arguments are no plain JSON types: {error}") from error
    again = law_from_dict(json.loads(json.dumps(law_to_dict(law)))) or type(law).from_arguments(arguments)
    at.that(type(again) is type(law), f"it is stored and loaded again as {type(again).__name__}")
    at.equal(again.nll(at.f, at.y), law.nll(at.f, at.y), "nll changes when the law is stored and loaded again", 0.0)


_CHECKS: tuple[Callable[[_Checked, torch.Generator], None], ...] = (
    _labels,
    _normalised,
    _residual,
    _fisher,
    _divergence,
    _distance,
    _draws,
    _decisions,
    _constant,
    _stored,
)
