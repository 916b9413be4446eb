"""Along natural-gradient flow the action spent is the loss bought, and the excess vanishes with the step's square."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from memspace.action.natural import METHODS, NaturalFlow, natural_descent, natural_gradient_flow
from memspace.action.training import training_action
from memspace.passes.space import ParameterSpace
from memspace.progress import Silent
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Likelihood, Poisson
from memspace.task.task import Task
from tests.contract.networks import dense_fisher, jacobian, network

LAWS: list[tuple[str, Likelihood]] = [
    ("linear", Categorical()),
    ("conv1d", Bernoulli()),
    ("norms", Gaussian(0.5)),
    ("linear", Poisson()),
    ("transformer", Categorical()),
]


def _logistic(seed: int) -> Task:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(50, 3, generator=g, dtype=torch.float64)
    y = (torch.rand(50, 1, generator=g) < torch.sigmoid(2 * x[:, :1])).double()
    model = nn.Linear(3, 1).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return Task(model=model, train=(x, y), likelihood=Bernoulli())


def _perceptron(seed: int, width: int = 8) -> Task:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3)).double()
    return Task(model=model, train=(torch.randn(24, 4, dtype=torch.float64), torch.randint(0, 3, (24,))))


@pytest.mark.parametrize(("name", "law"), LAWS)
@pytest.mark.parametrize("share", [0.0, 1e-4, 1.0])
def test_the_natural_gradient_is_the_dense_formulas(name: str, law: Likelihood, share: float) -> None:
    model, x = network(name, 3)
    y = law.sample(model(x).detach(), torch.Generator().manual_seed(1))
    task, space = Task(model=model, train=(x, y), likelihood=law), ParameterSpace(model)
    fisher = dense_fisher(model, space, law, x, y)
    f = model(x).detach()
    g = torch.einsum("nc,ncp->np", law.residual(f, y).flatten(1), jacobian(model, space, x)).mean(0)
    damping = share * float(fisher.trace())
    inverse = (
        torch.linalg.inv(fisher + damping * torch.eye(space.size, dtype=torch.float64))
        if damping
        else torch.linalg.pinv(fisher, rtol=1e-12, hermitian=True)
    )
    found = natural_descent(task, space, torch.arange(len(x)), damping)
    want = -inverse @ g
    tolerance = 1e-5 if share == 0 else 1e-7  # the pseudo-inverse divides by the least eigenvalue kept
    assert torch.allclose(found.velocity, want, rtol=tolerance, atol=tolerance * float(want.abs().max()))
    assert found.squared_slope == pytest.approx(float(-g @ want), rel=tolerance)
    assert found.squared_speed == pytest.approx(float(want @ fisher @ want), rel=10 * tolerance)
    assert found.loss == pytest.approx(float(law.nll(f, y).sum()) / len(x), rel=1e-12)


def test_the_gradient_has_no_part_where_the_metric_has_none() -> None:
    """More parameters than rows: what is bought is still all there, so the slope is that of the odds."""
    task = _perceptron(2, width=60)
    space = ParameterSpace(task.model)
    p = torch.softmax(task.model(task.train.batch(range(24)).x).detach(), -1)
    odds = (1 / p.gather(1, task.train.labels()[:, None]) - 1).mean()
    assert natural_descent(task, space, torch.arange(24)).squared_slope == pytest.approx(float(odds), rel=1e-6)


def _flows(task: Task, method: str, damping: float, duration: float) -> list[NaturalFlow]:
    return [natural_gradient_flow(task, duration, s, damping=damping, method=method) for s in (16, 32, 64)]


def _order(errors: list[float]) -> float:
    return math.log2(abs(errors[-2]) / abs(errors[-1]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("make", "damping"), [(_logistic, 0.0), (_perceptron, 1e-2)])
def test_identity_and_excess_at_their_orders(method: str, make: object, damping: float) -> None:
    assert callable(make)
    flows = _flows(make(5), method, damping, 1.0)
    spent = [f.spent.value - f.bought for f in flows]
    excess = [f.excess.value for f in flows]
    assert _order(spent) == pytest.approx(METHODS[method], abs=0.25)
    assert _order(excess) == pytest.approx(2, abs=0.25)
    assert abs(excess[-1]) < 1e-3 * flows[-1].bought
    assert flows[-1].bought > 0.1


def test_logistic_regression_spends_half_its_loss_as_action() -> None:
    """½∫‖θ̇‖²_F dt against (L(0) − L(T))/2 with Euler steps of 10⁻²: their difference is of the step's order."""
    flow = natural_gradient_flow(_logistic(0), 1.0, 100, method="euler")
    action, half = flow.spent.value / 2, flow.bought / 2
    assert action == pytest.approx(half, rel=2e-2)
    finer = natural_gradient_flow(_logistic(0), 1.0, 200, method="euler")
    assert finer.spent.value / 2 - finer.bought / 2 == pytest.approx((action - half) / 2, rel=0.05)


def test_damping_costs_its_own_term_and_nothing_else() -> None:
    for damping in (1e-3, 1e-1):
        flow = natural_gradient_flow(_perceptron(7), 1.0, 64, damping=damping)
        assert flow.damping_term > 0
        assert flow.excess_without_damping.value == pytest.approx(flow.excess.value - flow.damping_term, rel=1e-9)
        assert abs(flow.excess.value) < 0.05 * flow.damping_term


def test_a_flow_is_a_recorded_run_like_any_other() -> None:
    task = _logistic(4)
    flow = natural_gradient_flow(task, 1.0, 40)
    model = task.model
    model.load_state_dict(flow.run.states[-1])
    recorded = Task(model=model, train=task.train, likelihood=Bernoulli(), run=flow.run)
    found = {m.name: m for m in training_action(recorded, progress=Silent()).measurements}
    assert found["action.loss_bought"].value == pytest.approx(flow.bought, rel=1e-9)
    assert abs(found["action.excess"].value) < 2e-3 * flow.bought
    assert found["action.spent_over_bought"].value == pytest.approx(1, abs=2e-3)
    assert found["action.excess_learning_rate_time"].value == pytest.approx(flow.excess.value, abs=2e-3 * flow.bought)


def test_a_single_precision_model_is_flowed_in_double_and_left_alone() -> None:
    task = _perceptron(6)
    single = Task(model=task.model.float(), train=task.train)
    before: list[Tensor] = [p.detach().clone() for p in single.model.parameters()]
    flow = natural_gradient_flow(single, 0.5, 4, damping=1e-3)
    assert all(t.dtype == torch.float64 for t in flow.run.states[-1].values())
    for p, kept in zip(single.model.parameters(), before, strict=True):
        assert p.dtype == torch.float32
        assert torch.equal(p, kept)
    with pytest.raises(ValueError, match="unknown method"):
        natural_gradient_flow(single, 1.0, 4, method="rk5")
    with pytest.raises(ValueError, match="negative"):
        natural_descent(single, ParameterSpace(single.model), torch.arange(3), -1.0)
