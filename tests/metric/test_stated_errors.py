"""Errors that estimators state of themselves, held against their real scatter and against closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from memspace import Gaussian, Task
from memspace.action.slope import ProbeDual
from memspace.intervals import around, margin
from memspace.metric.density import Density
from memspace.metric.draw import spread_of_draw
from memspace.metric.fisher import build
from memspace.metric.mean_field import mean_field
from memspace.metric.nystroem import nystroem
from memspace.metric.trace import hutch_plus_plus, xtrace
from memspace.metric.trust import solution_error
from memspace.passes.verify import verified_space

P = 60


def _turned(values: torch.Tensor, seed: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(len(values), len(values), generator=g, dtype=torch.float64)).Q
    return q * values @ q.T


def test_xtrace_states_the_scatter_where_its_probes_share_the_range() -> None:
    a = _turned(torch.cat([torch.linspace(50, 100, 6), torch.full((P - 6,), 0.1)]).double())
    found = [xtrace(lambda v: v @ a, P, 40, torch.Generator().manual_seed(s)) for s in range(400)]
    spread = float(torch.tensor([f.value for f in found]).std())
    stated = float(torch.tensor([f.standard_error for f in found]).square().mean().sqrt())
    assert 0.85 < stated / spread < 1.15  # 400 draws know their spread to 4%; without the √2 it is 0.71


def test_hutchpp_covers_with_the_few_probes_that_its_error_rests_on() -> None:
    a = _turned(torch.linspace(1, 2, P).double() * torch.tensor([1.0, -1.0]).repeat(P // 2).double())
    truth, inside, trials = float(a.trace()), 0, 400
    for s in range(trials):
        found = hutch_plus_plus(lambda v: v @ a, P, 9, torch.Generator().manual_seed(s))
        low, high = around(found.value, found.standard_error, found.df)
        inside += low <= truth <= high
    assert inside / trials > 0.92  # three probes: Student's t of two degrees of freedom, 0.95 ± 0.011


def test_the_bound_of_nystroem_holds_where_one_direction_is_missed() -> None:
    values = torch.zeros(30, dtype=torch.float64)
    values[:5] = 1.0  # rank four of five equal ones: what is missed has one direction, as likely to hide as can be
    a = _turned(values)
    for seed in range(60):
        found = nystroem(lambda v: v @ a, 30, 4, seed=seed)
        rest = torch.linalg.eigvalsh(a - found.vectors.T * found.values @ found.vectors)
        assert float(rest[-1]) <= found.bound


def test_what_nystroem_misses_is_estimated_with_an_honest_error() -> None:
    a = _turned(torch.linspace(0.5, 1, 40).double())
    found = [nystroem(lambda v: v @ a, 40, 5, seed=s) for s in range(200)]
    off = [f.missed.value - float(a.trace() - f.values.sum()) for f in found]
    spread = math.sqrt(math.fsum(x * x for x in off) / len(off))
    stated = math.sqrt(math.fsum(f.missed.standard_error**2 for f in found) / len(found))
    assert stated / spread == pytest.approx(1, rel=0.2)  # 200 draws know a spread to 5%


def test_the_spread_of_a_draw_is_that_of_sampling_without_replacement() -> None:
    """Equal chances m/N: N²(1 − m/N) s²/m, s² with m − 1 (Cochran 1977, eq. 2.20)."""
    whole, m = 40, 5
    values = torch.tensor([3.0, 1.0, 4.0, 1.5, 9.0], dtype=torch.float64)
    share = m / whole
    found = spread_of_draw(values / share, torch.full((m,), share, dtype=torch.float64))
    assert found == pytest.approx(math.sqrt(whole**2 * (1 - share) * float(values.var()) / m), rel=1e-12)


def test_a_band_of_three_probes_covers_as_three_probes_can() -> None:
    g = torch.Generator().manual_seed(0)
    inside, trials, level = 0, 600, torch.tensor([0.5], dtype=torch.float64)
    for _ in range(trials):
        weights = 0.5 + 0.05 * torch.randn(3, generator=g, dtype=torch.float64)  # of the upper of two nodes
        nodes = tuple(torch.tensor([0.0, 1.0], dtype=torch.float64) for _ in range(3))
        band = Density(nodes, tuple(torch.stack([1 - w, w]) for w in weights), 100).cumulative(level)
        inside += bool(band.low <= 50 <= band.high)
    assert 0.92 < inside / trials < 0.98  # the normal quantile covers 81%


def test_kfac_is_exact_for_a_linear_model_whatever_the_positions() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    x, y = torch.randn(9, 5, 3).double(), torch.randn(9, 5, 2).double()  # five positions an example
    task = Task(model, (x, y), likelihood=Gaussian(0.7))
    space = verified_space(task)
    dense, kfac = (build(task, space, kind) for kind in ("dense", "kfac"))
    v = torch.randn(4, space.size).double()
    assert torch.allclose(kfac.matvec(v), dense.matvec(v), rtol=1e-10)


def test_with_one_example_the_mean_field_spectrum_has_one_value_an_output() -> None:
    """No pair of examples: the C rows are orthogonal and equally long, tr F² = (tr F)²/C."""
    widths, outputs = (100, 80, 90), 3
    size = sum(a * b for a, b in itertools.pairwise(widths))
    found = mean_field(widths, outputs, 1)
    assert found.second_moment * size == pytest.approx((found.mean * size) ** 2 / outputs, rel=1e-12)
    assert found.largest == pytest.approx(found.mean * size / outputs, rel=1e-12)


@pytest.mark.parametrize("share", [0.01, 0.04])
def test_a_small_error_of_a_solution_is_known_from_one_product(share: float) -> None:
    a, gamma = _turned(torch.logspace(-2, 1, P).double()), 1e-3  # so small that the norms of F and F + γI agree
    b = torch.randn(3, P, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    inverse = torch.linalg.inv(a + gamma * torch.eye(P, dtype=torch.float64))
    exact = b @ inverse
    found = solution_error(lambda v: v @ a, b, (1 + share) * exact, gamma, lambda r: r @ inverse)
    assert found.products == 1
    assert torch.allclose(found.relative, torch.full((3,), share).double(), rtol=0.1)


@pytest.mark.parametrize("few", [2, 4])
def test_the_squared_gradient_of_all_examples_is_told_without_bias_from_a_few(few: int) -> None:
    """The mean over all choices of a few of N examples is ‖(1/N) Σ Jᵀr‖² of all."""
    g = torch.Generator().manual_seed(6)
    whole, outputs, size = 7, 2, 5
    rows = torch.randn(whole, outputs, size, generator=g, dtype=torch.float64)
    residual = torch.randn(whole, outputs, generator=g, dtype=torch.float64)
    want = float(torch.einsum("nc,ncp->p", residual, rows).div(whole).square().sum())
    found = []
    for chosen in itertools.combinations(range(whole), few):
        at = list(chosen)
        gram = torch.einsum("icp,jdp->icjd", rows[at], rows[at])
        found.append(ProbeDual(gram, torch.zeros(few, outputs, 1), residual[at]).squared_gradient(whole))
    assert math.fsum(found) / len(found) == pytest.approx(want, rel=1e-12)


def test_margin_of_no_degrees_of_freedom_is_unbounded() -> None:
    assert math.isinf(margin(1.0, 0))
