"""Filters by geometric median, rounding with and without compensation, predictions against measurements."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from memspace.errors import TaskError
from memspace.measures.compensated import PruneSettings
from memspace.measures.degradation import degradation
from memspace.measures.filters import distance_sums, filtered_layers, prune_filters
from memspace.measures.objective import Objective
from memspace.measures.pruned import pruning_cost
from memspace.measures.pruning import METHODS, prune
from memspace.measures.rounding import rounded, rounded_compensated, scales
from memspace.metric.fisher import build
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.task.data import Data
from memspace.task.likelihood import Gaussian
from memspace.task.task import Task


def _cnn() -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3)
    )
    x = torch.randn(40, 1, 6, 6)
    with torch.no_grad():
        y = model(x).argmax(1)
    return Task(model, Data((x, y)))


def _state(task: Task) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in task.model.state_dict().items()}


def test_planted_duplicates_are_the_replaceable_filters() -> None:
    """Near-copies of one filter lie at the geometric median; small but different ones do not."""
    g = torch.Generator().manual_seed(0)
    filters = torch.randn(10, 30, generator=g)
    for k in (2, 5, 7):
        filters[k] = filters[1] + 0.01 * torch.randn(30, generator=g)
    assert set(distance_sums(filters).argsort()[:4].tolist()) == {1, 2, 5, 7}
    dense = (filters[:, None] - filters[None]).double().norm(dim=2).sum(1)
    assert torch.allclose(distance_sums(filters), dense, atol=1e-9)
    assert torch.allclose(distance_sums(filters + 3), distance_sums(filters), rtol=1e-5)  # a shift changes nothing


def test_filters_go_whole_and_what_they_fed_goes_with_them() -> None:
    task, shares = _cnn(), (0.8, 0.5, 0.2)
    before, space = _state(task), ParameterSpace.of(task)
    mask = space.pack({k: torch.full_like(p, float(p.dim() > 1)) for k, p in task.model.named_parameters()}) > 0
    found = prune_filters(task, space, mask, shares)
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert [b.name for b in filtered_layers(space)] == ["0", "2"]
    assert len(found) == 3
    for share, p in zip(shares, found, strict=True):
        assert p.share <= share
        named = space.unpack(p.flat)
        gone = (named["0.weight"].flatten(1) == 0).all(1)
        assert bool((named["0.bias"][gone] == 0).all())
        assert bool((named["2.weight"][:, gone] == 0).all())
        f, _ = outputs(task, task.train, state=named)
        silent = dict(named)
        last = (silent["2.weight"].flatten(1) == 0).all(1).repeat_interleave(16)
        assert bool((silent["5.weight"][:, last] == 0).all())
        only_filters = space.unpack(space.flat(task.model))
        for k in ("0", "2"):
            off = (named[f"{k}.weight"].flatten(1) == 0).all(1)
            only_filters[f"{k}.weight"][off] = 0
            only_filters[f"{k}.bias"][off] = 0
        alone, _ = outputs(task, task.train, state=only_filters)
        assert torch.allclose(f, alone, atol=1e-5)  # the weights counted with them did nothing
    with pytest.raises(TaskError, match="one filter"):
        prune(task, space, "geometric-median", (0.001,))
    flat = Task(nn.Linear(3, 2), Data((torch.randn(9, 3), torch.zeros(9, dtype=torch.long))))
    with pytest.raises(TaskError, match="filters"):
        prune(flat, ParameterSpace.of(flat), "geometric-median", (0.5,))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_in_one_way(method: str) -> None:
    task = _cnn()
    before, space = _state(task), ParameterSpace.of(task)
    found = prune(task, space, method, (0.3, 0.6), surgery=PruneSettings(rows=64))
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    shares = [p.share for p in found]
    assert shares == sorted(shares, reverse=True)
    for p in found:
        assert bool((p.flat[~p.kept] == 0).all())
        values = {m.name: m for m in pruning_cost(task, space, p, PruneSettings()).measurements}
        assert values["pruning.accuracy_before"].value == 1.0
        change = values["pruning.accuracy_after"].value - values["pruning.accuracy_before"].value
        assert values["pruning.accuracy_change"].value == pytest.approx(change)
        assert values["pruning.kl"].value > 0
        assert values["pruning.removed"].value == float((p.flat == 0).sum())
    with pytest.raises(ValueError, match="shares"):
        prune(task, space, method, (0.0,))
    with pytest.raises(ValueError, match="method"):
        prune(task, space, "by-eye", (0.5,))


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_rounding_stays_within_half_a_step(bits: int) -> None:
    task = _cnn()
    space = ParameterSpace.of(task)
    theta, step = space.flat(task.model), scales(task, space, bits)
    moved = rounded(task, space, bits) - theta
    assert bool((moved.abs() <= 0.5001 * step).all())
    some = step > 0
    # Uniform errors: mean square Δ²/12, whose standard deviation over weights is Δ²/√180.
    error = moved[some].double() ** 2 / step[some].double() ** 2
    assert abs(float(error.mean()) - 1 / 12) < 5 / (180 * int(some.sum())) ** 0.5


def test_compensated_rounding_is_on_the_levels_and_no_worse() -> None:
    task = _cnn()
    before, space = _state(task), ParameterSpace.of(task)
    step, objective = scales(task, space, 3), Objective(task, space)
    plain = rounded(task, space, 3)
    better = rounded_compensated(task, space, 3, PruneSettings(rows=120))
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    some = step > 0
    level = better[some] / step[some]
    assert torch.allclose(level, level.round(), atol=1e-4)
    assert float(level.abs().max()) <= 3 + 1e-4
    assert objective(better) < objective(plain)


def test_on_a_linear_gaussian_network_prediction_and_measurement_agree() -> None:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(50, 6, generator=g, dtype=torch.float64)
    task = Task(nn.Linear(6, 2).double(), Data((x, torch.randn(50, 2, generator=g, dtype=torch.float64))), Gaussian())
    space = ParameterSpace.of(task)
    d = degradation(task, space, 3 * torch.ones(space.size), {"dense": build(task, space, "dense")})
    assert d.ratio == pytest.approx(1, rel=1e-10)
    assert d.predicted["dense"] == pytest.approx(d.predicted["exact"], rel=1e-10)
    assert d.law == pytest.approx(1, rel=1e-10)
    assert d.network == pytest.approx(1, rel=1e-10)
    assert d.odd == pytest.approx(0, abs=1e-10)
    assert d.holds
    assert d.reason == ""


def test_the_two_factors_tell_the_law_from_the_network() -> None:
    """A linear softmax model leaves the second order by its law alone; a tanh network under a Gaussian by itself."""
    g = torch.Generator().manual_seed(2)
    x, y = torch.randn(60, 5, generator=g), torch.randint(0, 3, (60,), generator=g)
    linear = Task(nn.Linear(5, 3), Data((x, y)))
    space = ParameterSpace.of(linear)
    change = 8 * torch.randn(space.size, generator=g)
    d = degradation(linear, space, change, {})
    assert d.network == pytest.approx(1, rel=1e-4)
    assert not d.holds
    assert "law" in d.reason
    assert d.law * d.network == pytest.approx(d.ratio, rel=1e-9)
    bent = Task(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), Data((x, torch.randn(60, 3))), Gaussian())
    space = ParameterSpace.of(bent)
    d = degradation(bent, space, 2 * torch.randn(space.size, generator=g), {})
    assert d.law == pytest.approx(1, rel=1e-5)
    assert not d.holds
    assert "network" in d.reason
    assert d.odd + d.even == pytest.approx(d.ratio, rel=1e-9)
