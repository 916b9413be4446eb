"""The label model finds planted noise and knows how sure it is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from memspace.measures.labels import fit_label_model
from memspace.task.builtin.options import corrupt

C = 10


def _planted(n: int, noise: float, temperature: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs whose softmax at the temperature is the true class probability; observed and true labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, C, generator=generator, dtype=torch.float64)
    truth = torch.multinomial(torch.softmax(logits, -1), 1, generator=generator).squeeze(1)
    return logits * temperature, corrupt(truth, noise, C, seed), truth


@pytest.mark.parametrize("noise", [0.05, 0.15, 0.3])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_planted_noise_is_found_within_its_error(noise: float, temperature: float) -> None:
    deviations = []
    for seed in range(4):
        f, y, _ = _planted(3000, noise, temperature, seed)
        model = fit_label_model(f, y)
        assert model.n == 3000
        assert 0 < model.noise_error < 0.03
        assert model.temperature == pytest.approx(temperature, rel=0.15)
        deviations.append((model.noise - noise) / model.noise_error)
    assert max(map(abs, deviations)) < 4
    assert math.sqrt(sum(d**2 for d in deviations) / 4) < 2.2


def test_the_probability_of_a_wrong_label_is_calibrated() -> None:
    f, y, truth = _planted(20_000, 0.2, 1.5, 9)
    model = fit_label_model(f, y)
    p, wrong = model.p_wrong(f, y), (y != truth).double()
    assert float(p.mean()) == pytest.approx(0.2, abs=0.015)
    for low, high in ((0, 0.05), (0.05, 0.3), (0.3, 0.7), (0.7, 0.95), (0.95, 1.01)):
        inside = (p >= low) & (p < high)
        count = int(inside.sum())
        assert count > 100
        error = 4 * math.sqrt(0.25 / count)
        assert float(wrong[inside].mean()) == pytest.approx(float(p[inside].mean()), abs=max(error, 0.02))


def test_no_noise_is_found_where_there_is_none() -> None:
    f, y, _ = _planted(4000, 0.0, 1.0, 4)
    assert fit_label_model(f, y).noise < 0.01


def test_the_posterior_is_a_distribution_and_obeys_bayes() -> None:
    f, y, _ = _planted(200, 0.25, 1.0, 2)
    model = fit_label_model(f, y)
    posterior = model.posterior(f, y)
    assert torch.allclose(posterior.sum(-1), torch.ones(200, dtype=torch.float64))
    pi = torch.softmax(f[0] / model.temperature, -1)
    seen = torch.full((C,), model.noise / (C - 1), dtype=torch.float64)
    seen[y[0]] = 1 - model.noise
    assert torch.allclose(posterior[0], pi * seen / (pi * seen).sum())
    assert torch.allclose(model.p_wrong(f, y), 1 - posterior.gather(1, y[:, None]).squeeze(1))
    suggested = model.suggested(f, y)
    assert bool((suggested != y).all())


def test_a_known_share_is_kept() -> None:
    f, y, _ = _planted(1000, 0.2, 2.0, 3)
    model = fit_label_model(f, y, noise=0.1, noise_error=0.02)
    assert (model.noise, model.noise_error) == (0.1, 0.02)
    assert math.isnan(fit_label_model(f, y, noise=0.1).noise_error)
