"""Every layer, output law and representation against a dense float64 reference."""

import pytest
import torch

from memspace.metric.dual import Dual
from memspace.metric.fisher import build
from memspace.passes.verify import verified_space
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Poisson
from memspace.task.task import Task
from memspace.testing import check_metric
from tests.contract.networks import NETWORKS, dense_fisher, jacobian, network

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

LAWS = [Categorical(), Bernoulli(), Gaussian(0.7), Poisson()]
REPRESENTATIONS = ["dense", "diagonal", "kfac", "ekfac", "dual", "implicit", "block", "nystroem"]
SKETCHED = 1e-6  # relative: the root of the rounding below which the sketch's core is cut
EXACT = 1e-10  # relative: float64 rounding over a few thousand products


def task_of(name, law, seed=0):
    model, x = network(name, seed)
    y = law.sample(model(x).detach(), torch.Generator().manual_seed(seed + 1))
    task = Task(model=model, train=(x, y), likelihood=law)
    return task, verified_space(task), x, y


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_representation_against_the_dense_reference(name, law):
    task, space, x, y = task_of(name, law)
    f = dense_fisher(task.model, space, law, x, y)
    made = {r: build(task, space, r, batch=2) for r in REPRESENTATIONS}
    dense = {r: m.to_dense() for r, m in made.items()}
    for r in ("dense", "dual", "implicit"):
        assert relative(dense[r], f) < EXACT
    # Block: F inside each block, nothing between.
    inside = torch.block_diag(*[f[b.start : b.stop, b.start : b.stop] for b in space.blocks])
    assert relative(dense["block"], inside) < EXACT
    # Nyström: F where the rank is not above the sketch's (here), never above F, within its own bound.
    assert relative(dense["nystroem"], f) < SKETCHED
    assert float(torch.linalg.eigvalsh(f - dense["nystroem"]).max()) <= made["nystroem"].bound + EXACT * float(f.norm())
    assert relative(dense["diagonal"], torch.diag(f.diagonal())) < EXACT
    assert made["ekfac"].trace().value == pytest.approx(float(f.trace()), rel=EXACT)
    for b in space.blocks:
        block = slice(b.start, b.stop)
        # EKFAC's eigenvalues are the best diagonal in KFAC's basis: never farther from the block (George et al. 2018).
        far = [float((dense[r][block, block] - f[block, block]).norm()) for r in ("kfac", "ekfac")]
        assert far[1] <= far[0] * (1 + 1e-9) + 1e-12 * float(f.norm())
    values = torch.linalg.eigvalsh(f).flip(0)
    dual = made["dual"].eigenvalues()
    assert torch.allclose(dual, values[: len(dual)], rtol=1e-8, atol=1e-11 * float(values[0]))
    assert float(values[len(dual) :].abs().max() if len(dual) < len(values) else 0) < 1e-10 * float(values[0])
    for m in dense.values():
        assert relative(m, m.T) < EXACT
        assert float(torch.linalg.eigvalsh((m + m.T) / 2).min()) > -1e-10 * float(m.norm())


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("name", NETWORKS)
def test_empirical_is_the_mean_outer_product_of_label_gradients(name, law):
    task, space, x, y = task_of(name, law)
    f = dense_fisher(task.model, space, law, x, y, "empirical")
    for r in ("dense", "dual", "implicit", "nystroem"):
        metric = build(task, space, r, kind="empirical", batch=3)
        assert metric.kind == "empirical"
        assert relative(metric.to_dense(), f) < (SKETCHED if r == "nystroem" else EXACT)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("name", ["linear", "norms", "transformer", "tied"])
