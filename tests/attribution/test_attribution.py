"""Engines by name give what their functions give."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from memspace.attribution.attribution import attribute, uses_training
from memspace.attribution.ensemble import ensemble
from memspace.attribution.influence import influence
from memspace.attribution.left_out import kept_parts
from memspace.attribution.settings import InfluenceSettings
from memspace.attribution.unrolled import Unrolled, unrolled
from memspace.errors import TaskError
from memspace.task.builtin.train import fit
from memspace.task.data import Data
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Task
from memspace.training.refit import refit_many

N, QUERIES = 24, [1, 3]


def network():
    return nn.Sequential(nn.Linear(2, 6), nn.GELU(), nn.Linear(6, 3))


@pytest.fixture(scope="module")
def task():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N + 6, 2, generator=g)
    y = (x @ torch.randn(2, 3, generator=g)).argmax(1)
    recipe = Recipe(5, 8, 0.1, 1e-3, optimiser="sgd")
    trained = fit(network, x[:N], y[:N], recipe, seed=3)
    return Task(trained.model, Data((x[:N], y[:N])), test=Data((x[N:], y[N:])), run=trained.run, decay=1e-3,
                training=Training(network, recipe))  # fmt: skip


def test_names_are_the_functions(task):
    settings = Unrolled(3, checks=0)
    assert torch.equal(
        attribute(task, QUERIES, engine="unrolled", training=settings).scores,
        unrolled(task, QUERIES, settings=settings).scores,
    )
    both = attribute(task, QUERIES, engine="ensemble", networks=2, training=settings)
    each = [unrolled(task, QUERIES, settings=Unrolled(s, checks=0)).scores for s in (3, 4)]
    torch.testing.assert_close(both.scores, (each[0] + each[1]) / 2, rtol=1e-5, atol=1e-7)
    assert both.reliable, both.note
    assert both.engine == "ensemble of 2, unrolled"
    assert attribute(task, QUERIES, engine="segments").engine == "segments, ekfac"


def test_an_ensemble_of_a_metric_engine_sets_the_damping_once(task):
    few = InfluenceSettings(retrainings=2)
    one = attribute(task, QUERIES, engine="ensemble:ekfac", networks=1, training=Unrolled(3), settings=few)
    two = attribute(task, QUERIES, engine="ensemble:ekfac", networks=2, training=Unrolled(3), settings=few)
    assert one.damping == two.damping
    alone = influence(task, QUERIES, engine="ekfac", damping=one.damping)
    torch.testing.assert_close(one.scores, alone.scores, rtol=1e-2, atol=1e-4)
    assert (two.error > 0).any()


def test_names_that_are_none(task):
    for engine in ("folded", "unrolled:ekfac", ""):
        with pytest.raises(TaskError, match="there is no engine"):
            attribute(task, QUERIES, engine=engine)
    assert uses_training("ensemble:dual")
    assert not uses_training("dual")


def test_members_of_an_ensemble_are_trained_without_the_share_and_score_all(task):
    point = Unrolled(3, left_out=0.5)
    few = InfluenceSettings(retrainings=2)
    found = attribute(task, QUERIES, engine="ensemble:dual", networks=2, training=point, settings=few)
    index = kept_parts(N, 0.5, 2, 3)
    nets = refit_many(task, index, [3, 4])
    by_net = [
        influence(replace(task, model=m, run=None), QUERIES, engine="dual", damping=found.damping, settings=few)
        for m in nets
    ]
    torch.testing.assert_close(found.scores, (by_net[0].scores + by_net[1].scores) / 2, rtol=1e-4, atol=1e-6)
    assert found.engine == "ensemble of 2, dual, each trained without 50%"
    whole = attribute(task, QUERIES, engine="ensemble:dual", networks=2, training=Unrolled(3), settings=few)
    assert not torch.allclose(whole.outcome, found.outcome)


def test_the_unrolled_members_of_an_ensemble_see_all_data(task):
    point = Unrolled(3, left_out=0.5, checks=0)
    both = attribute(task, QUERIES, engine="ensemble", networks=2, training=point)
    each = [unrolled(task, QUERIES, settings=Unrolled(s, left_out=0.5, checks=0)).scores for s in (3, 4)]
    torch.testing.assert_close(both.scores, (each[0] + each[1]) / 2, rtol=1e-5, atol=1e-7)


@given(st.integers(2, 60), st.floats(0, 0.99), st.integers(1, 12), st.integers(0, 9))
def test_every_example_is_left_out_as_often(n, share, count, seed):
    kept = kept_parts(n, share, count, seed)
    out = min(round(share * n), n - 1)
    assert kept.shape == (count, n - out)
    assert all(len(set(row.tolist())) == n - out for row in kept)
    left = count - torch.bincount(kept.flatten(), minlength=n)
    assert int(left.sum()) == count * out
    if out:
        shuffles = -(-count // (n // out))
        assert int(left.max()) <= shuffles  # at most once a shuffle
    if 2 * out == n and count >= 2:
        assert sorted(kept[:2].flatten().tolist()) == list(range(n))


def test_shares_that_cannot_be_left_out(task):
    def base(one, seed):
        return influence(one, QUERIES, engine="ekfac", damping=0.1)

    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(TaskError, match="cannot be left out"):
            ensemble(task, base, seeds=[0], left_out=share)
    with pytest.raises(TaskError, match="of one's own"):
        ensemble(task, base, networks=[task.model], left_out=0.5)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_error_of_an_ensemble_is_that_of_a_mean_over_networks(task, count):
    one = influence(task, QUERIES, engine="ekfac", damping=0.1)
    drawn = torch.randn(count, *one.scores.shape, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    found = ensemble(task, lambda _, m: replace(one, scores=drawn[m].float()), networks=[task.model] * count)
    torch.testing.assert_close(found.error.double(), drawn.std(0) / count**0.5, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.scores.double(), drawn.mean(0), rtol=1e-4, atol=1e-6)
