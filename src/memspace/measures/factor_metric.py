"""The Fisher metric of an encoder, a decoder or a classifier, pulled back to known factors: pairs as a matrix.

g_ab tells how well small changes of factors a and b are told apart by what the network gives. Every metric here is a
Gram matrix of *seen* directions, in coordinates in which the output law is isotropic: Sᵀ ∂_a f with H = S Sᵀ for
outputs f, and (∂_a μ/√s, ∂_a s/√2 s) for a normal posterior. All is taken at each input, then averaged: averaging g
first would hide that factors mix in one place and unmix in another.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.errors import ShapeError
from memspace.geometry.factor_loop import STEP, Network, Render, differences, read_at
from memspace.measures.alignment import NEGLIGIBLE, orthogonality, random_cosine
from memspace.task.likelihood import Likelihood
from memspace.value import Absent, Value

__all__ = [
    "Encoder",
    "FactorDirections",
    "commutator",
    "cosines",
    "encoder_directions",
    "gaussian_metric",
    "interference",
    "joint_efficiency",
    "orthogonality_value",
    "output_directions",
    "pair_values",
]

Encoder = Callable[[Tensor], tuple[Tensor, Tensor]]  # inputs → mean (B, d) and variance (B, d) or covariance (B, d, d)


@dataclass(frozen=True)
class FactorDirections:
    """Directions of factors at many inputs, in coordinates in which the metric is isotropic.

    Args:
        names: of the K factors that are moved.
        seen: (M, K, D); their inner products are g.
        null: (M, K, D) random directions under the same metrics; None where the metric is isotropic in all D.
    """

    names: tuple[str, ...]
    seen: Tensor
    null: Tensor | None = None

    @property
    def metric(self) -> Tensor:
        """(M, K, K) g_ab, nats per squared level."""
        return self.seen @ self.seen.mT


def gaussian_metric(mean: Tensor, variance: Tensor, change: Tensor) -> Tensor:
    """Compute the Fisher metric of normal posteriors along some directions.

    g_ab = ∂_a μᵀ S⁻¹ ∂_b μ + ½ tr(S⁻¹ ∂_a S S⁻¹ ∂_b S), exact.

    Args:
        mean: (M, K, d) ∂μ.
        variance: (M, d) variances, or (M, d, d) covariances S.
        change: (M, K, d) or (M, K, d, d) ∂S.

    Returns:
        (M, K, K) nats per squared unit of the directions.
    """
    seen = _whitened(mean, variance, change)
    return seen @ seen.mT


def _whitened(mean: Tensor, variance: Tensor, change: Tensor) -> Tensor:
    """Coordinates with g as inner products: (L⁻¹ ∂μ, L⁻¹ ∂S L⁻ᵀ/√2) with S = L Lᵀ, (M, K, d + d or d + d²)."""
    if variance.dim() == 2:
        spread = variance.unsqueeze(1)
        return torch.cat([mean / spread.sqrt(), change / spread / math.sqrt(2)], 2)
    root = torch.linalg.cholesky(variance).unsqueeze(1)
    moved = torch.linalg.solve_triangular(root, mean.unsqueeze(-1), upper=False).squeeze(-1)
    half = torch.linalg.solve_triangular(root, change, upper=False)
    whole = torch.linalg.solve_triangular(root, half.mT, upper=False)
    return torch.cat([moved, whole.flatten(2) / math.sqrt(2)], 2)


def encoder_directions(
    encoder: Encoder, render: Render, levels: Tensor, names: Sequence[str], factors: Sequence[int], step: float = STEP
) -> FactorDirections:
    """Move factors and follow the posterior N(μ, S) of an encoder.

    Args:
        encoder: inputs ↦ mean (B, d) and variance (B, d), or covariance (B, d, d). For log-variances wrap it:
            ``lambda x: (mu(x), logvar(x).exp())``.
        render: levels ↦ inputs.
        levels: (M, K) at which factors are moved.
        names: of all factors.
        factors: positions of those that are moved.
        step: of the central differences, in levels.

    Returns:
        directions under the Fisher metric of the posterior; error of second order in the step.

    Raises:
        ShapeError: mean and variance do not fit.
    """
    levels = levels.double()
    mean, spread = encoder(render(levels[:1]))
    width = mean.flatten(1).shape[1]
    full = spread.dim() == 3
    if spread.numel() != (width**2 if full else width):
        what = f"a mean of {width} numbers has a variance of shape {tuple(spread.shape)}"
        remedy = "return mean (B, d) and variance (B, d) or covariance (B, d, d)"
        raise ShapeError(what, where="encoder_directions", remedy=remedy)

    def read(x: Tensor) -> Tensor:
        return torch.cat([part.flatten(1) for part in encoder(x)], 1)

    there = read_at(read, render, levels)[:, width:]
    moved = differences(read, render, levels, factors, step).mT
    at, change = moved[..., :width], moved[..., width:]
    if full:
        there, change = (t.reshape(*t.shape[:-1], width, width) for t in (there, change))
    seen = _whitened(at, there, change)
    return FactorDirections(tuple(names[k] for k in factors), seen)


def output_directions(
    network: Network,
    law: Likelihood,
    render: Render,
    levels: Tensor,
    names: Sequence[str],
    factors: Sequence[int],
    *,
    step: float = STEP,
    seed: int = 0,
) -> FactorDirections:
    """Move factors and follow the outputs of a classifier, or of a decoder after its encoder.

    g_ab = (∂_a f)ᵀ H (∂_b f) with H the Fisher matrix of the output law. For a decoder give
    ``lambda x: decoder(encoder_mean(x))`` and its law, for instance ``Gaussian(σ)`` or ``Bernoulli()``.

    Args:
        network: inputs ↦ outputs f (B, C).
        law: p(y | f).
        render: levels ↦ inputs.
        levels: (M, K) at which factors are moved.
        names: of all factors.
        factors: positions of those that are moved.
        step: of the central differences, in levels.
        seed: random seed of the null's directions.

    Returns:
        directions under the law's Fisher metric; error of second order in the step.
    """
    levels = levels.double()
    base = read_at(network, render, levels)
    root = law.fisher_root(base)
    moved = differences(network, render, levels, factors, step).mT
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(moved.shape, generator=generator, dtype=torch.float64)
    return FactorDirections(tuple(names[k] for k in factors), moved @ root, noise @ root)


def cosines(metric: Tensor) -> Tensor:
    """Compute |cos| between factors, g_ab/√(g_aa g_bb) without its sign.

    Args:
        metric: (M, K, K).

    Returns:
        (M, K, K) in [0, 1], NaN where one of two factors moves nothing; the diagonal is 1 elsewhere.
    """
    scale = metric.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    alive = (scale > NEGLIGIBLE * scale.amax(-1, keepdim=True)) & (scale > 0)
    both = alive.unsqueeze(-1) & alive.unsqueeze(-2)
    product = (scale.unsqueeze(-1) * scale.unsqueeze(-2)).clamp_min(1e-300)
    return torch.where(both, (metric.abs() / product).clamp(max=1.0), torch.nan)


def interference(metric: Tensor) -> Tensor:
    """Compute what estimating one factor loses by not knowing another: 1 − g_ab²/(g_aa g_bb), by pairs.

    It is the share of the information about a that is left when b is unknown too, by the Cramér–Rao bound: 1 where the
    factors are orthogonal, 0 where they cannot be told apart.

    Args:
        metric: (M, K, K).

    Returns:
        (M, K, K) in [0, 1], symmetric, 0 on the diagonal; NaN where one of two factors moves nothing.
    """
    return 1 - cosines(metric).square()


def joint_efficiency(metric: Tensor) -> Tensor:
    """Compute the share of the information about each factor that is left when all others are unknown.

    1/(g_aa (g⁻¹)_aa), by the Cramér–Rao bound: with two factors it is :func:`interference`.

    Args:
        metric: (M, K, K).

    Returns:
        (M, K) in [0, 1]: 0 where a direction lies in the span of the others, NaN where some factor moves nothing.
    """
    scale = metric.diagonal(dim1=-2, dim2=-1)
    alive = (scale > NEGLIGIBLE**2 * scale.amax(-1, keepdim=True)).all(-1) & (scale > 0).all(-1)
    root = scale.clamp_min(1e-300).rsqrt()
    correlation = metric * root.unsqueeze(-1) * root.unsqueeze(-2)
    values, vectors = torch.linalg.eigh(torch.where(alive[..., None, None], correlation, 0.0))
    # Eigenvalues at the level of rounding count as it: their factors then come out as unidentified, not as negative.
    inverse = (vectors.square() / values.clamp_min(1e-15).unsqueeze(-2)).sum(-1)
    return torch.where(alive.unsqueeze(-1), (1 / inverse).clamp(max=1.0), torch.nan)


def pair_values(directions: FactorDirections) -> dict[tuple[str, str], Value | Absent]:
    """Average |cos| over the inputs for each pair of factors.

    Args:
        directions: of the factors.

    Returns:
        by pair, in order: mean |cos| in [0, 1] with its interval over inputs; absent where a factor moves nothing.
    """
    angle = cosines(directions.metric)
    out: dict[tuple[str, str], Value | Absent] = {}
    for a, b in itertools.combinations(range(len(directions.names)), 2):
        samples = angle[:, a, b]
        samples = samples[torch.isfinite(samples)]
        nothing = Absent("one of the two factors moves nothing", "vary factors the network sees")
        mean = Value.mean(samples, lower=0.0, upper=1.0) if len(samples) > 1 else nothing
        out[directions.names[a], directions.names[b]] = mean
    return out


def orthogonality_value(directions: FactorDirections) -> tuple[Value | Absent, Value | Absent]:
    """Average 1 − mean |cos| over the inputs, for the factors and for random directions under the same metrics.

    Args:
        directions: of the factors.

    Returns:
        orthogonality, and its null: of random directions where there are any; else the expectation of isotropic
        ones, exact. Both in [0, 1].
    """
    absent = Absent("fewer than two factors move anything", "vary factors the network sees")
    got = [orthogonality(d) for d in (directions.seen, directions.null) if d is not None]
    values = [Value.mean(o[torch.isfinite(o)], upper=1.0) if int(torch.isfinite(o).sum()) > 1 else absent for o in got]
    if directions.null is not None:
        return values[0], values[1]
    width = directions.seen.shape[2]
    return values[0], Value(1 - random_cosine(width), len(directions.seen), how=f"isotropic in {width} dimensions")


def commutator(
    network: Network,
    first: Callable[[Tensor], Tensor],
    second: Callable[[Tensor], Tensor],
    inputs: Tensor,
) -> tuple[Value, Value]:
    """Measure how far two moves of the input commute in a representation: ‖μ(T_a T_b x) − μ(T_b T_a x)‖.

    Moves along two factors of a renderer commute by construction; those of the inputs themselves need not. Turns in
    space about two axes do not, and no code can then have a coordinate for each.

    Args:
        network: inputs ↦ (B, ...) representation.
        first: T_a, inputs ↦ inputs.
        second: T_b.
        inputs: (M, ...).

    Returns:
        the mean distance in units of the representation; and its mean ratio to the distance of x from T_a T_b x, a
        pure number.
    """

    def read(x: Tensor) -> Tensor:
        return read_at(network, lambda at: at, x)

    one = read(first(second(inputs)))
    gap = (one - read(second(first(inputs)))).norm(dim=1)
    moved = (one - read(inputs)).norm(dim=1)
    return Value.mean(gap, lower=0.0), Value.ratio(gap, moved)
