"""The damping by group agreement: on a model whose best damping is known, and its rules without a retraining."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from memspace.attribution import damping as module
from memspace.attribution.damping import Halves, agreement, choose_by_agreement, retrain_halves, uncalibrated
from memspace.attribution.influence import influence
from memspace.attribution.settings import InfluenceSettings
from memspace.attribution.target import TARGETS
from memspace.metric.fisher import build
from memspace.passes.verify import verified_space
from memspace.progress import Silent
from memspace.task.likelihood import Gaussian
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Task


def pairs(count, n, seed=0):
    g = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        half = torch.zeros(n, dtype=torch.bool)
        half[torch.randperm(n, generator=g)[: n // 2]] = True
        rows += [half, ~half]
    return torch.stack(rows)


def test_agreement_of_additive_outcomes_is_one_and_of_opposite_ones_minus_one():
    kept, scores = pairs(6, 20), torch.randn(5, 20, dtype=torch.float64)
    # An outcome that is additive but for an even term, which complementary halves cancel.
    even = (kept[:, :10].sum(1).double() - 5).square()[:, None]
    halves = Halves(kept, kept.double() @ scores.T + 3 + 10 * even)
    assert torch.allclose(agreement(scores, halves), torch.ones(5).double())
    assert torch.allclose(agreement(-scores, halves), -torch.ones(5).double())


def test_the_damping_of_ridge_regressions_retrained_on_halves_is_found():
    # Outcomes of ridge regressions with a known α on halves: first-order influence is best at a γ near α/N.
    g = torch.Generator().manual_seed(0)
    n, p, alpha = 400, 12, 20.0
    scale = torch.logspace(0, -2, p, dtype=torch.float64)
    x = torch.randn(n, p, generator=g, dtype=torch.float64) * scale
    y = x @ torch.randn(p, 1, generator=g).double() / scale.mean() + torch.randn(n, 1, generator=g).double()

    def fit(xs, ys, a):
        return torch.linalg.solve(xs.T @ xs + a * torch.eye(p).double(), xs.T @ ys)

    model = nn.Linear(p, 1, bias=False).double()
    model.weight.data = fit(x, y, alpha).T.contiguous()
    qx = torch.randn(60, p, generator=g, dtype=torch.float64) * scale

    def refit(index, seed):
        fresh = nn.Linear(p, 1, bias=False).double()
        fresh.weight.data = fit(x[index], y[index], alpha / 2).T.contiguous()  # the mean loss keeps its decay
        return fresh

    qy = torch.zeros(60, 1).double()
    task = Task(model=model, train=(x, y), test=(qx, qy), likelihood=Gaussian(1.0), refit=refit)

    def prediction(f, y):
        return f[:, 0]

    found = influence(task, [0, 1, 2], target=prediction, settings=InfluenceSettings(retrainings=16, probes=50))
    assert found.reliable
    assert 0.4 < found.damping / (alpha / n) < 2.5  # the grid has four steps a decade: a factor of 1.8 each


def test_where_nothing_agrees_it_says_so():
    kept = pairs(6, 20)
    halves = Halves(kept, torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    noise = torch.randn(5, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    choice = choose_by_agreement(lambda gamma: noise / gamma, (0.1, 1.0, 10.0), halves)
    assert not choice.reliable


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def small(n=21, **more):
    torch.manual_seed(3)
    x, y = torch.randn(n, 3), torch.randint(0, 2, (n,))
    return Task(model=network(), train=(x, y), decay=0.01, **more)


def test_many_networks_at_once_are_those_of_refits():
    recipe = Recipe(2, 4, 0.1, 0.01, optimiser="sgd")
    from memspace.task.builtin.train import fit

    plain = small()
    x, y = plain.train.batch(range(21)).x, plain.train.labels()

    def refit(index, seed):
        return fit(network, x[index], y[index], recipe, seed=seed, record=False).model

    probes = torch.arange(5)
    rows = []
    for task in (small(training=Training(network, recipe)), small(refit=refit)):
        rows.append(retrain_halves(task, TARGETS["margin"], task.train, probes, 4, 0, Silent()))
    assert torch.equal(rows[0].kept, rows[1].kept)
    assert (rows[0].kept.sum(1) == 10).all()
    assert not (rows[0].kept[0] & rows[0].kept[1]).any()
    assert torch.allclose(rows[0].outcomes, rows[1].outcomes, atol=1e-4)


def test_without_a_way_to_train_the_rule_says_that_it_is_uncalibrated():
    found = influence(small(), [0], settings=InfluenceSettings(retrainings=4))
    assert not found.reliable
    assert "uncalibrated" in found.note
    assert "evidence" in found.damping_rule


def test_the_trainings_own_scale():
    # Rate 0.5 annealed by a cosine over 12 steps: mean 0.5·(12 + 1)/(2·12) a step, times 12, over 1 − momentum.
    task = small(training=Training(network, Recipe(2, 4, 0.5, 0.01, optimiser="sgd", momentum=0.9)))
    space = verified_space(task)
    choice = uncalibrated(task, space, build(task, space, "ekfac"))
    assert choice.rule == "training time"
    assert not choice.reliable
    assert choice.value == pytest.approx(0.01 + 0.1 / (0.5 * 13 / 2))
    adam = small(training=Training(network, Recipe(2, 4, 0.5, 0.01)))
    assert uncalibrated(adam, space, build(adam, space, "ekfac")).rule == "evidence"
    assert math.isnan(choice.target)


@pytest.mark.parametrize("at", [-0.4, -0.1, 0.2, 0.45])
def test_a_parabola_in_log_damping_is_found_at_its_top(monkeypatch, at):
    """The agreement is largest at 10^at, between points of the grid, on whichever side of the best of them."""
    monkeypatch.setattr(module, "agreement", lambda scores, _: 1 - (scores.log10() - at).square())
    kept = pairs(4, 10)
    halves = Halves(kept, torch.zeros(len(kept), 1))
    found = choose_by_agreement(lambda g: torch.full((1,), g).double(), [1e-2, 1e-1, 1.0, 10.0, 100.0], halves)
    assert math.log10(found.value) == pytest.approx(at, abs=1e-6)


@pytest.mark.parametrize("count", [3, 5, 9])
def test_the_error_of_a_mean_over_pairs_is_its_standard_error(monkeypatch, count):
    """For a statistic that is a mean over pairs of halves the jackknife gives exactly s/√pairs."""
    monkeypatch.setattr(module, "agreement", lambda _, halves: halves.outcomes[::2].mean(0))
    kept, values = pairs(count, 12), np.random.default_rng(count).normal(size=count)
    halves = Halves(kept, torch.as_tensor(values).repeat_interleave(2)[:, None])
    error = module._jackknife(torch.zeros(1, 12), halves)
    assert error == pytest.approx(values.std(ddof=1) / count**0.5, rel=1e-9)
