"""The unrolled and the ensemble engine: units, signs, agreement with retraining, and what is flagged."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from memspace.attribution.ensemble import checkpoints, ensemble, other_seeds
from memspace.attribution.result import Influence
from memspace.attribution.target import Target
from memspace.attribution.unrolled import Unrolled, unrolled
from memspace.errors import TaskError
from memspace.measurement import Unmeasured
from memspace.task.builtin.train import fit
from memspace.task.data import Data
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Task
from memspace.training.many import train_many

N, QUERIES = 40, torch.tensor([0, 3, 5])
RECIPE = Recipe(6, 16, 0.1, 1e-3, optimiser="sgd")


def network():
    return nn.Sequential(nn.Linear(2, 8), nn.GELU(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def task():
    return made(RECIPE)


def made(recipe, seed=0):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N + 8, 2, generator=g)
    y = (x @ torch.randn(2, 3, generator=g)).argmax(1)
    trained = fit(network, x[:N], y[:N], recipe, seed=seed)
    return Task(trained.model, Data((x[:N], y[:N])), test=Data((x[N:], y[N:])), run=trained.run, decay=recipe.decay,
                training=Training(network, recipe))  # fmt: skip


def retrained(task, weights, seed=0):
    """−loss (S, Q) of networks trained at weights (S, N)."""
    whole = task.train.batch(range(N))
    nets = train_many(task.training, whole.x, whole.y, task.likelihood, seeds=[seed] * len(weights), weights=weights)
    part = task.test.batch(QUERIES)
    return torch.stack([-task.likelihood.nll(f, part.y) for f in nets.outputs(part.x)])


def test_leaving_one_example_out_changes_the_outcome_as_the_score_says(task):
    """Sign and unit: score = outcome with minus outcome without, for the whole weight of single examples."""
    found = unrolled(task, QUERIES)
    weights = torch.ones(N + 1, N)
    weights[torch.arange(N), torch.arange(N)] = 0
    q = retrained(task, weights)
    effect = (q[-1] - q[:-1]).T
    assert float(effect.abs().max()) > 1e-2
    for mine, truth in zip(found.scores, effect, strict=True):
        assert torch.corrcoef(torch.stack([mine, truth]))[0, 1] > 0.99
        assert 0.8 < float(mine @ truth / (truth @ truth)) < 1.25
    torch.testing.assert_close(found.outcome, q[-1], rtol=1e-4, atol=1e-5)
    assert found.reliable, found.note
    assert found.unit == "nats"


def test_expanding_at_the_mean_weight_predicts_halves_better(task):
    g = torch.Generator().manual_seed(5)
    weights = (torch.rand(64, N, generator=g) < 0.5).float()
    truth = retrained(task, weights)

    def error(left_out):
        scores = unrolled(task, QUERIES, settings=Unrolled(left_out=left_out, checks=0)).scores
        residual = truth - weights @ scores.T
        return float((residual - residual.mean(0)).square().mean())

    centred = float((truth - truth.mean(0)).square().mean())
    assert error(0.5) < 0.5 * min(error(0.0), centred)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_several_points_are_the_median_of_derivatives_about_the_mean_weight(task, share):
    found = unrolled(task, QUERIES, settings=Unrolled(left_out=share, points=3, checks=0))
    width = min(share, 1 - share) / 2
    each = [
        unrolled(task, QUERIES, settings=Unrolled(weights=torch.full((N,), 1 - share + d), checks=0)).scores
        for d in (-width, 0.0, width)
    ]
    torch.testing.assert_close(found.scores, torch.stack(each).sort(0).values[1], rtol=1e-4, atol=1e-6)
    assert not torch.equal(found.scores, each[1])
    roughness = found.diagnostic("unrolled.roughness")
    assert 0 < roughness.value < 1
    assert "3 reverse passes" in found.diagnostic("unrolled.trainings_per_outcome").estimator


@given(st.floats(0.01, 0.99), st.integers(0, 6))
def test_the_points_surround_the_mean_weight_and_no_weight_is_negative(share, pairs):
    w = torch.stack(Unrolled(left_out=share, points=2 * pairs + 1).at(3))
    assert w.shape == (2 * pairs + 1, 3)
    assert float(w.min()) >= 0
    assert float(w.max()) <= 1
    torch.testing.assert_close(w.mean(0), torch.full((3,), 1 - share))
    torch.testing.assert_close(w[0], torch.full((3,), 1 - share))
    assert len(w[:, 0].unique()) == len(w)


def test_target_is_the_users_and_the_outcomes_own_units(task):
    def double(law, f, y):
        return -2 * law.nll(f, y)

    once = unrolled(task, QUERIES, settings=Unrolled(checks=0))
    twice = unrolled(task, QUERIES, target=Target("double", double, "half nats"), settings=Unrolled(checks=0))
    torch.testing.assert_close(twice.scores, 2 * once.scores)
    assert twice.unit == "half nats"
    named = unrolled(task, QUERIES, target="logit:0-1", settings=Unrolled(checks=0))
    assert named.target == "logit 0 - 1"


def test_queries_together_equal_queries_one_by_one(task):
    together = unrolled(task, QUERIES, settings=Unrolled(checks=0)).scores
    alone = torch.cat([unrolled(task, QUERIES[k : k + 1], settings=Unrolled(checks=0)).scores
                       for k in range(len(QUERIES))])  # fmt: skip
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-7)


def test_memory_and_precision_are_the_askers_choice(task):
    plain = unrolled(task, QUERIES, settings=Unrolled(checks=0))
    small = plain.diagnostic("unrolled.kept_states").value - 1
    tight = unrolled(task, QUERIES, settings=Unrolled(checks=0, memory=small))
    assert torch.equal(plain.scores, tight.scores)
    assert tight.diagnostic("unrolled.kept_states").value < small / 2
    exact = unrolled(task, QUERIES, settings=Unrolled(checks=2, dtype=torch.float64))
    assert exact.scores.dtype == task.dtype
    torch.testing.assert_close(exact.scores, plain.scores, rtol=1e-2, atol=1e-4)


def test_another_seed_than_the_networks_is_flagged(task):
    found = unrolled(task, QUERIES, settings=Unrolled(seed=1, checks=0))
    assert not found.reliable
    assert "another network" in found.note
    assert not found.diagnostic("unrolled.reproduction").reliable


def test_a_training_that_is_not_smooth_in_the_weights_is_flagged():
    """At forty times the rate the training is chaotic: examples' small weights change everything."""
    rough = made(replace(RECIPE, epochs=60, rate=4.0, momentum=0.9))
    found = unrolled(rough, QUERIES)
    agreement = found.diagnostic("unrolled.agreement")
    assert not agreement.reliable
    assert "not smooth" in found.note
    assert not found.reliable


