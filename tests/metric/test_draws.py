"""The uniform numbers that sampled labels are made of, and the labels."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from memspace.passes.draws import uniforms
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Poisson

CPU = torch.device("cpu")
CHANCE = 1e-6  # of a false alarm in each of these tests


def drawn(seed, n, shape=(), dtype=torch.float64):
    return uniforms(seed, torch.arange(n), shape, dtype, CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_they_are_uniform_and_never_0_or_1(seed, dtype):
    u = drawn(seed, 2000, (50,), dtype)
    assert u.dtype == dtype
    assert 0 < float(u.min()) < float(u.max()) < 1
    assert stats.kstest(u.flatten().double().numpy(), "uniform").pvalue > CHANCE


@pytest.mark.parametrize("lag", [1, 2, 3, 10, 64])
def test_neighbours_are_independent(lag):
    u = drawn(3, 1000, (100,)).numpy()
    by_seed = drawn(3 + lag, 1000, (100,)).numpy()
    for a, b in ((u[:-lag], u[lag:]), (u[:, :-lag], u[:, lag:]), (u, by_seed)):
        table = np.histogram2d(a.ravel(), b.ravel(), 8, [[0, 1], [0, 1]])[0]
        assert stats.chisquare(table.ravel()).pvalue > CHANCE


def test_they_belong_to_the_example():
    whole = drawn(7, 20, (3, 2))
    some = torch.tensor([19, 0, 4])
    assert torch.equal(uniforms(7, some, (3, 2), torch.float64, CPU), whole[some])
    # A longer sequence has the same numbers at the places they share.
    assert torch.equal(drawn(7, 20, (9,))[:, :6], whole.flatten(1))


def test_labels_at_uniform_levels_follow_the_law():
    n = 40_000
    u = drawn(11, n, (2,))
    f = torch.tensor([0.3, -1.2], dtype=torch.float64).expand(n, 2)
    gauss = Gaussian(0.7).quantile(f, u)
    assert stats.kstest(gauss[:, 1].numpy(), stats.norm(-1.2, 0.7).cdf).pvalue > CHANCE
    counts = np.bincount(Poisson().quantile(f, u)[:, 0].long().numpy(), minlength=12)[:8]
    expected = n * stats.poisson(math.exp(0.3)).pmf(np.arange(8))
    assert stats.chisquare(np.append(counts, n - counts.sum()), np.append(expected, n - expected.sum())).pvalue > CHANCE
    ones = int(Bernoulli().quantile(f, u)[:, 0].sum())
    assert stats.binomtest(ones, n, 1 / (1 + math.exp(-0.3))).pvalue > CHANCE
    logits = torch.tensor([2.0, -math.inf, 0.0, 1.0, -math.inf], dtype=torch.float64)
    classes = np.bincount(Categorical().quantile(logits.expand(n, 5), u[:, 0]).numpy(), minlength=5)
    assert classes[1] == classes[4] == 0
    p = torch.softmax(logits, 0).numpy()[[0, 2, 3]]
    assert stats.chisquare(classes[[0, 2, 3]], n * p).pvalue > CHANCE


@pytest.mark.parametrize("level", [2.0**-24, 1 - 2.0**-24])
def test_the_outermost_levels_give_classes_that_can_occur(level):
    f = torch.randn(5000, 30, generator=torch.Generator().manual_seed(0)) * 3
    f[:, [0, 29]] = -math.inf
    y = Categorical().quantile(f, torch.full((5000,), level))
    assert int(y.min()) >= 1
    assert int(y.max()) <= 28
