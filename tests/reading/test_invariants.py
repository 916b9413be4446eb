"""The invariants' table does not change when units are rescaled or exchanged; its numbers are the known ones."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import memspace
from memspace import Task
from memspace.measures.predictors.learning_coefficient import SamplingSettings
from memspace.metric.fisher import build
from memspace.passes.space import ParameterSpace

EPS = torch.finfo(torch.float64).eps


def mlp(seed: int, examples: int = 40) -> Task:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    x = torch.randn(examples, 4, dtype=torch.float64)
    return Task(model, (x, torch.randint(0, 3, (examples,))))


def convolutional(seed: int) -> Task:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    ).double()
    x = torch.randn(30, 1, 6, 6, dtype=torch.float64)
    return Task(model, (x, torch.randint(0, 3, (30,))))


def rescale(task: Task, scales: torch.Tensor) -> None:
    """Scale units of the first layer up, and what the second reads of them down."""
    first, second = task.model[0], task.model[2]
    with torch.no_grad():
        first.weight.mul_(scales.reshape(-1, *[1] * (first.weight.dim() - 1)))
        first.bias.mul_(scales)
        second.weight.div_(scales.reshape(1, -1, *[1] * (second.weight.dim() - 2)))


def permute(task: Task, order: list[int]) -> None:
    first, second = task.model[0], task.model[2]
    with torch.no_grad():
        first.weight.copy_(first.weight[order])
        first.bias.copy_(first.bias[order])
        second.weight.copy_(second.weight[:, order])


def same(before: memspace.Invariants, after: memspace.Invariants, parameters: int) -> None:
    """Equal up to rounding: every number is a smooth function of P products of rounded factors, or a count."""
    allowed = 1e3 * parameters * EPS
    for a, b in zip(before.measurements, after.measurements, strict=True):
        assert a.name == b.name
        assert a.reliable == b.reliable
        assert b.value == pytest.approx(a.value, rel=allowed, abs=allowed), a.name
    for first, second in zip(before.numbers.layers, after.numbers.layers, strict=True):
        assert first.rank == second.rank
        assert second.norm == pytest.approx(first.norm, rel=allowed)
        assert second.trace == pytest.approx(first.trace, rel=allowed)


@pytest.mark.parametrize("made", [mlp, convolutional])
@pytest.mark.parametrize("seed", [1, 2])
def test_rescaling_and_exchanging_units_changes_no_number(made, seed) -> None:
    task = made(seed)
    size = sum(p.numel() for p in task.model.parameters())
    before = memspace.invariants(task, sampled=False)
    spectrum = build(task, ParameterSpace(task.model), "dual").eigenvalues()
    units = len(task.model[0].bias)
    rescale(task, torch.logspace(-1, 1, units, dtype=torch.float64))
    permute(task, torch.randperm(units).tolist())
    same(before, memspace.invariants(task, sampled=False), size)
    # the spectrum of F in the weights' own coordinates is another one, so it is not in the table
    assert float(build(task, ParameterSpace(task.model), "dual").eigenvalues()[0] / spectrum[0] - 1) ** 2 > 0.01


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), st.lists(st.floats(0.05, 20), min_size=6, max_size=6))
def test_any_rescaling_keeps_the_numbers_of_a_perceptron(seed, scales) -> None:
    task = mlp(seed)
    before = memspace.invariants(task, sampled=False)
    rescale(task, torch.tensor(scales, dtype=torch.float64))
    same(before, memspace.invariants(task, sampled=False), 83)


def test_sampled_numbers_are_the_same_after_a_rescaling_and_agree_after_an_exchange(monkeypatch) -> None:
    monkeypatch.setattr("memspace.reading.invariants.SAMPLING", SamplingSettings(chains=3, warmup=6, draws=10, leaps=2))
    task = mlp(3)
    names = [f"invariants.{n}" for n in ("learning_coefficient", "curvature_trace", "curvature_top")]
    before = memspace.invariants(task)
    rescale(task, torch.tensor([0.5, 2.0, 4.0, 0.25, 8.0, 1.0]))  # powers of two round nothing
    scaled = memspace.invariants(task)
    permute(task, [5, 3, 1, 0, 2, 4])
    permuted = memspace.invariants(task)
    for name in names:
        a, b, c = (t.results.measurement(name) for t in (before, scaled, permuted))
        assert b.value == pytest.approx(a.value, rel=1e-9)
        assert a.interval is not None
        assert c.interval is not None
        width = a.interval[1] - a.interval[0] + c.interval[1] - c.interval[0]
        assert abs(c.value - a.value) <= width + 1e-6 * abs(a.value)


def test_softmax_regression_has_the_rank_and_the_shift_that_are_known() -> None:
    torch.manual_seed(4)
    x = torch.randn(60, 4, dtype=torch.float64)
    table = memspace.invariants(Task(nn.Linear(4, 3).double(), (x, torch.randint(0, 3, (60,)))), sampled=False)
    assert table.value("invariants.rank") == 2 * 5  # (C − 1)(d + 1)
    assert table.value("invariants.flat_directions") == 5
    assert table.value("invariants.shifts") == 5
    assert table.value("invariants.unexplained") == 0
    assert table.value("invariants.permutations") == 0


def test_every_flat_direction_of_a_small_relu_network_has_its_reason() -> None:
    table = memspace.invariants(mlp(5, examples=400), sampled=False)
    assert table.results.measurement("invariants.rank").reliable
    assert table.value("invariants.rescalings") == 6 + 5
    assert table.value("invariants.permutations") == pytest.approx(math.log2(math.factorial(6) * math.factorial(5)))
    assert table.value("invariants.unexplained") == 0


def test_spectral_numbers_are_those_of_the_dense_matrix() -> None:
    task = mlp(6)
    space = ParameterSpace(task.model)
    metric = build(task, space, "dense")
    f = metric.apply(lambda v: v, torch.eye(space.size, dtype=torch.float64))
    theta = space.flat(task.model)
    values = torch.linalg.eigvalsh(f * theta * theta[:, None]).clamp_min(0)
    table = memspace.invariants(task, sampled=False)
    assert table.value("invariants.relative_trace") == pytest.approx(float(values.sum()), rel=1e-10)
    assert table.value("invariants.fisher_rao_norm") == pytest.approx(float(theta @ f @ theta), rel=1e-10)
    assert table.value("invariants.participation_ratio") == pytest.approx(
        float(values.sum() ** 2 / values.square().sum()), rel=1e-10
    )
    bits = 0.5 * float(torch.log2(1 + 40 * values).sum())
    assert table.value("invariants.bits") == pytest.approx(bits, rel=1e-8)


def test_a_sample_of_the_examples_is_said_to_be_one(monkeypatch) -> None:
    monkeypatch.setattr("memspace.reading.invariants.SMALL", 10)
    monkeypatch.setattr("memspace.reading.invariants.ROWS", 30)
    table = memspace.invariants(mlp(7), sampled=False)
    rank = table.results.measurement("invariants.rank")
    assert not rank.reliable
    assert "10 of 40" in rank.note
    assert rank.value <= 10 * 2


def test_the_network_stays_bit_for_bit_as_it_was(tmp_path) -> None:
    task = mlp(8)
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    memspace.invariants(task, sampled=False, page=tmp_path / "page.html")
    assert all(torch.equal(v, task.model.state_dict()[k]) for k, v in before.items())
    assert "Directions by layer" in (tmp_path / "page.html").read_text()
