"""Engines by name give what their functions give."""

import pytest
import torch
from torch import nn

from memspace.errors import TaskError
from memspace.influence.attribution import attribute, uses_training
from memspace.influence.influence import influence
from memspace.influence.settings import Settings
from memspace.influence.unrolled import Unrolled, unrolled
from memspace.task.builtin.train import fit
from memspace.task.data import Data
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Task

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
    few = Settings(retrainings=2)
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