def test_functions_of_a_metric_are_those_of_its_own_matrix(name, representation):
    task, space, _, _ = task_of(name, Categorical())
    m = build(task, space, representation, batch=2)
    check_metric(m)
    values = torch.linalg.eigvalsh(m.to_dense()).clamp_min(0)
    k = 4
    pairs = m.eigh(k)
    assert pairs.converged
    assert pairs.vectors.shape == (len(pairs.values), space.size)
    assert len(pairs.values) == k or float(values[-len(pairs.values) - 1]) < 1e-9 * float(values[-1])
    assert torch.allclose(pairs.values, values.flip(0)[: len(pairs.values)], rtol=1e-3, atol=1e-9 * float(values[-1]))
    assert relative(pairs.vectors @ pairs.vectors.T, torch.eye(len(pairs.values), dtype=torch.float64)) < 1e-7
    moved = m.matvec(pairs.vectors) - pairs.values.unsqueeze(1) * pairs.vectors
    # Exact at hand: rounding. Iterated: the residuals it states.
    stated = pairs.residuals * pairs.values + 1e-8 * float(values[-1])
    assert bool((moved.norm(dim=1) <= stated).all())


def test_samples_have_the_inverse_as_covariance():
    task, space, _, _ = task_of("linear", Categorical())
    m = build(task, space, "dual")
    damping = 0.5 * m.trace().value / space.size
    draws = m.sample(damping, torch.Generator().manual_seed(3), 20_000)
    v = torch.randn(space.size, dtype=torch.float64)
    want = float(v @ m.solve(v, damping))
    # The variance of a chi-square with one degree of freedom is 2: four standard errors of the mean of squares.
    assert abs(float((draws @ v).square().mean()) / want - 1) < 4 * (2 / 20_000) ** 0.5


@pytest.mark.parametrize("name", ["linear", "norms", "transformer"])
def test_monte_carlo_is_unbiased(name):
    task, space, x, y = task_of(name, Categorical())
    truth = dense_fisher(task.model, space, task.likelihood, x, y)
    draws = torch.stack([build(task, space, "dense", kind="mc", seed=s).to_dense() for s in range(150)])
    error = draws.std(0) / 150**0.5
    z = (draws.mean(0) - truth) / error.clamp_min(1e-12 * float(truth.norm()))
    some = error > 1e-8 * float(truth.norm())
    # Entries are correlated, so the mean square of z is only known to be near one; a bias would send it to hundreds.
    assert float(z[some].square().mean()) < 3


@pytest.mark.parametrize("representation", ["dual", "ekfac", "diagonal"])
def test_the_batch_size_does_not_matter(representation):
    task, space, _, _ = task_of("norms", Categorical())
    whole, ones, uneven = (build(task, space, representation, batch=b).to_dense() for b in (100, 1, 2))
    assert relative(ones, whole) < EXACT
    assert relative(uneven, whole) < EXACT


def test_a_dual_of_some_rows_has_the_trace_and_in_the_mean_the_metric():
    task, space, x, y = task_of("linear", Categorical())
    from memspace.metric.dual import select_rows
    from memspace.passes.collect import CollectRows
    from memspace.passes.engine import run_pass

    rows = CollectRows(space.blocks)
    run_pass(task, space, [rows])
    made, root = rows.finish(), task.likelihood.fisher_root(task.model(x).detach())
    truth = dense_fisher(task.model, space, task.likelihood, x, y)
    draws = [select_rows(made, root, limit=4, seed=s) for s in range(400)]
    parts = [Dual.of(d, len(x)) for d in draws]
    assert all(len(d.rows) == 4 and 0 < d.drawn <= 1 for d in draws)
    assert all(p.trace().value == pytest.approx(float(truth.trace()), rel=1e-9) for p in parts)
    each = torch.stack([p.to_dense() for p in parts])
    spread = float(((each - truth).square().sum() / len(each)).sqrt())  # of one draw, Frobenius
    assert float((each.mean(0) - truth).norm()) < 3 * spread / len(each) ** 0.5
    h, j = root @ root.transpose(1, 2), jacobian(task.model, space, x)  # (n, C, P)
    for draw, part in zip(draws[:20], parts[:20], strict=True):  # what is missing of H_i is what it says
        held = torch.einsum("ncp,ncd,ndq->pq", j, h - draw.missing, j) / len(x)
        assert relative(held, part.to_dense()) < EXACT