def test_a_smooth_training_is_trusted_and_the_check_says_so(task):
    found = unrolled(task, QUERIES)
    agreement, smooth = (found.diagnostic(f"unrolled.{n}") for n in ("agreement", "metasmoothness"))
    assert agreement.reliable
    assert agreement.value > 0.9
    assert 0.5 < smooth.value <= 1


def test_bad_requests_are_refused(task):
    with pytest.raises(TaskError, match="give the Task training="):
        unrolled(replace(task, training=None), QUERIES)
    with pytest.raises(TaskError, match="share from 0"):
        Unrolled(left_out=1.0)
    for wrong in (
        {"points": 2, "left_out": 0.1},
        {"points": 3},
        {"points": 0},
        {"points": 3, "weights": torch.ones(N)},
    ):
        with pytest.raises(TaskError, match="cannot be taken at"):
            Unrolled(**wrong)
    other = Training(lambda: nn.Linear(2, 3), RECIPE)
    with pytest.raises(TaskError, match="other parameters"):
        unrolled(replace(task, training=other), QUERIES)


def toy(task, seed):
    """An engine whose scores are the network's own outputs, to see what an ensemble does with them."""
    part = task.test.batch(QUERIES)
    with torch.no_grad():
        f = task.model(part.x)
    return Influence(f @ torch.linspace(0.5, 1.5, 3 * N).reshape(3, N), "toy", "loss", "nats", QUERIES, f[:, 0])


