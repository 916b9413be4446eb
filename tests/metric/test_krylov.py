"""Batched products and Krylov methods against dense references."""

import pytest
import torch

from memspace.metric.conjugate import conjugate_gradients
from memspace.metric.density import Density, spectral_density
from memspace.metric.fisher import build
from memspace.metric.krylov import lanczos, top_eigenpairs
from memspace.passes.linearise import FisherOperator
from memspace.passes.space import ParameterSpace
from memspace.task.likelihood import Categorical
from memspace.task.task import Task
from tests.contract.networks import NETWORKS, dense_fisher, network

P = 80


def matrix(values, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)).Q
    return q * values @ q.T


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def task_of(name, ignore=False):
    model, x = network(name)
    y = Categorical().sample(model(x).detach(), torch.Generator().manual_seed(1))
    if ignore:
        y[:, 0] = -100
    return Task(model=model, train=(x, y)), ParameterSpace(model), x, y


@pytest.mark.parametrize("kind", ["exact", "empirical"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_stack_of_products_equals_the_dense_reference(name, kind, monkeypatch):
    task, space, x, y = task_of(name)
    f = dense_fisher(task.model, space, task.likelihood, x, y, kind)
    v = randn(7, space.size)
    operator = FisherOperator(task, space, batch=3, kind=kind)
    assert torch.allclose(operator(v), v @ f, rtol=1e-10, atol=1e-12 * float(f.norm()))
    assert torch.allclose(operator(v[0]), f @ v[0], rtol=1e-10, atol=1e-12 * float(f.norm()))
    assert operator.products == 8
    # One example and one vector at a time, where signals are large.
    monkeypatch.setattr("memspace.passes.linearise.TRANSIENT", 1)
    small = FisherOperator(task, space, batch=3, kind=kind)
    assert torch.allclose(small(v[:2]), v[:2] @ f, rtol=1e-10, atol=1e-12 * float(f.norm()))


def test_padded_positions_weigh_nothing_in_a_stack():
    task, space, _, _ = task_of("transformer", ignore=True)
    v = randn(3, space.size)
    assert torch.allclose(FisherOperator(task, space)(v), v @ build(task, space, "dense").to_dense(), rtol=1e-9)


def test_sampled_labels_are_refused_as_products():
    task, space, *_ = task_of("linear")
    with pytest.raises(ValueError, match="mc"):
        FisherOperator(task, space, kind="mc")


@pytest.mark.parametrize("seed", range(3))
def test_conjugate_gradients_for_a_stack(seed):
    values = torch.logspace(-3, 1, P, dtype=torch.float64)
    a = matrix(values, seed)
    b = randn(4, P, seed=seed)
    b[2] = 0  # nothing to do
    b[3] = a @ b[3]
    want = torch.linalg.solve(a, b.T).T
    got = conjugate_gradients(lambda v: v @ a, b, tolerance=1e-9)
    assert got.converged
    assert float((b - got.x @ a).norm(dim=1).div(b.norm(dim=1).clamp_min(1)).max()) < 2e-9
    assert torch.allclose(got.x, want, atol=1e-9 * float(b.norm()) / 1e-3)
    cut = conjugate_gradients(lambda v: v @ a, b, tolerance=1e-9, limit=3)
    assert not cut.converged
    assert cut.iterations == 3


def test_a_good_preconditioner_saves_steps():
    values = torch.logspace(-4, 2, P, dtype=torch.float64)
    diagonal = torch.diag(values) + 1e-4 * matrix(torch.ones(P, dtype=torch.float64), 1)
    b = randn(3, P)
    plain = conjugate_gradients(lambda v: v @ diagonal, b, tolerance=1e-8)
    helped = conjugate_gradients(lambda v: v @ diagonal, b, tolerance=1e-8, preconditioner=lambda r: r / values)
    assert helped.converged
    assert helped.iterations < plain.iterations / 4
    assert torch.allclose(helped.x @ diagonal, b, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_leading_eigenpairs_to_the_tolerance_asked(seed):
    values = 1 / torch.arange(1, 201, dtype=torch.float64) ** 2
    a = matrix(values, seed)
    for tolerance in (1e-2, 1e-6):
        found = top_eigenpairs(lambda v: v @ a, randn(6, 200, seed=seed), 10, tolerance=tolerance)
        assert found.converged
        assert float(found.residuals.max()) <= tolerance
        truth = (found.vectors @ a - found.values.unsqueeze(1) * found.vectors).norm(dim=1) / found.values
        assert torch.allclose(truth, found.residuals, atol=1e-9)
        assert float((found.values / values[:10] - 1).abs().max()) <= tolerance
        assert found.products < 200


def test_a_multiple_eigenvalue_and_a_low_rank():
    values = torch.zeros(60, dtype=torch.float64)
    values[:5] = torch.tensor([2.0, 2, 2, 1, 1], dtype=torch.float64)
    a = matrix(values)
    calls = []
    found = top_eigenpairs(lambda v: calls.append(len(v)) or v @ a, randn(2, 60), 8, tolerance=1e-8)
    assert found.products == sum(calls)
    assert torch.allclose(found.values[:2], torch.full((2,), 2.0, dtype=torch.float64))
    assert torch.allclose(found.vectors @ found.vectors.T, torch.eye(8, dtype=torch.float64), atol=1e-9)
    limited = top_eigenpairs(lambda v: v @ a + 0.1 * v, randn(1, 60), 8, tolerance=1e-12, limit=4)
    assert limited.products <= 4
    assert not limited.converged


def test_lanczos_of_a_stack_equals_one_by_one():
    a = matrix(torch.linspace(0, 3, P, dtype=torch.float64))
    starts = randn(3, P)
    starts[1] = torch.linalg.eigh(a).eigenvectors[:, -1]  # closes after one step, the others go on
    together = lanczos(lambda v: v @ a, starts, 12)
    for start, t in zip(starts, together, strict=True):
        alone = lanczos(lambda v: v @ a, start.unsqueeze(0), 12)[0]
        assert torch.allclose(t.nodes, alone.nodes, atol=1e-10)
        assert torch.allclose(t.basis @ t.basis.T, torch.eye(len(t.basis), dtype=torch.float64), atol=1e-12)
    assert len(together[1].nodes) == 1


def test_the_band_of_a_density_covers_the_count():
    values = torch.cat([torch.full((20,), 1.0), torch.full((40,), 4.0), torch.full((60,), 9.0)]).double()
    a = matrix(values)
    levels = torch.tensor([0.5, 2.0, 6.0, 12.0], dtype=torch.float64)
    truth = torch.tensor([120.0, 100, 60, 0], dtype=torch.float64)
    inside, trials = torch.zeros(4), 120
    for seed in range(trials):
        band = spectral_density(lambda v: v @ a, 120, probes=6, steps=8, seed=seed).cumulative(levels)
        inside += (band.low <= truth + 1e-6) & (truth <= band.high + 1e-6)
    share = inside / trials
    # 95% in theory; below 88% has a chance of one in a thousand over 120 trials. Ends are certain.
    assert float(share.min()) >= 0.88
    assert share[0] == share[3] == 1
    assert float(share[1]) < 1 or float(share[2]) < 1
    with pytest.raises(ValueError, match="probes"):
        Density((values,), (values,), 120).cumulative(levels)
