"""Noise on the weights: σ of quadratic losses in closed form, intervals over draws, and the terms of the bounds."""

from __future__ import annotations

import math

import pytest
import torch

from memspace.measures.predictors import pac_bayes
from memspace.measures.predictors.pac_bayes import (
    COST,
    FLOOR,
    NoiseSearch,
    Tolerance,
    ToleratedNoise,
    magnitude_term,
    plain_term,
    tolerance,
)
from memspace.task.task import Task
from memspace.value import Absent
from tests.predictors.networks import ALL, perceptron
from tests.predictors.surfaces import fitted_task, linear_task, quadratic_of, surface_of, workspace_of

MEASURES = (
    pac_bayes.flatness,
    pac_bayes.magnitude_flatness,
    pac_bayes.from_origin,
    pac_bayes.from_start,
    pac_bayes.magnitude_from_origin,
    pac_bayes.magnitude_from_start,
)


@pytest.mark.parametrize("magnitude", [False, True])
def test_sigma_of_a_quadratic_loss(magnitude: bool) -> None:
    task = linear_task(0, inputs=30, optimal=True)
    _, h = quadratic_of(task)
    surface = surface_of(task)
    noise = NoiseSearch(surface, magnitude=magnitude, draws=400, seed=1)
    expected = 4e-6 * surface.theta.square() + 1e-6 if magnitude else torch.full((30,), 4e-6, dtype=torch.float64)
    torch.testing.assert_close(noise.deviation(0.002).square(), expected)
    found = tolerance(noise, "loss", 0.01)
    assert isinstance(found, Tolerance)
    # E rise = ½ Σ s_i² H_ii with s_i² = σ², or σ²w_i² + ε².
    weights = surface.theta.square() if magnitude else torch.ones(30, dtype=torch.float64)
    least = FLOOR**2 * float(h.trace()) if magnitude else 0.0
    exact = math.sqrt((2 * COST - least) / float(weights @ h.diagonal()))
    assert abs(math.log(found.sigma / exact)) < 4 * found.error + 0.01  # the cost is met within 2%
    # The spread of one draw is √(½ Σ (s_i s_j H_ij)²) nats, and log σ moves by half of log cost.
    size = noise.deviation(found.sigma)
    spread = math.sqrt(float((size[:, None] * h * size).square().sum()) / 2) / COST / 2 / math.sqrt(400)
    assert found.error == pytest.approx(spread, rel=0.25)


def test_intervals_over_draws_cover() -> None:
    task = linear_task(3, inputs=30, optimal=True)
    _, h = quadratic_of(task)
    surface, exact = surface_of(task), math.sqrt(2 * COST / float(h.trace()))
    hits = 0
    for seed in range(40):
        found = tolerance(NoiseSearch(surface, magnitude=False, draws=6, seed=seed), "loss", 0.1)
        assert isinstance(found, Tolerance)
        value = found.value(lambda s: s**-2, 40, "")
        assert value.interval is not None
        hits += value.interval[0] <= exact**-2 <= value.interval[1]
    assert hits >= 33  # of 40 at 95%: fewer than 33 have a chance below 0.1%


def test_accuracy_and_loss_cost_a_tenth_at_their_sigma() -> None:
    surface = surface_of(fitted_task(0))
    for magnitude in (False, True):
        noise = NoiseSearch(surface, magnitude=magnitude, draws=6, seed=0)
        for target in ("loss", "accuracy"):
            found = tolerance(noise, target, 0.1)
            assert isinstance(found, Tolerance)
            # The accuracy moves in steps of an example of a draw.
            near = 0.02 * COST if target == "loss" else 0.02 * COST + 1 / (surface.examples * 2)
            assert float(noise.cost(found.sigma)[target].mean()) == pytest.approx(COST, abs=near)
            assert noise.slope(found.sigma, target) > 0
    loss, accuracy = surface.scores((surface.theta + noise.deviation(0.3) * noise._xi[0]).unsqueeze(0))
    base, right = surface.scores(surface.theta.unsqueeze(0))
    assert float(noise.cost(0.3)["loss"][0]) == pytest.approx(float(loss - base), rel=1e-9)
    assert float(noise.cost(0.3)["accuracy"][0]) == pytest.approx(float(right - accuracy), abs=1e-12)


