"""Segments of a training: the limits where they are an influence function, a product of gradients, and the truth."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from memspace.attribution.influence import influence
from memspace.attribution.segments import Segment, cut, filtered, segmented
from memspace.attribution.unrolled import Unrolled, unrolled
from memspace.errors import TaskError
from memspace.task.builtin.train import fit
from memspace.task.data import Data
from memspace.task.likelihood import Gaussian
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Run, Task

N, QUERIES, DECAY = 30, [0, 2], 0.05


def network():
    return nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3))


@pytest.fixture(scope="module")
def task():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N + 4, 2, generator=g)
    y = (x @ torch.randn(2, 3, generator=g)).argmax(1)
    recipe = Recipe(20, None, 0.2, DECAY, optimiser="sgd", momentum=0.0)
    trained = fit(network, x[:N], y[:N], recipe, seed=0)
    return Task(trained.model, Data((x[:N], y[:N])), test=Data((x[N:], y[N:])), run=trained.run, decay=DECAY)


def standing(task, time):
    """A training that stood at the final weights for that learning-rate time."""
    state = task.run.states[-1]
    return replace(task, run=Run((state, state), (0.0, time), (0, 1)))


@pytest.mark.parametrize("engine", ["dual", "ekfac"])
def test_a_long_stand_at_the_end_is_the_influence_function_with_the_decay_as_damping(task, engine):
    """1 − e^{−τ(x + γ)} is 1 to rounding at τγ = 50."""
    found = segmented(standing(task, 50 / DECAY), QUERIES, engine=engine)
    truth = influence(task, QUERIES, engine=engine, damping=DECAY)
    torch.testing.assert_close(found.scores, truth.scores, rtol=1e-4, atol=1e-6)
    assert found.diagnostic("segments.remembered").value < 1e-10


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_short_one_is_the_product_of_gradients(task, momentum):
    """Score = (τ/N) ⟨∇q, −∇ℓ_i⟩ to first order in τ; momentum makes steps 1/(1 − μ) longer."""
    tau = 1e-4
    found = segmented(standing(task, tau), QUERIES, engine="dual", momentum=momentum)
    held = influence(task, QUERIES, engine="dual", damping=1e8)  # (F + γ)⁻¹ → 1/γ
    torch.testing.assert_close(found.scores, held.scores * 1e8 * tau / (1 - momentum), rtol=1e-2, atol=1e-9)


def test_a_linear_model_in_many_segments_is_the_gradient_through_its_training():
    """F is constant there, so what is left is a sum for an integral over the path: a segment of 400/20 steps each."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N + 4, 3, generator=g, dtype=torch.float64)
    y = x @ torch.randn(3, 1, generator=g, dtype=torch.float64) + torch.randn(
        N + 4, 1, generator=g, dtype=torch.float64
    )

    def make():
        return nn.Linear(3, 1, bias=False).double()

    recipe = Recipe(400, None, 0.02, DECAY, optimiser="sgd", momentum=0.0, checkpoints=200)
    model = make()
    states, time = [], [0.0]
    torch.manual_seed(0)
    model = make()
    for k in range(recipe.steps(N)):
        states.append({n: t.detach().clone() for n, t in model.state_dict().items()})
        w = states[-1]["weight"]
        gradient = ((w @ x[:N].T - y[:N].T) @ x[:N]) / N + DECAY * w
        with torch.no_grad():
            model.weight -= recipe.rate_at(k, 400) * gradient
        time.append(time[-1] + recipe.rate_at(k, 400))
    states.append({n: t.detach().clone() for n, t in model.state_dict().items()})
    run = Run(tuple(states), tuple(time), tuple(range(401)))
    task = Task(model, Data((x[:N], y[:N])), Gaussian(1.0), test=Data((x[N:], y[N:])), run=run, decay=DECAY,
                training=Training(make, recipe))  # fmt: skip
    truth = unrolled(task, QUERIES, settings=Unrolled(checks=0))
    assert truth.reliable, truth.note

    def apart(count):
        scores = segmented(task, QUERIES, engine="dual", count=count).scores
        return float((scores - truth.scores).norm() / truth.scores.norm())

    assert apart(20) < 0.02  # Euler's steps are of order rate·eigenvalue ≈ 0.02
    assert apart(20) < apart(1) / 4


def test_stretches_have_equal_time_and_the_state_nearest_their_middle():
    run = Run(tuple({} for _ in range(4)), (0.0, 1.0, 2.0, 12.0), (0, 1, 2, 12))
    assert cut(run, 1) == (Segment(2, 12.0),)
    assert cut(run, 3) == (Segment(2, 8.0), Segment(3, 4.0))
    assert sum(s.time for s in cut(run, 7)) == pytest.approx(12.0)


def test_the_filter_is_the_time_where_nothing_pulls_back():
    x = torch.tensor([0.0, 1e-12, 0.5, 1e6], dtype=torch.float64)
    expected = torch.tensor([3.0, 3.0, (1 - torch.exp(torch.tensor(-1.5, dtype=torch.float64))) / 0.5, 1e-6])
    torch.testing.assert_close(filtered(3.0, 0.0)(x), expected.double(), rtol=1e-7, atol=0)


def test_the_task_is_untouched_and_bad_requests_are_refused(task):
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    segmented(task, QUERIES)
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    with pytest.raises(TaskError, match="recorded checkpoints"):
        segmented(replace(task, run=None), QUERIES)
    with pytest.raises(TaskError, match="no metric"):
        segmented(task, QUERIES, engine="iterative")
    adam = replace(task, training=Training(network, Recipe(1, None, 0.1, DECAY)))
    assert not segmented(adam, QUERIES, count=2).reliable
