"""Quantities whose answer is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from memspace.action.training import slope
from memspace.geometry.distance import output_distance
from memspace.geometry.path import outputs_along, straight_line, walk
from memspace.measures.complexity import fisher_rao_norm, information_bits
from memspace.measures.leave_one_out import loo_outputs, self_influence
from memspace.metric.dual import Dual, select_rows
from memspace.metric.ekfac import bases_of
from memspace.metric.fisher import build
from memspace.metric.leverage import DualLeverage
from memspace.metric.metric import FisherMetric
from memspace.metric.spectral import Dense
from memspace.passes.collect import CollectRows
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.leverage import KroneckerLeverage
from memspace.passes.linearise import FisherOperator
from memspace.passes.space import ParameterSpace
from memspace.passes.statistics import Bases, CorrectedEigenvalues, KroneckerFactors
from memspace.task.likelihood import Categorical, Gaussian
from memspace.task.task import Task
from tests.contract.networks import dense_fisher, jacobian, network


def linear_task(n=20, d=4, c=1, law=None, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(d, c, bias=False)).double()
    x = torch.randn(n, d, dtype=torch.float64)
    law = law or Gaussian(0.5)
    y = law.sample(model(x).detach(), torch.Generator().manual_seed(seed))
    return Task(model=model, train=(x, y), likelihood=law), ParameterSpace(model), x, y


def leverage_of(task, space):
    rows = CollectRows(space.blocks)
    run_pass(task, space, [rows], PassOptions(batch=7))
    made = rows.finish()
    f = task.model(task.train.batch(range(len(task.train))).x).detach()
    root = task.likelihood.fisher_root(f)
    return DualLeverage.of(made, Dual.of(select_rows(made, root, 10**6, 0.0), len(f)), f.shape[-1]), f


def test_gaussian_linear_regression():
    task, space, x, _ = linear_task()
    f = build(task, space, "dual").to_dense()
    assert torch.allclose(f, x.T @ x / (len(x) * 0.25), rtol=1e-10, atol=1e-12)


def test_logistic_regression():
    task, space, x, _ = linear_task(c=2, law=Categorical())
    p = torch.softmax(task.model(x).detach(), -1)[:, 0]
    f = build(task, space, "dense").to_dense()[:4, :4]  # the block of the first class's weights
    assert torch.allclose(f, (x * (p * (1 - p)).unsqueeze(1)).T @ x / len(x), rtol=1e-10, atol=1e-12)


def test_leave_one_out_is_exact_for_ridge_regression():
    task, space, x, y = linear_task(n=15)
    alpha = 0.7
    h = x.T @ x / 0.25 + alpha * torch.eye(4, dtype=torch.float64)
    with torch.no_grad():
        task.model[0].weight.copy_(torch.linalg.solve(h, x.T @ y / 0.25).T)
    lev, f = leverage_of(task, space)
    loo = loo_outputs(task.likelihood, f, y, lev.matrices(alpha / len(x)))
    for i in range(len(x)):
        keep = torch.arange(len(x)) != i
        hi = x[keep].T @ x[keep] / 0.25 + alpha * torch.eye(4, dtype=torch.float64)
        without = x[i] @ torch.linalg.solve(hi, x[keep].T @ y[keep] / 0.25)
        assert float(loo[i]) == pytest.approx(float(without), rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("name", ["linear", "norms", "conv1d", "tied", "attention"])
def test_self_influence_by_layer_sums_to_the_whole_and_equals_the_dense_formula(name):
    model, x = network(name)
    law = Categorical()
    y = law.sample(model(x).detach(), torch.Generator().manual_seed(1))
    task, space = Task(model=model, train=(x, y), likelihood=law), ParameterSpace(model)
    lev, f = leverage_of(task, space)
    fisher = dense_fisher(model, space, law, x, y)
    gamma = 0.05 * float(fisher.trace()) / space.size
    g = torch.einsum("nc,ncp->np", law.residual(f, y), jacobian(model, space, x))
    m = len(x) * (fisher + gamma * torch.eye(space.size, dtype=torch.float64))
    want = g * torch.linalg.solve(m, g.T).T
    parts = lev.self_parts(law.residual(f, y), gamma)
    by_block = torch.stack([want[:, b.start : b.stop].sum(1) for b in space.blocks], 1)
    scale = float(want.abs().sum(1).max())
    assert torch.allclose(parts, by_block, atol=1e-8 * scale)
    assert torch.allclose(parts.sum(1), self_influence(law, f, y, lev.matrices(gamma)), atol=1e-8 * scale)


@pytest.mark.parametrize("name", ["linear", "norms", "conv1d", "conv2d same", "positions", "attention"])
def test_streamed_leverage_equals_the_dense_formula_under_ekfac(name):
    model, x = network(name)
    law = Categorical()
    y = law.sample(model(x).detach(), torch.Generator().manual_seed(1))
    task, space = Task(model=model, train=(x, y), likelihood=law), ParameterSpace(model)
    n = len(x)
    factors = KroneckerFactors(space.blocks)
    run_pass(task, space, [factors])
    bases, _ = bases_of(factors.factors())
    corrected = CorrectedEigenvalues(space.blocks, bases)
    run_pass(task, space, [corrected])
    sums = corrected.finish()
    values = {b.name: sums[f"eig/{b.name}"] / sums["n"] for b in space.blocks}
    gamma = 0.05 * sum(float(v.sum()) for v in values.values()) / space.size
    inverse = {k: torch.stack([torch.ones_like(v), 1 / (n * (v + gamma))]) for k, v in values.items()}
    table = KroneckerLeverage(space.blocks, bases, inverse)
    run_pass(task, space, [table], PassOptions(batch=2))
    found = table.finish()
    j = jacobian(model, space, x)
    dense = build(task, space, "ekfac").to_dense()
    m = n * (dense + gamma * torch.eye(space.size, dtype=torch.float64))
    want = j @ torch.linalg.solve(m, j.reshape(-1, space.size).T).T.reshape(j.shape).mT
    assert torch.allclose(found["leverage"][:, 1], want, atol=1e-8 * float(want.abs().max()))
    assert torch.allclose(found["leverage"][:, 0], j @ j.mT, atol=1e-9 * float((j @ j.mT).abs().max()))


def test_bases_may_be_the_identity():
    g = torch.randn(2, 3, 4, dtype=torch.float64)
    assert torch.equal(Bases(None, None).rotate(g), g)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_fisher_rao_norm_of_a_bias_free_relu_network(depth):
    torch.manual_seed(depth)
    layers = [nn.Linear(4, 6, bias=False)]
    for _ in range(depth - 1):
        layers += [nn.ReLU(), nn.Linear(6, 6, bias=False)]
    model = nn.Sequential(*layers, nn.ReLU(), nn.Linear(6, 3, bias=False)).double()
    x = torch.randn(11, 4, dtype=torch.float64)
    y = torch.randint(0, 3, (11,))
    task, space, law = Task(model=model, train=(x, y)), ParameterSpace(model), Categorical()
    theta = space.flat(model)
    moved = FisherOperator(task, space, batch=4).directional(theta)
    exact, empirical = fisher_rao_norm(law, moved["f"], moved["y"], moved["moved"])
    f = model(x).detach()
    weights = depth + 1
    assert torch.allclose(exact, weights**2 * (f * law.fisher_matvec(f, f)).sum(1), rtol=1e-9)
    assert torch.allclose(empirical, weights**2 * (f * law.residual(f, y)).sum(1).square(), rtol=1e-9)
    assert float(exact.mean()) == pytest.approx(float(build(task, space, "dense").inner(theta, theta)), rel=1e-9)


def test_the_metric_is_twice_the_divergence_to_third_order():
    model, x = network("linear", 4)
    law = Categorical()
    task, space = Task(model=model, train=(x, model(x).argmax(1))), ParameterSpace(model)
    metric: FisherMetric = build(task, space, "dense")
    v = torch.randn(space.size, dtype=torch.float64)
    theta, f = space.flat(model), model(x).detach()
    off = []
    for h in (1e-2, 1e-3):
        moved = torch.func.functional_call(model, space.unpack(theta + h * v), (x,)).detach()
        kl = float(law.kl(f, moved).mean())
        off.append(abs(2 * kl / (h**2 * float(metric.inner(v, v))) - 1))
    assert off[1] < 0.2 * off[0]  # first order in h
    assert off[1] < 1e-2


def test_information_vanishes_with_the_prior_and_is_bounded():
    values = torch.tensor([4.0, 1.0, 0.1, 0.0], dtype=torch.float64)
    metric = Dense(torch.eye(4, dtype=torch.float64), values)
    bits = [information_bits(metric, g) for g in (1e-3, 1e-1, 10.0, 1e12)]
    assert bits == sorted(bits, reverse=True)
    assert bits[-1] < 1e-10
    for g, b in zip((1e-3, 1e-1, 10.0), bits, strict=False):
        assert b <= 0.5 * 4 * math.log2(1 + 4.0 / g)
        assert b == pytest.approx(0.5 * float(torch.log2(1 + values / g).sum()))
        assert 0 <= metric.effective_dimension(g).value <= 3


def test_great_circle_on_the_simplex():
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    q = torch.tensor([0.05, 0.15, 0.8], dtype=torch.float64)
    angle = math.acos(float((p * q).sqrt().sum()))
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    r = (torch.sin((1 - t) * angle)[:, None] * p.sqrt() + torch.sin(t * angle)[:, None] * q.sqrt()) / math.sin(angle)
    path = walk(Categorical(), r.square().log().unsqueeze(1))
    assert path.length == pytest.approx(2 * angle, rel=1e-12)
    assert path.action(t.tolist()) == pytest.approx(path.length**2 / 2, rel=1e-9)  # constant speed
    assert output_distance(Categorical(), p.log()[None], q.log()[None])[0] == pytest.approx(2 * angle, rel=1e-12)


def test_a_linear_gaussian_model_is_flat_and_every_path_at_least_the_distance():
    task, _, _, _ = linear_task(n=9)
    a = {k: v.clone() for k, v in task.model.state_dict().items()}
    b = {k: v + torch.randn(v.shape, generator=torch.Generator().manual_seed(2), dtype=v.dtype) for k, v in a.items()}
    index = torch.arange(9)
    f, _ = outputs_along(task, straight_line(a, b, 9), index)
    ambient = output_distance(task.likelihood, f[0], f[-1])[0]
    assert walk(task.likelihood, f).length == pytest.approx(ambient, rel=1e-12)
    detour = f.clone()
    detour[4] += 0.3
    assert walk(task.likelihood, detour).length > ambient


def test_the_slope_is_the_damped_dual_norm_of_the_gradient():
    model, x = network("linear", 2)
    law = Categorical()
    y = torch.tensor([0, 1, 2, 0, 1])
    task, space = Task(model=model, train=(x, y)), ParameterSpace(model)
    fisher = dense_fisher(model, space, law, x, y)
    j, f = jacobian(model, space, x), model(x).detach()
    g = torch.einsum("nc,ncp->p", law.residual(f, y), j) / len(x)
    damping = 1e-3 * float(fisher.trace())
    want = float(g @ torch.linalg.solve(fisher + damping * torch.eye(space.size, dtype=torch.float64), g))
    assert slope(task, space, torch.arange(5), damping) == pytest.approx(want, rel=1e-8)


def test_action_buys_the_loss_along_natural_gradient_flow():
    """∫‖θ̇‖²_F dt = L(0) − L(T) on logistic regression, to first order in the Euler step."""
    task, space, x, y = linear_task(n=60, c=3, law=Categorical(), seed=3)
    law, errors = Categorical(), []
    for step in (0.05, 0.025):
        theta, spent = torch.zeros(space.size, dtype=torch.float64), 0.0
        first = last = 0.0
        for k in range(round(1 / step)):
            with torch.no_grad():
                task.model[0].weight.copy_(next(iter(space.unpack(theta).values())))
            f = task.model(x).detach()
            loss = float(law.nll(f, y).mean())
            first = loss if k == 0 else first
            g = (law.residual(f, y).T @ x / len(x)).flatten()
            metric = build(task, space, "dense")
            v = -metric.solve(g, 1e-10)
            spent += step * float(metric.inner(v, v))
            theta = theta + step * v
        with torch.no_grad():
            task.model[0].weight.copy_(next(iter(space.unpack(theta).values())))
        last = float(law.nll(task.model(x).detach(), y).mean())
        errors.append(abs(spent / (first - last) - 1))
    assert errors[1] < 0.7 * errors[0]
    assert np.isfinite(errors).all()
