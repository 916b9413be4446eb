"""Local learning coefficients: sampled against integrated, integrated against closed forms, and what an estimate says.

The sampled value is held to the integral of the same tempered posterior, at the same n and γ, within its own error.
That the integral goes to λ as n grows is a separate test without any sampling.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from memspace.errors import SettingsError
from memspace.measures.predictors.learning_coefficient import (
    Coefficient,
    SamplingSettings,
    learning_coefficient,
    local_learning_coefficient,
)
from memspace.measures.predictors.loss_surface import LossSurface
from memspace.measures.predictors.mixing import mixing
from memspace.value import Absent
from tests.predictors.networks import ALL
from tests.predictors.singular import (
    by_quadrature,
    deep_linear,
    product_by_quadrature,
    reduced_rank,
    two_layers_by_points,
)
from tests.predictors.surfaces import fitted_task, rescaled, workspace_of

N = 1000
SCALE = N / math.log(N)
WIDE = SamplingSettings(chains=512, warmup=60, draws=150, localisation=1.0)


def _estimate(loss: object, weights: Tensor, settings: SamplingSettings, **more: object) -> Coefficient:
    found = learning_coefficient(loss, weights, N, settings, **more)  # type: ignore[arg-type]
    assert isinstance(found, Coefficient)
    return found


def _agrees(found: Coefficient, expected: float, most: float) -> None:
    """Within four standard errors, which are small; draws and chains are as they should be."""
    assert found.error < most * expected
    assert abs(found.value - expected) < 4 * found.error
    assert found.rhat < 1.15
    assert found.acceptance > 0.3


@pytest.mark.parametrize("size", [5, 20])
@pytest.mark.parametrize("directions", [0, 3])
def test_a_regular_quadratic_has_half_its_dimension(size: int, directions: int) -> None:
    curvatures = torch.logspace(0, 1.3, size, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(size)).double()).Q
    hessian = turn * curvatures @ turn.t()
    centre = torch.linspace(-1, 1, size, dtype=torch.float64)

    def loss(w: Tensor) -> Tensor:
        return (((w - centre) @ hessian) * (w - centre)).sum(1) / 2 + 0.7

    settings = SamplingSettings(chains=32, warmup=60, draws=150, localisation=1.0, directions=directions)
    found = _estimate(loss, centre, settings, hessian=lambda v: v @ hessian)
    exact = float((SCALE * curvatures / (SCALE * curvatures + 1.0)).sum()) / 2
    _agrees(found, exact, 0.05)
    assert exact == pytest.approx(size / 2, rel=1 / SCALE)  # what the localisation takes: γ over nβ times a curvature
    assert float(found.draws.var()) == pytest.approx(size / 2, rel=0.3)  # half of χ² with d degrees of freedom


def test_a_reference_that_is_the_posterior_accepts_everything() -> None:
    hessian = torch.diag(torch.tensor([0.1, 1.0, 8.0, 30.0], dtype=torch.float64))
    settings = SamplingSettings(chains=32, warmup=0, draws=100, leaps=1, localisation=2.0, directions=4, step=1.5)
    found = _estimate(
        lambda w: ((w @ hessian) * w).sum(1) / 2, torch.zeros(4).double(), settings, hessian=lambda v: v @ hessian
    )
    assert found.acceptance == pytest.approx(1, abs=1e-9)
    h = SCALE * hessian.diagonal()
    _agrees(found, float((h / (h + 2)).sum()) / 2, 0.05)
    # A path turns v by 0.45 to 1.5 radians, and the quadratic forgets with the mean of cos² = 0.38.
    assert found.size > 0.35 * 32 * 100
    spread = float((2 / (h + 2)).mean())
    assert found.spread == pytest.approx(spread, rel=0.1)
    assert found.distance == pytest.approx(math.sqrt(spread * 4 / 2), rel=0.1)


@pytest.mark.parametrize("leaps", [1, 3])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_an_even_power_against_its_integral(k: int, leaps: int) -> None:
    settings = SamplingSettings(chains=512, warmup=210 // leaps, draws=300 // leaps, leaps=leaps, localisation=1.0)
    found = _estimate(lambda w: w[:, 0] ** (2 * k), torch.zeros(1).double(), settings)
    exact = by_quadrature(lambda w: w ** (2 * k), SCALE, 1.0)
    _agrees(found, exact, 0.05)
    # The localisation takes part of the flat direction: λ̂ lies below 1/(2k), by 0.3, 4 and 11%.
    assert 0.88 < exact * 2 * k < 1


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_integral_goes_to_the_learning_coefficient(k: int) -> None:
    gaps = [1 - 2 * k * by_quadrature(lambda w: w ** (2 * k), n / math.log(n), 1.0) for n in (1e2, 1e4, 1e6, 1e9)]
    assert all(0 < later < earlier for earlier, later in itertools.pairwise(gaps))
    # The correction is the localisation's, γ E w²/2 at w ~ (nβ)^(−1/2k): it falls with the power −1/k of nβ.
    powers = np.log(1e9 / math.log(1e9)) - np.log(1e6 / math.log(1e6))
    assert math.log(gaps[2] / gaps[3]) / powers == pytest.approx(1 / k, rel=0.05)


def test_a_product_of_two_weights_against_its_integral() -> None:
    found = _estimate(lambda w: (w[:, 0] * w[:, 1]) ** 2 / 2, torch.zeros(2).double(), WIDE)
    exact = product_by_quadrature(SCALE, 1.0)
    _agrees(found, exact, 0.05)
    # λ = 1/2 with multiplicity 2: λ̂ = λ − 1/(ln nβ + constant), far below λ at any n that occurs.
    assert exact < 0.42
    gaps = [1 / (0.5 - product_by_quadrature(n, 1.0)) for n in (1e6, 1e9, 1e12)]
    for earlier, later in itertools.pairwise(gaps):
        assert (later - earlier) / math.log(1e3) == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("inputs", range(1, 6))
@pytest.mark.parametrize("outputs", range(1, 6))
def test_two_layers_of_the_deep_formula_are_reduced_rank_regression(inputs: int, outputs: int) -> None:
    for hidden in range(1, 7):
        for rank in range(min(inputs, outputs, hidden) + 1):
            deep, regression = deep_linear((inputs, hidden, outputs), rank), reduced_rank(inputs, outputs, hidden, rank)
            assert deep == pytest.approx(regression), (inputs, hidden, outputs, rank)


def test_deep_linear_networks_that_are_known_otherwise() -> None:
    assert deep_linear((1, 1, 1), 0) == (0.5, 2)  # w₁w₂
    assert deep_linear((1, 1, 1, 1), 0) == (0.5, 3)  # w₁w₂w₃
    assert deep_linear((3, 4), 2) == (6.0, 1)  # one layer is regular, whatever the rank
    assert deep_linear((4, 7, 9, 3), 3) == (6.0, 1)  # full rank: as one layer of 4 × 3
    assert deep_linear((2, 2, 2), 1) == (2.0, 2)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_linear_network_of_two_layers_against_its_integral(rank: int) -> None:
    target = torch.diag(torch.tensor([1.0, 1.0]) * (torch.arange(2) < rank)).double()
    weights = torch.cat([target.flatten(), target.flatten()])  # A and B: balanced, B A = M

    def loss(w: Tensor) -> Tensor:
        a, b = w[:, :4].reshape(-1, 2, 2), w[:, 4:].reshape(-1, 2, 2)
        return (b @ a - target).square().sum((1, 2)) / 2

    settings = SamplingSettings(chains=256, warmup=40, draws=60, leaps=4, localisation=4.0)
    found = _estimate(loss, weights, settings)
    m = target.numpy()
    exact = two_layers_by_points(m, m, m, SCALE, 4.0)
    _agrees(found, exact, 0.03)
    coefficient, _ = deep_linear((2, 2, 2), rank)
    assert exact < coefficient < 4  # half the number of weights


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_the_integral_over_a_linear_network_goes_to_its_closed_form(rank: int) -> None:
    m = np.diag([1.0, 1.0]) * (np.arange(2) < rank)
    coefficient, multiplicity = deep_linear((2, 2, 2), rank)
    gaps = [coefficient - two_layers_by_points(m, m, m, scale, 4.0) for scale in (1e2, 1e3, 1e4)]
    assert all(0 < later < earlier for earlier, later in itertools.pairwise(gaps))
    if multiplicity == 1:
        assert gaps[-1] < (0.07 if rank == 0 else 1e-3)  # degenerate: a root of nβ is left; regular: γ/nβ
    else:  # (m − 1)/(ln nβ + constant)
        for earlier, later in itertools.pairwise((multiplicity - 1) / gap for gap in gaps):
            assert (later - earlier) / math.log(10) == pytest.approx(1, abs=0.1)


def test_errors_of_short_chains_cover() -> None:
    exact = by_quadrature(lambda w: w**4, SCALE, 1.0)
    settings = SamplingSettings(chains=160, warmup=150, draws=240, leaps=1, localisation=1.0)
    draws = _estimate(lambda w: w[:, 0] ** 4, torch.zeros(1).double(), settings).draws.numpy()
    parts = [mixing(draws[k : k + 4]) for k in range(0, 160, 4)]
    misses = [(part.mean - exact) / part.error for part in parts]
    inside = sum(abs(miss) < stats.t.ppf(0.975, part.df) for miss, part in zip(misses, parts, strict=True))
    assert inside >= 33  # of 40 at 95%: fewer than 33 have a chance below 0.1%
    assert 0.5 < float(np.std(misses)) < 1.6


def test_uncorrected_langevin_steps_are_biased_by_their_size_and_may_be_of_random_batches() -> None:
    generator = torch.Generator().manual_seed(0)

    def noisy(w: Tensor) -> Tensor:
        return 2 * w[:, 0] ** 2 + 0.02 * torch.randn(1, generator=generator, dtype=torch.float64) * w[:, 0]

    exact = by_quadrature(lambda w: 2 * w**2, SCALE, 10.0)
    found = {}
    for step in (0.05, 0.2):
        settings = SamplingSettings(
            chains=256, warmup=100, draws=200, leaps=1, localisation=10.0, step=step, correct=False
        )
        found[step] = _estimate(noisy, torch.zeros(1).double(), settings)
    # Leapfrog steps of a frequency ω without correction widen the variance by 1/(1 − ω²h²/4), ω² = 1 + 4nβ/γ.
    omega = math.sqrt(1 + 4 * SCALE / 10)
    for step, rel in ((0.05, 0.1), (0.2, 0.2)):
        assert found[step].value == pytest.approx(exact / (1 - (omega * step) ** 2 / 4), rel=rel)


def test_what_cannot_be_sampled_is_absent_with_a_reason() -> None:
    def infinite(w: Tensor) -> Tensor:
        return w.sum(1) / 0.0

    assert isinstance(learning_coefficient(infinite, torch.ones(3), N), Absent)
    walled = learning_coefficient(
        lambda w: (w**2).sum(1) + torch.where(w.abs().amax(1) > 1e-9, math.inf, 0.0), torch.zeros(3), N
    )
    assert isinstance(walled, Absent)
    assert "did not move" in walled.reason
    diverging = learning_coefficient(
        lambda w: (w**4).sum(1),
        torch.ones(3),
        N,
        SamplingSettings(leaps=1, step=1.0, correct=False, localisation=1.0),
    )
    assert isinstance(diverging, Absent)
    assert "diverged" in diverging.reason


def test_a_point_that_is_no_minimum_is_said_to_be_none() -> None:
    workspace = workspace_of(fitted_task(0, steps=0))
    workspace._values[SamplingSettings] = SamplingSettings(chains=4, localisation=10.0)
    measurements, _ = workspace.measure_all([local_learning_coefficient])
    assert measurements[0].value < 0
    assert not measurements[0].reliable
    assert "no minimum" in measurements[0].note


def test_bad_settings_are_refused_with_a_sentence() -> None:
    with pytest.raises(SettingsError, match="out of range"):
        SamplingSettings(chains=1)
    with pytest.raises(SettingsError, match="not corrected"):
        SamplingSettings(correct=False)
    with pytest.raises(SettingsError, match="n is 1"):
        learning_coefficient(lambda w: w.sum(1), torch.zeros(2), 1)
    with pytest.raises(SettingsError, match="Hessian"):
        learning_coefficient(lambda w: w.sum(1), torch.zeros(2), N, SamplingSettings(directions=1))


def test_of_a_network_it_is_that_of_its_loss_with_the_settings_given() -> None:
    task = fitted_task(0, width=6)
    settings = SamplingSettings(chains=12, draws=40, localisation=30.0)
    workspace = workspace_of(task)
    workspace._values[SamplingSettings] = settings
    surface = workspace.get(LossSurface)
    assert isinstance(surface, LossSurface)
    measurements, unmeasured = workspace.measure_all([local_learning_coefficient])
    assert not unmeasured
    stated = measurements[0]
    found = learning_coefficient(surface.losses, surface.theta, 90, settings, seed=45)
    assert isinstance(found, Coefficient)
    assert stated.value == found.value
    assert stated.interval is not None
    assert stated.interval[0] < found.value < stated.interval[1]
    assert "γ = 30" in stated.estimator
    assert "12 chains of 40 draws" in stated.estimator
    # Directions of the Hessian change how the posterior is walked, not the posterior.
    known = SamplingSettings(chains=12, draws=40, localisation=30.0, directions=10)
    with surface.hessian() as product:
        again = learning_coefficient(surface.losses, surface.theta, 90, known, hessian=product, seed=1)
    assert isinstance(again, Coefficient)
    assert abs(again.value - found.value) < 4 * math.hypot(found.error, again.error)


def test_a_rescaling_moves_the_estimate_through_its_localisation_alone() -> None:
    """Scaling layers by c and 1/c changes the loss near w* as γ would be changed in these layers."""
    values = {}
    for name, change in (("as trained", lambda t: t), ("rescaled", lambda t: rescaled(t, 3))):
        workspace = workspace_of(change(fitted_task(0, width=6)))
        workspace._values[SamplingSettings] = SamplingSettings(chains=40, draws=40)
        measurements, _ = workspace.measure_all([local_learning_coefficient])
        values[name] = measurements[0]
    first, second = values["as trained"], values["rescaled"]
    assert first.standard_error is not None
    assert second.standard_error is not None
    assert abs(first.value - second.value) > 4 * math.hypot(first.standard_error, second.standard_error)


@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
def test_every_family_is_measured(make: object) -> None:
    task = make(0)  # type: ignore[operator]
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    measurements, unmeasured = workspace_of(task).measure_all([local_learning_coefficient])
    assert not unmeasured
    assert math.isfinite(measurements[0].value)
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
