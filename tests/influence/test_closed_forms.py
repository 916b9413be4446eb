"""Regressions whose change by one example is known exactly."""

import pytest
import torch
from torch import nn

from memspace.attribution.influence import influence
from memspace.attribution.settings import InfluenceSettings
from memspace.task.likelihood import Categorical, Gaussian
from memspace.task.task import Task

TIGHT = InfluenceSettings(tolerance=1e-11, limit=300)
ENGINES = ("ekfac", "dual", "iterative")  # of one layer and one output EKFAC is exact, too


def ridge(n=30, p=4, alpha=3.0, seed=0):
    """Weights of least ½Σ(xw − y)² + α/2‖w‖², as a network, with its data and the solver."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, p, generator=g, dtype=torch.float64)
    y = x @ torch.randn(p, 1, generator=g, dtype=torch.float64) + torch.randn(n, 1, generator=g, dtype=torch.float64)

    def solve(weight):
        return torch.linalg.solve(
            x.T @ (weight[:, None] * x) + alpha * torch.eye(p).double(), x.T @ (weight[:, None] * y)
        )

    model = nn.Linear(p, 1, bias=False).double()
    model.weight.data = solve(torch.ones(n).double()).T.contiguous()
    queries = torch.randn(5, p, generator=g, dtype=torch.float64), torch.randn(5, 1, generator=g, dtype=torch.float64)
    return Task(model=model, train=(x, y), test=queries, likelihood=Gaussian(1.0)), solve, alpha / n


@pytest.mark.parametrize("engine", ENGINES)
def test_the_prediction_of_ridge_regression_without_an_example(engine):
    task, solve, gamma = ridge()
    x, _y = task.train.batch(range(30)).x, task.train.labels()
    queries = task.test.batch(range(5)).x

    def prediction(f, y):
        return f[:, 0]

    found = influence(task, engine=engine, damping=gamma, target=prediction, settings=TIGHT)
    # Sherman–Morrison: leaving example i out divides its first-order effect by 1 − h_i.
    m = x.T @ x + gamma * 30 * torch.eye(4).double()
    h = (x @ torch.linalg.inv(m) * x).sum(1)
    for i in range(30):
        weight = torch.ones(30).double()
        weight[i] = 0
        change = (queries @ (solve(torch.ones(30).double()) - solve(weight))).flatten()
        assert torch.allclose(found.scores[:, i] / (1 - h[i]), change, rtol=1e-8, atol=1e-10)
    assert torch.allclose(found.outcome, (queries @ solve(torch.ones(30).double())).flatten())


@pytest.mark.parametrize("engine", ENGINES)
def test_the_loss_is_the_derivative_in_the_examples_weight(engine):
    task, solve, gamma = ridge(seed=1)
    found = influence(task, engine=engine, damping=gamma, settings=TIGHT)
    qx, qy = task.test.batch(range(5)).x, task.test.labels()

    def outcome(weight):
        return -0.5 * (qx @ solve(weight) - qy).square().flatten()

    derivative = torch.autograd.functional.jacobian(outcome, torch.ones(30).double())
    assert torch.allclose(found.scores, derivative, rtol=1e-8, atol=1e-10)


def logistic(n=40, p=3, k=3, decay=0.02, seed=0):
    """Multinomial regression trained to its optimum by Newton steps."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, p, generator=g, dtype=torch.float64)
    y = (x @ torch.randn(p, k, generator=g, dtype=torch.float64) + torch.randn(n, k, generator=g).double()).argmax(1)

    def objective(w, weight):
        loss = nn.functional.cross_entropy(x @ w.reshape(k, p).T, y, reduction="none")
        return (weight * loss).sum() + n * decay / 2 * w.square().sum()

    def fit(weight):
        w = torch.zeros(k * p, dtype=torch.float64)
        for _ in range(30):
            grad = torch.autograd.functional.jacobian(lambda v: objective(v, weight), w)
            w = w - torch.linalg.solve(torch.autograd.functional.hessian(lambda v: objective(v, weight), w), grad)
        return w

    model = nn.Linear(p, k, bias=False).double()
    model.weight.data = fit(torch.ones(n).double()).reshape(k, p)
    tx = torch.randn(4, p, generator=g, dtype=torch.float64)
    return Task(model=model, train=(x, y), test=(tx, torch.tensor([0, 1, 2, 0])), likelihood=Categorical()), fit, decay


@pytest.mark.parametrize("engine", ["dual", "iterative"])
def test_logistic_regression_trained_with_a_little_less_of_an_example(engine):
    # Of this model the Fisher matrix is the Hessian: the score is the exact derivative of the retrained outcome.
    task, fit, decay = logistic()
    found = influence(task, engine=engine, damping=decay, target="margin", settings=TIGHT)
    qx, qy = task.test.batch(range(4)).x, task.test.labels()

    def outcome(w):
        f = qx @ w.reshape(3, 3).T
        others = f.scatter(1, qy[:, None], -torch.inf).logsumexp(1)
        return f.gather(1, qy[:, None])[:, 0] - others

    step = 1e-4
    for i in (0, 7, 39):
        up, down = torch.ones(40).double(), torch.ones(40).double()
        up[i], down[i] = 1 + step, 1 - step
        derivative = (outcome(fit(up)) - outcome(fit(down))) / (2 * step)
        assert torch.allclose(found.scores[:, i], derivative, rtol=1e-5, atol=1e-8)  # central difference: step²


def test_a_copy_of_the_query_supports_it_and_a_wrong_label_opposes():
    task, _, decay = logistic(seed=3)
    x, y = task.train.batch(range(40)).x, task.train.labels()
    wrong = torch.cat([y, (y[:1] + 1) % 3]), torch.cat([x, x[:1]])
    own = Task(model=task.model, train=(wrong[1], wrong[0]), test=(x[:1], y[:1]))
    found = influence(own, [0], engine="dual", damping=decay)
    assert found.scores[0, 0] > 0 > found.scores[0, -1]
