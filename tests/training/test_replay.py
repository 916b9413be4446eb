"""The gradient through a training against three references: plain autograd, retraining, closed forms."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from memspace.errors import MemoryBudgetError, NonFiniteError, StochasticModelError, TaskError
from memspace.task.builtin.train import fit
from memspace.task.data import Data
from memspace.task.likelihood import Categorical, Gaussian
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Task
from memspace.training.pull_back import outcomes_together, pull_back
from memspace.training.replay import TrainingReplay, spacing

N, TEST = 12, 3


def small():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))


def with_convolution():
    body = nn.Sequential(nn.Conv1d(1, 2, 2), nn.GELU(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(4, 3))
    return nn.Sequential(nn.Unflatten(1, (1, 5)), body)


def data(features=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(N + TEST, features, generator=g, dtype=torch.float64)
    y = torch.randint(3, (N + TEST,), generator=g)
    return x, y


def task_of(make, recipe, x, y):
    return Task(make().double(), Data((x[:N], y[:N])), test=Data((x[N:], y[N:])), training=Training(make, recipe))


RECIPES = {
    "plain": Recipe(3, None, 0.3, 1e-2, optimiser="sgd", momentum=0.0),
    "momentum": Recipe(3, 5, 0.2, 1e-2, optimiser="sgd", momentum=0.9),
    "adam": Recipe(3, 5, 2e-2, 1e-2, optimiser="adam"),
    "adam, full batch": Recipe(4, None, 2e-2, 0.0, optimiser="adam"),
}


def outcomes(replay, theta, x, y):
    """−loss of the test examples, (TEST,)."""
    f = replay.outputs(replay.unpack(theta), x[N:])
    return -nn.functional.cross_entropy(f, y[N:], reduction="none")


def cotangents(replay, theta, x, y):
    leaf = theta.detach().requires_grad_()
    q = outcomes(replay, leaf, x, y)
    return torch.stack([torch.autograd.grad(v, leaf, retain_graph=True)[0] for v in q])


def derivative(task, x, y, *, weights=None, every=None, together=None):
    replay = TrainingReplay.of(task, 0, weights=weights, dtype=torch.float64)
    trajectory = replay.run(every=every)
    return pull_back(replay, trajectory, cotangents(replay, trajectory.final, x, y), together=together)


def unrolled_loop(task, w, x, y):
    """The same training as a plain python loop of torch operations that autograd differentiates through."""
    recipe, replay = task.training.recipe, TrainingReplay.of(task, 0, dtype=torch.float64)
    model = replay.draws.model
    p = {n: t.detach().clone().requires_grad_() for n, t in model.named_parameters()}
    first = {n: torch.zeros_like(t) for n, t in p.items()}
    second = {n: torch.zeros_like(t) for n, t in p.items()}
    for k, (index, rate) in enumerate(zip(replay.draws.batches, replay.draws.rates, strict=True)):
        losses = nn.functional.cross_entropy(functional_call(model, p, (x[index],)), y[index], reduction="none")
        loss = (w[index] * losses).mean() + recipe.decay / 2 * sum((t**2).sum() for t in p.values())
        grads = dict(zip(p, torch.autograd.grad(loss, list(p.values()), create_graph=True), strict=True))
        for n, g in grads.items():
            if recipe.optimiser == "sgd":
                first[n] = recipe.momentum * first[n] + g
                p[n] = p[n] - rate * first[n]
            else:
                first[n] = 0.9 * first[n] + 0.1 * g
                second[n] = 0.999 * second[n] + 0.001 * g**2
                corrected = (second[n] / (1 - 0.999 ** (k + 1))).sqrt() + 1e-8
                p[n] = p[n] - rate * first[n] / (1 - 0.9 ** (k + 1)) / corrected
    f = functional_call(model, p, (x[N:],))
    return -nn.functional.cross_entropy(f, y[N:], reduction="none")


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
@pytest.mark.parametrize(("make", "features"), [(small, 3), (with_convolution, 5)], ids=["mlp", "conv"])
def test_equals_autograd_through_a_python_loop(make, features, recipe):
    """At weights that are not all one; rounding of some tens of float64 steps stays far below 1e-10."""
    x, y = data(features)
    task = task_of(make, recipe, x, y)
    w = torch.linspace(0.0, 1.5, N, dtype=torch.float64).requires_grad_()
    q = unrolled_loop(task, w, x, y)
    truth = torch.stack([torch.autograd.grad(v, w, retain_graph=True)[0] for v in q])
    scores = derivative(task, x, y, weights=w)
    assert truth.abs().max() > 1e-3
    torch.testing.assert_close(scores, truth, rtol=1e-10, atol=1e-10 * float(truth.abs().max()))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_equals_finite_differences_of_retrained_networks(recipe):
    """Central differences err by h²/6 of the third derivative and eps/h: halving h must quarter the distance."""
    x, y = data()
    task = task_of(small, recipe, x, y)
    scores = derivative(task, x, y)
    direction = torch.randn(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def difference(h):
        ends = []
        for sign in (1, -1):
            replay = TrainingReplay.of(task, 0, weights=1 + sign * h * direction, dtype=torch.float64)
            ends.append(outcomes(replay, replay.run().final, x, y))
        return (ends[0] - ends[1]) / (2 * h)

    along = scores @ direction
    coarse, fine = ((difference(h) - along).abs().max() for h in (2e-3, 1e-3))
    assert coarse < 1e-4 * along.abs().max()
    rounding = 1e-13 / 1e-3
    assert fine < coarse / 3 + rounding


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("batch", [5, None])
def test_repeats_the_builtin_training(optimiser, batch):
    recipe = Recipe(3, batch, 2e-2, 1e-2, optimiser=optimiser)
    x, y = data()
    x = x.float()
    model = fit(small, x[:N], y[:N], recipe, seed=4).model
    replay = TrainingReplay.of(task_of(small, recipe, x, y), 4, dtype=torch.float32)
    theirs = replay.pack(dict(model.named_parameters()))
    torch.testing.assert_close(replay.run().final, theirs.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_checkpoints_and_grouping_of_outcomes_do_not_change_the_result(name):
    x, y = data()
    task = task_of(small, RECIPES[name], x, y)
    whole = derivative(task, x, y, every=1, together=TEST)
    for every in (2, 4, 100):
        assert torch.equal(derivative(task, x, y, every=every, together=TEST), whole)
    for together in (1, 2):
        torch.testing.assert_close(derivative(task, x, y, together=together), whole, rtol=1e-12, atol=1e-14)


def test_one_full_batch_step_is_the_learning_rate_times_the_gradients_product():
    """θ' = θ − η((1/N) Σ w ∇ℓ + γθ): ∂q/∂w_j = −(η/N) ⟨∇q(θ'), ∇ℓ_j(θ)⟩; a cosine of one step starts at η."""
    x, y = data()
    rate = 0.3
    task = task_of(small, Recipe(1, None, rate, 1e-2, optimiser="sgd"), x, y)
    replay = TrainingReplay.of(task, 0, dtype=torch.float64)
    trajectory = replay.run()
    start = replay.start()[0].requires_grad_()
    losses = nn.functional.cross_entropy(replay.outputs(replay.unpack(start), x[:N]), y[:N], reduction="none")
    each = torch.stack([torch.autograd.grad(v, start, retain_graph=True)[0] for v in losses])
    v = cotangents(replay, trajectory.final, x, y)
    torch.testing.assert_close(pull_back(replay, trajectory, v), -rate / N * v @ each.T, rtol=1e-12, atol=1e-15)


def test_a_converged_linear_regression_gives_the_influence_function_of_ridge():
    """At the optimum of (1/2N) Σ w_j (x_jᵀθ − y_j)² + γ/2 ‖θ‖²: ∂θ/∂w_j = −(1/N) (XᵀX/N + γ)⁻¹ x_j r_j.

    That is leave-one-out of ridge to first order; the exact one has 1/(1 − h_j) more.
    """
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N + TEST, 3, generator=g, dtype=torch.float64)
    target = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)
    target = target + torch.randn(N + TEST, 1, generator=g, dtype=torch.float64)
    gamma = 0.1

    def make():
        return nn.Linear(3, 1, bias=False)

    recipe = Recipe(600, None, 0.3, gamma, optimiser="sgd", momentum=0.0)
    task = Task(make().double(), Data((x[:N], target[:N])), Gaussian(1.0), training=Training(make, recipe))
    replay = TrainingReplay.of(task, 0, dtype=torch.float64)
    trajectory = replay.run()
    train, h = x[:N], x[:N].T @ x[:N] / N + gamma * torch.eye(3, dtype=torch.float64)
    optimum = torch.linalg.solve(h, train.T @ target[:N] / N)
    torch.testing.assert_close(trajectory.final, optimum[:, 0], rtol=1e-9, atol=1e-9)
    residual = train @ optimum - target[:N]
    scores = pull_back(replay, trajectory, x[N:])  # the outcomes are the predictions x_qᵀθ
    truth = -(x[N:] @ torch.linalg.solve(h, (train * residual).T)) / N
    torch.testing.assert_close(scores, truth, rtol=1e-8, atol=1e-9)


def test_sequences_weigh_whole_sequences():
    """A sequence's loss is the mean over its positions, and one weight moves all of them."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, 3, generator=g, dtype=torch.float64)
    y = torch.randint(3, (6, 4), generator=g)
    task = Task(small().double(), Data((x, y)), training=Training(small, RECIPES["plain"]))
    replay = TrainingReplay.of(task, 0, dtype=torch.float64)
    trajectory = replay.run()
    v = torch.randn(1, len(trajectory.final), generator=g, dtype=torch.float64)
    h = 1e-4
    for j in (0, 5):
        bump = torch.zeros(6, dtype=torch.float64)
        bump[j] = h
        up, down = (TrainingReplay.of(task, 0, weights=1 + s * bump, dtype=torch.float64).run().final for s in (1, -1))
        measured = (v[0] @ (up - down)) / (2 * h)
        assert math.isclose(float(pull_back(replay, trajectory, v)[0, j]), float(measured), rel_tol=1e-5)