def test_an_ensemble_of_one_is_the_single_engine(task):
    def base(t, s):
        return unrolled(t, QUERIES, settings=Unrolled(seed=s, checks=0))

    alone = base(task, 0)
    found = ensemble(task, base, seeds=[0])
    torch.testing.assert_close(found.scores, alone.scores, rtol=1e-5, atol=1e-7)
    assert found.reliable
    assert found.error is None
    assert isinstance(found.diagnostic("ensemble.seed_noise"), Unmeasured)
    own = ensemble(task, toy, networks=[task.model])
    assert torch.equal(own.scores, toy(task, 0).scores)


def test_mean_and_standard_error_over_networks(task):
    members = [t for t, _ in other_seeds(task, [0, 1, 2])]
    each = torch.stack([toy(t, 0).scores for t in members])
    found = ensemble(task, toy, seeds=[0, 1, 2])
    torch.testing.assert_close(found.scores, each.mean(0), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.error, each.std(0) / math.sqrt(3), rtol=1e-5, atol=1e-7)
    noise = (each.var(0) / 3).mean() / found.scores.var(1, correction=0).mean()
    assert found.diagnostic("ensemble.seed_noise").value == pytest.approx(float(noise), rel=1e-4)


def test_members_are_what_the_seeds_train_and_the_task_is_untouched(task):
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    member, seed = next(iter(other_seeds(task, [0])))
    assert seed == 0
    for k, v in member.model.state_dict().items():
        torch.testing.assert_close(v, before[k], rtol=1e-3, atol=1e-4)
    states = checkpoints(task, 3)
    assert len(states) == 3
    ensemble(task, toy, networks=states)
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    refitted = replace(task, training=None, refit=lambda index, s: fit(
        network, task.train.batch(index).x, task.train.batch(index).y, RECIPE, seed=s, record=False).model)  # fmt: skip
    torch.testing.assert_close(
        ensemble(refitted, toy, seeds=[1]).scores, ensemble(task, toy, seeds=[1]).scores, rtol=1e-3, atol=1e-4
    )


def test_ensembles_that_cannot_be_are_refused(task):
    for bad in ({}, {"seeds": []}, {"seeds": [1], "networks": [task.model]}, {"seeds": list(range(11))}):
        with pytest.raises(TaskError, match="1 to 10 seeds"):
            ensemble(task, toy, **bad)
    with pytest.raises(TaskError, match="cannot be trained again"):
        ensemble(replace(task, training=None, refit=None), toy, seeds=[0])
    with pytest.raises(TaskError, match="no checkpoints"):
        checkpoints(replace(task, run=None))
    answers = iter([toy(task, 0), replace(toy(task, 0), queries=QUERIES + 1)])
    with pytest.raises(TaskError, match="different questions"):
        ensemble(task, lambda t, s: next(answers), networks=[task.model, task.model])
    flagged = ensemble(task, lambda t, s: replace(toy(t, s), reliable=False, note="bad"), networks=[task.model])
    assert not flagged.reliable
    assert "network 0: bad" in flagged.note


def test_positions_of_a_sequence_are_outcomes_of_their_own():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 4, 2, generator=g), torch.randint(3, (12, 4), generator=g)
    y[1, 2:] = -100  # padded
    recipe = Recipe(4, 5, 0.1, 1e-3, optimiser="sgd")
    sequences = Task(network().eval(), Data((x[:10], y[:10])), test=Data((x, y)), training=Training(network, recipe))
    settings = Unrolled(checks=2)
    whole = unrolled(sequences, [1, 11], settings=settings)
    apart = unrolled(sequences, [1, 11], settings=settings, tokens="queries")
    assert apart.queries.tolist() == [1, 1, 11, 11, 11, 11]
    assert apart.positions.tolist() == [0, 1, 0, 1, 2, 3]
    summed = torch.zeros(2, 10).index_add_(0, torch.tensor([0, 0, 1, 1, 1, 1]), apart.scores)
    torch.testing.assert_close(summed, whole.scores, rtol=1e-4, atol=1e-6)
    assert not whole.reliable  # the model was never trained
    with pytest.raises(TaskError, match="has no tokens"):
        unrolled(sequences, [1], tokens="training")
