"""The local learning coefficient λ: how fast the volume of nearly as good weights shrinks with the loss allowed.

Vol{L(w) ≤ L(w*) + ε} ~ ε^λ (−log ε)^(m−1) near w*. It is d/2 where the minimum is regular in d parameters, and smaller
where it is degenerate. λ̂ = nβ (E[L_n(w)] − L_n(w*)) with β = 1/ln n, the mean over exp(−nβ L_n(w) − γ/2 ‖w − w*‖²).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from memspace.arguments import check_fields
from memspace.errors import SettingsError
from memspace.limits import COUNT, POSITIVE, SEVERAL, WHOLE, Limit
from memspace.measures.declaration import measure, provides
from memspace.measures.predictors.chains import Chains, Path, QuadraticPart, run_chains
from memspace.measures.predictors.loss_surface import LossSurface
from memspace.measures.predictors.mixing import Mixing, mixing
from memspace.measures.values import Budget
from memspace.metric.krylov import Operator, lanczos
from memspace.value import Absent, Value

__all__ = ["Coefficient", "SamplingSettings", "doubt_of", "learning_coefficient"]

STEP = Limit(1e-12, 3.1)
DRAWS = Limit(8, 2**31, whole=True)
AGREE, ENOUGH = 1.2, 10.0  # R̂ up to which chains agree, independent draws from which their error is known
STUCK = 0.05  # acceptance below which chains do not move


@dataclass(frozen=True)
class SamplingSettings:
    """How the posterior around the weights is sampled.

    A draw costs ``leaps`` gradients of the loss for every chain.

    Args:
        chains: run side by side, all from the weights.
        warmup: draws of each that are not used; the step is adapted in them.
        draws: of each that are used.
        leaps: steps between draws; 1 is Langevin dynamics.
        localisation: γ, 1/weight units²: draws are held near the weights by γ/2 ‖w − w*‖² (Lau et al. 2023 use 1 to
            100). The estimate depends on it: a larger one holds more directions itself, and λ̂ falls.
        directions: leading eigenvectors of the Hessian whose curvature the proposals know in advance; each costs
            about two gradients and lets stiff directions take longer steps.
        step: h, radians: a step of Langevin dynamics of time h²/γ; None: adapted.
        correct: accept or refuse each draw (Metropolis), so that no error of the step size remains. Without it and
            with one leap the chains are stochastic-gradient Langevin dynamics: the loss may then be that of a random
            batch, and a step has to be given.

    Raises:
        SettingsError: a number is out of its range, or draws are neither corrected nor is a step given.
    """

    chains: Annotated[int, SEVERAL] = 3
    warmup: Annotated[int, WHOLE] = 12
    draws: Annotated[int, DRAWS] = 18
    leaps: Annotated[int, COUNT] = 3
    localisation: Annotated[float, POSITIVE] = 100.0
    directions: Annotated[int, WHOLE] = 0
    step: Annotated[float | None, STEP] = None
    correct: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.correct and self.step is None:
            raise SettingsError(
                "draws that are not corrected have no acceptance to adapt the step to",
                where="SamplingSettings",
                remedy="give step=, for example 0.1, or leave correct=True",
            )


@dataclass(frozen=True)
class Coefficient:
    """An estimated learning coefficient with its diagnostics.

    Args:
        value: λ̂, a pure number.
        error: its standard error, from the chains.
        df: degrees of freedom of the error.
        size: effective number of independent draws behind it.
        rhat: 1 where the chains agree.
        acceptance: mean acceptance probability.
        step: h, radians.
        spread: γ E‖w − w*‖²/P: near 1 where the localisation alone holds most directions.
        distance: √(E‖w − w*‖²), weight units.
        draws: (chains, draws) of nβ (L(w) − L(w*)).
    """

    value: float
    error: float
    df: int
    size: float
    rhat: float
    acceptance: float
    step: float
    spread: float
    distance: float
    draws: Tensor


def learning_coefficient(
    loss: Callable[[Tensor], Tensor],
    weights: Tensor,
    n: int,
    settings: SamplingSettings | None = None,
    *,
    hessian: Operator | None = None,
    seed: int = 0,
) -> Coefficient | Absent:
    """Estimate the learning coefficient of a loss at some weights by Hamiltonian or Langevin chains.

    The chains sample exp(−nβ L(w) − γ/2 ‖w − w*‖²) exactly where draws are corrected; what remains are the error of
    the draws, which is stated, and the distance of λ̂ at this n and γ from λ. That goes with γ/nβ in regular directions
    and with (m − 1)/ln(nβ) where the multiplicity m is above 1. λ itself is a property of the function and does not
    depend on the coordinates of the weights; λ̂ does through γ. A rescaling of a ReLU network's layers changes which
    functions lie near, and λ̂ with it.

    Args:
        loss: (K, P) ↦ (K,), the mean loss per example in nats, differentiable by torch.
        weights: (P,) w*, where the loss is (nearly) least.
        n: number of examples that the loss is the mean over, 2 or more.
        settings: of the sampling.
        hessian: v ↦ ∇²L(w*) v on stacks, where ``settings.directions`` are wanted.
        seed: of the random numbers.

    Returns:
        The estimate; absent where the chains do not move or the loss is not finite.

    Raises:
        SettingsError: there are fewer than two examples, or directions are wanted and there is no Hessian.
    """
    settings = SamplingSettings() if settings is None else settings
    if n < 2:
        raise SettingsError(f"n is {n}", where="learning_coefficient", remedy="give the number of examples, 2 or more")
    if settings.directions and hessian is None:
        raise SettingsError(
            "directions of the Hessian are wanted without it",
            where="learning_coefficient",
            remedy="give hessian=, its products with vectors, or leave directions=0",
        )
    generator = torch.Generator().manual_seed(seed)
    weights = weights.detach().double()
    scale = n / math.log(n)  # nβ
    base = float(loss(weights.unsqueeze(0)).detach())
    if not math.isfinite(base):
        return Absent("the loss is not finite at the weights", "read a network with finite weights and outputs")
    reference = _reference(settings, hessian, weights, scale, generator)

    def potential(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        leaf = (weights + v).requires_grad_()
        with torch.enable_grad():
            losses = loss(leaf).double()
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        rise, inside = scale * (losses.detach() - base), v @ reference.directions.t()
        phi = rise - 0.5 * (reference.added * inside**2).sum(1)
        return phi, scale * gradient - (reference.added * inside) @ reference.directions, rise

    chains = run_chains(
        potential,
        reference,
        torch.zeros(settings.chains, len(weights), dtype=torch.float64, device=weights.device),
        Path(settings.leaps, settings.step, settings.correct),
        warmup=settings.warmup,
        steps=settings.draws,
        generator=generator,
    )
    return _coefficient(chains, settings, len(weights))


def _reference(
    settings: SamplingSettings, hessian: Operator | None, weights: Tensor, scale: float, generator: torch.Generator
) -> QuadraticPart:
    """The localisation alone, or with the curvature of the leading directions.

    Steps are as long as the directions that are not known allow, whose curvature is at most that of the last known one.
    The known ones are told so much less that all go at one speed.
    """
    count, gamma = min(settings.directions, len(weights)), settings.localisation
    if hessian is None or not count:
        return QuadraticPart(gamma, weights.new_zeros(0, len(weights)), weights.new_zeros(0))
    start = torch.randn(1, len(weights), generator=generator, dtype=torch.float64).to(weights)
    (run,) = lanczos(hessian, start, min(len(weights), count + count // 2 + 2))
    vectors = (run.vectors.t().to(weights) @ run.basis.to(weights)).flip(0)[:count]
    precisions = gamma + scale * run.nodes.to(weights).flip(0)[:count]
    unknown = 1.0 if len(precisions) == len(weights) else float(precisions[-1]) / gamma
    return QuadraticPart(gamma, vectors, (precisions / unknown - gamma).clamp_min(0))


def _coefficient(chains: Chains, settings: SamplingSettings, size: int) -> Coefficient | Absent:
    if not bool(torch.isfinite(chains.values).all()):
        return Absent("the chains diverged", "give a smaller step, or let draws be corrected")
    if settings.correct and chains.acceptance < STUCK:
        reason = f"the chains did not move: {chains.acceptance:.1%} of the draws were accepted"
        return Absent(reason, "give a larger localisation, a longer warm-up or a smaller step")
    mixed: Mixing = mixing(chains.values.cpu().numpy())
    square = float(chains.squares.mean())
    return Coefficient(
        mixed.mean,
        mixed.error,
        mixed.df,
        mixed.size,
        mixed.rhat,
        chains.acceptance,
        chains.step,
        settings.localisation * square / size,
        math.sqrt(square),
        chains.values,
    )


@provides()
def sampling_settings() -> SamplingSettings:
    """Give the default settings of the sampling, where none are given."""
    return SamplingSettings()


@measure(
    "learning_coefficient",
    chapter="predictors",
    unit="1",
    estimator="nβ (E L(w) − L(w*)), β = 1/ln n, w ~ exp(−nβ L(w) − γ/2 ‖w − w*‖²) by Markov chains",
    source="watanabe2013, lau2023, beskos2011",
    better="smaller",
)
def local_learning_coefficient(surface: LossSurface, settings: SamplingSettings, budget: Budget) -> Value | Absent:
    """Half of the number of parameters that the training loss holds near the trained weights.

    n is the number of training examples; the loss is that of the sample. Under a rescaling of layers that leaves the
    network's function as it is, the estimate moves with what γ holds near; λ itself does not.
    """
    seed = budget.seed + 45
    if settings.directions:
        with surface.hessian() as product:
            estimate = learning_coefficient(
                surface.losses, surface.theta, surface.n, settings, hessian=product, seed=seed
            )
    else:
        estimate = learning_coefficient(surface.losses, surface.theta, surface.n, settings, seed=seed)
    if isinstance(estimate, Absent):
        return estimate
    share = estimate.distance / max(float(surface.theta.norm()), 1e-300)
    how = ", ".join(
        (
            f"γ = {settings.localisation:g}",
            f"{settings.chains} chains of {settings.draws} draws, {settings.leaps} leaps each, after {settings.warmup}",
            f"{estimate.size:.0f} independent draws",
            f"{estimate.acceptance:.0%} accepted",
            f"distance {share:.2g} of ‖w*‖",
            surface.how,
        )
    )
    doubt = doubt_of(estimate, settings)
    return Value.with_error(
        estimate.value, estimate.error, surface.examples, df=estimate.df, reliable=not doubt, how=how, note=doubt
    )


def doubt_of(estimate: Coefficient, settings: SamplingSettings) -> str:
    """Say why an estimate should not be trusted.

    Args:
        estimate: with its diagnostics.
        settings: of the sampling.

    Returns:
        a clause; empty where nothing speaks against it.
    """
    if estimate.value + 2 * estimate.error < 0:
        return "the loss falls around the weights: they are no minimum"
    if not estimate.rhat <= AGREE:
        return f"the chains do not agree (R̂ = {estimate.rhat:.2f}): they need more draws"
    if estimate.size < ENOUGH:
        return f"{estimate.size:.0f} independent draws are too few: the chains need more draws"
    if not settings.correct:
        return "draws are not corrected: the error of the step size is not known"
    return ""
