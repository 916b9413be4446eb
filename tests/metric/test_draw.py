"""Rows drawn: their chances, what a draw keeps exactly, its stated error, and leverage from it."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from memspace.measures.leave_one_out import loo_outputs
from memspace.metric.draw import draw_rows, spread_of_draw
from memspace.metric.dual import Dual, select_rows
from memspace.metric.leverage import DualLeverage
from memspace.passes.collect import CollectRows
from memspace.passes.engine import run_pass
from memspace.passes.verify import verified_space
from memspace.task.likelihood import Categorical
from memspace.task.task import Task

LAW = Categorical()


@given(st.integers(2, 60), st.floats(0.0, 6.0), st.integers(0, 10**6), st.data())
def test_as_many_rows_as_allowed_each_with_its_chance(count, decades, seed, data):
    generator = torch.Generator().manual_seed(seed)
    sizes = 10 ** (decades * torch.rand(count, generator=generator, dtype=torch.float64))
    limit = data.draw(st.integers(1, count - 1))
    found = draw_rows(sizes, limit, tolerance=0.0, seed=seed)
    assert len(found.index) == limit == len(set(found.index.tolist()))
    held = sizes[found.index] / found.chance
    assert float(held.sum()) == pytest.approx(float(sizes.sum()), rel=1e-9)  # the trace, whatever was drawn
    loose = found.chance < 1
    assert (held[loose] / held[loose][:1] - 1).abs().lt(1e-9).all()  # chances are proportional to sizes
    assert (sizes[found.index][~loose] >= held[loose].max() * (1 - 1e-9)).all() if loose.any() else True


def test_chances_are_kept():
    sizes = torch.tensor([8.0, 3.0, 2.0, 1.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    times, seen = 4000, torch.zeros(7, dtype=torch.float64)
    for seed in range(times):
        found = draw_rows(sizes, 3, seed=seed)
        seen[found.index] += 1
    chance = torch.tensor([1.0, 0.8, 2 / 3.75, 1 / 3.75, 1 / 3.75, 0.5 / 3.75, 0.0], dtype=torch.float64)
    error = (chance * (1 - chance) / times).sqrt()
    assert ((seen / times - chance).abs() <= 4 * error + 1e-12).all()


def test_nothing_is_drawn_where_all_fit():
    found = draw_rows(torch.tensor([1.0, 0.0, 2.0]), 2)
    assert found.index.tolist() == [2, 0]
    assert found.drawn == 0
    assert found.chance.tolist() == [1, 1]
    assert len(draw_rows(torch.zeros(3), 2).index) == 1  # a metric of zero is a metric still


def test_a_sum_in_proportion_to_the_chance_has_no_spread():
    chance = torch.tensor([1.0, 0.5, 0.5, 0.2], dtype=torch.float64)
    added = torch.tensor([7.0, 3.0, 3.0, 3.0], dtype=torch.float64)
    assert spread_of_draw(added, chance) == pytest.approx(0, abs=1e-12)
    assert spread_of_draw(added + chance, torch.ones(4, dtype=torch.float64)) == 0


def _network(seed, n=60, classes=4):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, classes)).double()
    x = torch.randn(n, 5, dtype=torch.float64)
    y = LAW.sample(model(x).detach(), torch.Generator().manual_seed(seed))
    task = Task(model=model, train=(x, y), likelihood=LAW)
    space = verified_space(task)
    rows = CollectRows(space.blocks)
    run_pass(task, space, [rows])
    return rows.finish(), model(x).detach(), y


def _leverage(made, f, limit, seed):
    found = select_rows(made, LAW.fisher_root(f), limit, seed=seed)
    return DualLeverage.of(made, Dual.of(found, len(f)), f.shape[1], found.missing)


@pytest.mark.parametrize("damping", [1e-1, 1.0])  # ten and two effective parameters: nine rows and more for each
def test_the_stated_error_is_the_spread_over_draws(damping):
    made, f, _ = _network(3)
    duals = [Dual.of(select_rows(made, LAW.fisher_root(f), 90, seed=s), len(f)) for s in range(200)]

    def parameters(x):
        return x / (x + damping)

    found = [d.trace(parameters) for d in duals]
    spread = float(torch.tensor([e.value for e in found]).std())
    stated = float(torch.tensor([e.standard_error for e in found]).mean())
    # The spread of 200 draws is known to 5%; to first order and from one draw, the error to a third.
    assert 2 / 3 < stated / spread < 3 / 2
    assert max(d.trace(lambda x: x).standard_error for d in duals) < 1e-9 * duals[0].trace().value


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 170), st.floats(-5, 0))
def test_leverage_stays_below_one_whatever_is_drawn(seed, limit, exponent):
    made, f, _ = _network(1)
    root = LAW.fisher_root(f)
    v = _leverage(made, f, limit, seed).matrices(10**exponent)
    held = torch.linalg.eigvalsh(root.transpose(1, 2) @ v @ root)
    assert held.min() > -1e-9
    assert held.max() < 1 + 1e-9
    assert torch.allclose(v, v.transpose(1, 2), rtol=1e-7, atol=1e-9 * float(v.abs().max()))


def test_self_influence_and_influence_are_those_of_the_same_leverage():
    made, f, y = _network(2)
    lev = _leverage(made, f, 50, 7)
    r = LAW.residual(f, y)
    v = lev.matrices(1e-2)
    whole = torch.einsum("nc,ncd,nd->n", r, v, r)
    assert torch.allclose(lev.self_parts(r, 1e-2).sum(1), whole, rtol=1e-8, atol=1e-10)
    assert torch.allclose(lev.influence(r, made, r, 1e-2).diagonal(), whole, rtol=1e-8, atol=1e-10)


def test_leave_one_out_from_a_draw_is_nearer_than_from_the_largest_rows():
    made, f, y = _network(4)
    root, gamma = LAW.fisher_root(f), 1e-2

    def gap(v):
        return float((LAW.nll(loo_outputs(LAW, f, y, v), y) - LAW.nll(f, y)).mean())

    exact = gap(_leverage(made, f, 10**6, 0).matrices(gamma))
    drawn = [gap(_leverage(made, f, 60, s).matrices(gamma)) / exact - 1 for s in range(20)]
    sizes = select_rows(made, root, 10**6)
    largest = Dual.of(type(sizes)(sizes.rows.take(torch.arange(60)), sizes.chance[:60]), len(f))
    cut = gap(DualLeverage.of(made, largest, f.shape[1]).matrices(gamma)) / exact - 1
    assert max(abs(d) for d in drawn) < cut / 2
    assert abs(sum(drawn) / 20) < cut / 5
