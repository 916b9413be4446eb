"""The label model finds planted noise and knows how sure it is."""

from __future__ import annotations

import math

import numpy as np
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
def test_planted_noise_is_found_within_its_interval(noise: float, temperature: float) -> None:
    for seed in range(3):
        f, y, truth = _planted(1500, noise, temperature, seed)
        model = fit_label_model(f, y)
        wrong = float((y != truth).double().mean())
        assert model.interval[0] <= wrong <= model.interval[1]
        assert model.noise == pytest.approx(wrong, abs=0.05)
        uniform = model.hypotheses[0]
        best = uniform.fits[int(np.argmax(uniform.chances))]
        assert float(best.weight[0]) == pytest.approx(1 / temperature, rel=0.25)


def test_noise_that_follows_the_classes_is_seen() -> None:
    """Every wrong label is the next class: the pattern is found and the share with it."""
    generator = torch.Generator().manual_seed(0)
    logits = 6 * torch.randn(1500, 5, generator=generator, dtype=torch.float64)
    truth = torch.multinomial(torch.softmax(logits, -1), 1, generator=generator).squeeze(1)
    wrong = torch.rand(1500, generator=generator) < 0.2
    model = fit_label_model(logits, torch.where(wrong, (truth + 1) % 5, truth))
    assert model.pattern == "class by class"
    assert model.reliable
    assert model.interval[0] <= float(wrong.double().mean()) <= model.interval[1]
    shaped = next(h for h in model.hypotheses if h.pattern == "class by class")
    for k in range(5):
        assert shaped.towards[k].argmax() == (k + 1) % 5


def test_wrong_labels_of_one_class_alone_are_found() -> None:
    """Three tenths of one class read as the other, of none the other way: found, and ordered better than chance."""
    generator = torch.Generator().manual_seed(1)
    logits = 6 * torch.randn(800, 2, generator=generator, dtype=torch.float64)
    truth = torch.multinomial(torch.softmax(logits, -1), 1, generator=generator).squeeze(1)
    wrong = (torch.rand(800, generator=generator) < 0.3) & (truth == 1)
    y = torch.where(wrong, 0, truth)
    model = fit_label_model(logits, y)
    assert model.pattern == "one class"
    assert model.interval[0] <= float(wrong.double().mean()) <= model.interval[1]
    p = model.p_wrong(logits, y)
    assert float(p[wrong].mean()) > 0.8
    assert float(p[y == 1].max()) < 0.1  # a label that reads 1 is right, whatever the input says


def test_what_the_labels_do_not_exclude_is_kept() -> None:
    """Hypotheses add up to one; every admitted law is a distribution; the best is among them, a share of 60% is not."""
    f, y, _ = _planted(600, 0.1, 1.0, 5)
    model = fit_label_model(f, y)
    assert sum(float(h.chances.sum()) for h in model.hypotheses) == pytest.approx(1)
    best = min(float(h.score.min()) for h in model.hypotheses)
    assert all(float(h.score[-1]) > best + 3.32 for h in model.hypotheses)
    admitted = list(zip(model.admitted_laws(f, y), model.admitted_posteriors(f, y), strict=True))
    assert admitted
    for law, posterior in admitted:
        for p in (law, posterior):
            assert torch.allclose(p.sum(-1), torch.ones(600, dtype=torch.float64))


@pytest.mark.parametrize("separation", [0.4, 0.8])
@pytest.mark.parametrize("seed", range(4))
def test_overlapping_classes_raise_no_alarm(separation: float, seed: int) -> None:
    """Two Gaussians that overlap, every label right: not told from noise, and said so."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (400,), generator=generator)
    x = torch.randn(400, generator=generator, dtype=torch.float64) + separation * (2.0 * y - 1)
    f = torch.stack([-separation * x, separation * x], 1)
    model = fit_label_model(f, y)
    assert not (model.reliable and model.interval[0] > 0)
    assert model.interval[0] == 0
    assert model.interval[1] > 0.05  # and none is not claimed
    assert "overlap" in model.statement


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
    model = fit_label_model(f, y)
    assert model.noise < 0.03
    assert model.interval[0] == 0


def test_the_posterior_is_a_distribution_and_obeys_bayes() -> None:
    f, y, _ = _planted(200, 0.25, 1.0, 2)
    model = fit_label_model(f, y)
    posterior = model.posterior(f, y)
    assert torch.allclose(posterior.sum(-1), torch.ones(200, dtype=torch.float64))
    expected = torch.zeros(C, dtype=torch.float64)
    for h in model.hypotheses:
        for share, chance, fit in zip(h.shares, h.chances, h.fits, strict=True):
            logits = fit.weight[0] * (f[0] - f[0].mean()) + torch.from_numpy(fit.offset)
            seen = share * torch.from_numpy(h.towards)[:, y[0]]
            seen[y[0]] += 1 - share
            joint = torch.softmax(logits, -1) * seen
            expected += chance * joint / joint.sum()
    assert torch.allclose(posterior[0], expected, atol=1e-5)
    assert torch.allclose(model.p_wrong(f, y), 1 - posterior.gather(1, y[:, None]).squeeze(1))
    suggested = model.suggested(f, y)
    assert bool((suggested != y).all())
