"""What conjugate gradients say of their own error bounds the real one, on badly scaled problems too."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace.attribution.engines import prepare
from memspace.attribution.settings import InfluenceSettings
from memspace.editing.forget import forget
from memspace.editing.reweight import reweight
from memspace.editing.solver import Accuracy
from memspace.metric.conjugate import conjugate_gradients
from memspace.metric.fisher import build
from memspace.metric.trust import SOLUTION
from memspace.passes.verify import verified_space
from memspace.progress import Silent
from memspace.task.likelihood import Categorical, Gaussian, Likelihood, Poisson
from memspace.task.task import Task

Problem = tuple[nn.Module, Tensor, Tensor, Likelihood, float]


def _blobs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (n,), generator=g)
    return 1.5 * torch.randn(3, 6, generator=g)[y] + torch.randn(n, 6, generator=g), y


def _two_outputs(seed: int) -> Problem:
    """Outputs in units that differ by 2,500."""
    x, y = _blobs(37, 5)
    model = nn.Sequential(nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 2))
    return model, x, torch.stack([y * 100.0, y * 0.01], 1), Gaussian(sigma=(50.0, 0.02)), 1e-2


def _inputs(seed: int) -> Problem:
    x, y = _blobs(60, seed)
    scaled = x * torch.tensor([1e3, 1, 1, 1e-2, 1, 10.0])
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), scaled, y, Categorical(), 1e-2


def _small_noise(seed: int) -> Problem:
    x, y = _blobs(50, seed)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 1))
    return model, x, y[:, None].float(), Gaussian(sigma=1e-3), 0.1


def _norm(seed: int) -> Problem:
    x, y = _blobs(48, seed)
    model = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3))
    return model, x, y, Categorical(), 1e-4


def _counts(seed: int) -> Problem:
    x, y = _blobs(44, seed)
    model = nn.Sequential(nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 3))
    return model, x, torch.stack([y * 1.0, y * 2.0, y * 30.0], 1), Poisson(), 1e-3


def _well(seed: int) -> Problem:
    x, y = _blobs(60, seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), x, y, Categorical(), 1.0


PROBLEMS: list[tuple[Callable[[int], Problem], int]] = [
    *((_two_outputs, s) for s in range(4)),
    *((make, s) for make in (_inputs, _small_noise, _norm, _counts, _well) for s in range(2)),
]


def _truth(task: Task, queries: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """F, the queries' gradients and every example's, one at a time in float64, in the flat order."""
    space = verified_space(task)
    model = task.model.double()
    law, whole = task.likelihood, task.train.batch(range(len(task.train)))
    x, y = whole.x, whole.y
    assert isinstance(x, Tensor)
    names = list(space.names)
    held = dict(model.named_parameters())

    def flat(value: Tensor) -> Tensor:
        grads = torch.autograd.grad(value, [held[n] for n in names], retain_graph=True)
        return space.pack(dict(zip(names, grads, strict=True)))

    fisher = torch.zeros(space.size, space.size, dtype=torch.float64)
    gradients = []
    for i in range(len(y)):
        f = model(x[i : i + 1].double())
        gradients.append(flat(law.nll(f, y[i : i + 1]).sum()))
        root = law.fisher_root(f.detach())[0]
        rows = root.t() @ torch.stack([flat(v) for v in f[0]])
        fisher += rows.t() @ rows / len(y)
    model.float()
    every = torch.stack(gradients)
    return fisher, every[queries], every


@pytest.mark.parametrize(("make", "seed"), PROBLEMS)
def test_the_error_of_iterative_scores_is_known_and_small(make: Callable[[int], Problem], seed: int) -> None:
    torch.manual_seed(seed)
    model, x, y, law, damping = make(seed)
    task, queries = Task(model=model.eval(), train=(x, y), likelihood=law), [0, 3, 9, 20, 36]
    found = memspace.influence(task, queries, engine="iterative", damping=damping)
    fisher, b, every = _truth(task, queries)
    a = fisher + damping * torch.eye(len(fisher), dtype=torch.float64)
    want = torch.linalg.solve(len(y) * a, b.T).T @ every.T
    real = ((found.scores.double() - want).norm(dim=1) / want.norm(dim=1)).max()
    stated = found.diagnostic("influence.solution_error")
    assert stated.reliable
    assert found.reliable
    assert stated.value <= 1.5 * InfluenceSettings().tolerance
    assert float(real) < SOLUTION  # gradients of labels that the law holds for impossible are not those of F
    engine = prepare(task, verified_space(task), "iterative", InfluenceSettings(), Silent())
    solved, exact = engine.solve(b, damping), torch.linalg.solve(a, b.T).T
    off = solved.x * engine.n - exact
    relative = ((off @ fisher) * off).sum(1).sqrt() / ((exact @ fisher) * exact).sum(1).sqrt()
    assert bool((relative <= solved.error).all())


def test_steps_that_do_not_suffice_are_not_reliable() -> None:
    torch.manual_seed(0)
    model, x, y, law, damping = _two_outputs(0)
    task = Task(model=model.eval(), train=(x, y), likelihood=law)
    found = memspace.influence(task, [0, 36], engine="iterative", damping=damping, settings=InfluenceSettings(limit=34))
    stated = found.diagnostic("influence.solution_error")
    assert found.diagnostic("influence.residual").value < 0.05  # which alone looks well
    assert stated.value > SOLUTION
    assert not stated.reliable
    assert not found.reliable
    assert "engine dual" in found.note


def _system(p: int, low: float, high: float, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(p, p, generator=g, dtype=torch.float64)).Q
    return q * torch.logspace(low, high, p, dtype=torch.float64) @ q.T, torch.randn(6, p, generator=g).double()


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("tolerance", [0.3, 0.03, 1e-4])
@pytest.mark.parametrize("seed", range(6))
def test_the_stated_error_bounds_the_real_one(seed: int, tolerance: float, preconditioned: bool) -> None:
    gamma = 10.0 ** -(seed % 4)
    fisher, b = _system(120, -8, 3 - seed % 2, seed)
    b[3:] = b[3:] @ fisher  # in the range of F, as gradients are
    a = fisher + gamma * torch.eye(120, dtype=torch.float64)
    rough = (fisher.diagonal() + gamma).clone()
    inverse = (lambda r: r / rough) if preconditioned else None
    found = conjugate_gradients(
        lambda v: v @ a, b, tolerance=tolerance, limit=400, preconditioner=inverse, damping=gamma
    )
    exact = torch.linalg.solve(a, b.T).T
    off = found.x - exact
    length = ((exact @ fisher) * exact).sum(1).sqrt()
    inside, whole = (((off @ m) * off).sum(1).clamp_min(0).sqrt() / length for m in (fisher, a))
    assert found.converged
    assert bool((inside <= found.error).all())
    assert bool((whole <= 1.2 * found.error).all())
    assert bool((found.error <= max(1.01 * tolerance, 1e-6)).all())


def test_rounding_of_products_does_not_multiply_the_steps() -> None:
    fisher, b = _system(60, -6, 4, 0)
    a = fisher + 1e-2 * torch.eye(60, dtype=torch.float64)
    single = fisher.float()

    def product(v: Tensor) -> Tensor:
        return (v.float() @ single).double() + 1e-2 * v

    kept = conjugate_gradients(product, b, tolerance=0.05, limit=400, damping=1e-2)
    plain = conjugate_gradients(product, b, tolerance=0.05, limit=400, damping=1e-2, basis=0)
    assert kept.converged
    assert kept.iterations <= 80
    assert plain.iterations > 1.5 * kept.iterations
    exact = torch.linalg.solve(a, b.T).T
    off = kept.x - exact
    length = ((exact @ fisher) * exact).sum(1).sqrt()
    assert bool((((off @ fisher) * off).sum(1).sqrt() / length <= kept.error).all())


def test_what_is_not_finite_has_not_converged() -> None:
    b = torch.ones(2, 5, dtype=torch.float64)
    found = conjugate_gradients(lambda v: v * math.nan, b, damping=0.1)
    assert not found.converged
    assert found.iterations == 1
    assert bool(torch.isinf(found.error).all())


def test_a_right_hand_side_of_nought_has_no_error() -> None:
    found = conjugate_gradients(lambda v: 2 * v, torch.zeros(1, 4), damping=2.0)
    assert found.converged
    assert found.error.tolist() == [0.0]


def test_the_implicit_metric_warns_of_a_solve_that_is_far_off() -> None:
    torch.manual_seed(1)
    model, x, y, law, _ = _small_noise(1)
    task = Task(model=model.eval(), train=(x, y), likelihood=law)
    metric = build(task, verified_space(task), "implicit")
    v = torch.randn(metric.size, dtype=torch.float64)
    with pytest.warns(RuntimeWarning, match="relative error of a solve"):
        metric.solve(v, 1e-6)


def test_an_edit_states_how_far_its_solution_is() -> None:
    torch.manual_seed(0)
    x, y = _blobs(60, 0)
    task = Task(model=nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).eval(), train=(x, y))
    few = forget(task, [1, 2], method="cg", damping=1e-4).measurement("forget.solution_error")
    many = forget(task, [1, 2], method="cg", damping=1e-4, accuracy=Accuracy(0.05, 200))
    exact = forget(task, [1, 2], method="dual", damping=1e-4)
    assert not few.reliable
    assert many.measurement("forget.solution_error").value <= 0.05
    assert many.measurement("forget.solution_error").reliable
    kept = Task(model=task.model, train=(torch.cat([x[:1], x[3:]]), torch.cat([y[:1], y[3:]])))
    fisher = build(kept, verified_space(kept), "dense").to_dense()
    off = (many.change - exact.change).double()
    own = exact.change.double()
    assert float((off @ fisher @ off).sqrt() / (own @ fisher @ own).sqrt()) <= 0.05


def test_weights_of_examples_are_made_of_the_solution_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, y = _blobs(60, 0)
    task = Task(model=nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).eval(), train=(x, y))
    clean = (x[:10] + 0.1, y[:10])
    exact = reweight(task, clean, preconditioned=True, damping=1e-4).products
    monkeypatch.setattr("memspace.editing.reweight.pick_method", lambda *_: "cg")
    found = reweight(task, clean, preconditioned=True, damping=1e-4)
    assert float((found.products - exact).norm() / exact.norm()) < 0.1
    assert "not reliable" not in found.statement
    few = reweight(task, clean, preconditioned=True, damping=1e-4, accuracy=Accuracy(0.1, 3))
    assert "not reliable" in few.statement