def test_an_outcome_that_nothing_moves_has_no_scores_and_an_unused_example_has_none():
    x, y = data()
    task = task_of(small, Recipe(1, 5, 0.1, 0.0, optimiser="sgd"), x, y)
    replay = TrainingReplay.of(task, 0, dtype=torch.float64)
    trajectory = replay.run()
    assert not pull_back(replay, trajectory, torch.zeros(2, len(trajectory.final), dtype=torch.float64)).any()


def test_spacing_keeps_all_states_where_they_fit_and_square_root_many_else():
    assert spacing(100, 10, 1000) == 1
    assert spacing(100, 10, 999) == 10
    assert spacing(10, 1, 8) == 4  # 3 kept and 4 of a segment
    with pytest.raises(MemoryBudgetError, match="are needed at a time"):
        spacing(100, 10, 199)


def test_kept_states_are_what_the_budget_says():
    x, y = data()
    task = task_of(small, RECIPES["momentum"], x, y)
    replay = TrainingReplay.of(task, 0)
    all_kept = replay.run()
    few = replay.run(budget=all_kept.kept_bytes - 1)
    assert all_kept.every == 1
    assert few.every == 3
    assert few.kept_bytes == all_kept.kept_bytes / 3
    assert outcomes_together(replay) > 1


def test_bad_trainings_are_refused_with_a_remedy():
    x, y = data()
    without = Task(small().double(), Data((x, y)))
    with pytest.raises(TaskError, match="give the Task training="):
        TrainingReplay.of(without, 0)
    recipe = RECIPES["momentum"]

    def normed():
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))

    def dropped():
        return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 3))

    for make, error, words in (
        (normed, TaskError, "running statistics"),
        (dropped, StochasticModelError, "dropout"),
    ):
        with pytest.raises(error, match=words):
            TrainingReplay.of(Task(make().double().eval(), Data((x, y)), training=Training(make, recipe)), 0)
    task = task_of(small, recipe, x, y)
    for bad in (torch.ones(N + 1), torch.full((N,), math.nan)):
        with pytest.raises(TaskError, match="one finite weight"):
            TrainingReplay.of(task, 0, weights=bad)
    with pytest.raises(NonFiniteError, match="diverged"):
        TrainingReplay.of(
            Task(nn.Linear(3, 1).double(), Data((x[:N], x[:N, :1])), Gaussian(1.0),
                 training=Training(lambda: nn.Linear(3, 1), Recipe(2000, None, 1e4, 0.0, optimiser="sgd"))),
            0,
        ).run()  # fmt: skip


def test_the_caller_is_left_as_found():
    x, y = data()
    task = task_of(small, RECIPES["momentum"], x, y)
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    derivative(task, x, y)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert Categorical() == task.likelihood