def test_the_terms_of_the_bounds() -> None:
    expected = math.sqrt((3.0 / (4 * 0.05**2) + math.log(800 / 0.05) + 10) / 800)
    assert plain_term(3.0, 0.05, 800) == pytest.approx(expected, rel=1e-12)
    w = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64)
    squared = float(w @ w)
    published = sum(  # eq. of Jiang et al. 2020 with w₀ = 0 and the noise that was searched
        math.log((FLOOR**2 + (0.3**2 + 1) * squared / 4) / (FLOOR**2 + 0.3**2 * float(x) ** 2)) for x in w
    )
    expected = math.sqrt((published / 4 + math.log(800 / 0.3) + 10) / 800)
    assert magnitude_term(w, w, 0.3, 800) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_magnitude_term_holds_the_least_divergence_of_the_noise_from_a_prior(seed: int) -> None:
    w, moved = torch.randn(2, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    posterior = torch.distributions.Normal(moved, (FLOOR**2 + 0.2**2 * w**2).sqrt())

    def divergence(width: float) -> float:
        prior = torch.distributions.Normal(torch.zeros(12, dtype=torch.float64), torch.full((12,), width).double())
        return float(torch.distributions.kl_divergence(posterior, prior).sum())

    least = min(divergence(0.3 * 1.02**k) for k in range(150))
    stated = 2 * (magnitude_term(w, moved, 0.2, 100) ** 2 * 100 - math.log(100 / 0.2) - 10)
    assert stated == pytest.approx(least, rel=1e-3)


def test_values_fall_in_their_intervals_and_measure_sigma() -> None:
    task = fitted_task(0)
    workspace = workspace_of(task)
    tolerated = workspace.get(ToleratedNoise)
    assert isinstance(tolerated, ToleratedNoise)
    measurements, unmeasured = workspace.measure_all(MEASURES)
    assert not unmeasured
    assert len(measurements) == 12
    values = {m.name: m.value for m in measurements}
    for target in ("loss", "accuracy"):
        found = tolerated.plain[target]
        assert isinstance(found, Tolerance)
        assert values[f"pac_bayes.flatness.{target}"] == found.sigma**-2
        first = torch.cat([p.detach().flatten() for p in task.model.parameters()])
        expected = plain_term(float(first.square().sum()), found.sigma, 90)
        assert values[f"pac_bayes.origin.{target}"] == pytest.approx(expected, rel=1e-9)
    for m in measurements:
        assert m.interval is not None
        assert m.interval[0] < m.value < m.interval[1]
        assert "6 draws of the noise" in m.estimator


def test_without_a_recorded_training_there_is_no_distance_from_its_start() -> None:
    task = fitted_task(0)
    batch = task.train.batch(range(90))
    _, unmeasured = workspace_of(Task(task.model, (batch.x, batch.y))).measure_all(MEASURES)
    assert {u.name for u in unmeasured} == {"pac_bayes.start", "pac_bayes.magnitude_start"}
    assert all("start of the training" in u.reason for u in unmeasured)


def test_what_noise_cannot_cost_is_absent_with_a_reason() -> None:
    task = perceptron(0)
    with torch.no_grad():  # constant outputs that are wrong nearly as often as can be
        task.model[2].weight.zero_()
    noise = NoiseSearch(surface_of(task), magnitude=True, draws=4, seed=0)
    found = tolerance(noise, "loss", 0.1)
    if isinstance(found, Absent):
        assert "0.1 of the loss" in found.reason
    with torch.no_grad():
        for p in task.model.parameters():
            p.zero_()
    _, unmeasured = workspace_of(task).measure_all([pac_bayes.flatness])
    assert unmeasured[0].reason == "all weights are zero"


@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
def test_every_family_is_measured(make: object) -> None:
    measurements, unmeasured = workspace_of(make(0)).measure_all(MEASURES)  # type: ignore[operator]
    assert all(math.isfinite(m.value) for m in measurements)
    assert all(u.reason and u.remedy for u in unmeasured)
    assert "pac_bayes.flatness.loss" in {m.name for m in measurements}
