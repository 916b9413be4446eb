"""Planted duplicates and leaks are found; random points give as many false positives as stated."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from memspace.auditing.duplicates import Whitening, duplicates, find_duplicates
from memspace.errors import TaskError
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.duplicates import chance, nearest
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.forms.bases import Bases
from memspace.passes.sketch import GradientSketch
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.task.task import Task
from memspace.value import Absent


def planted(n: int = 400, tests: int = 200) -> Task:
    """Random inputs; training pairs (0, 1) equal and (2, 3), (4, 5) nearly; test 0 equals training 10, test 1 nearly
    training 11.
    """
    generator = torch.Generator().manual_seed(0)
    x, z = torch.randn(n, 12, generator=generator), torch.randn(tests, 12, generator=generator)
    x[1] = x[0]
    x[3] = x[2] + 1e-3 * torch.randn(12, generator=generator)
    x[5] = x[4] + 1e-3 * torch.randn(12, generator=generator)
    z[0] = x[10]
    z[1] = x[11] + 1e-3 * torch.randn(12, generator=generator)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 3))
    label = torch.randint(3, (n,), generator=generator)
    return Task(model, (x, label), test=(z, torch.randint(3, (tests,), generator=generator)))


def test_planted_pairs_are_found() -> None:
    found = duplicates(planted())
    pairs = list(zip(found.table["kind"], found.table["train_index"], found.table["other_index"], strict=True))
    assert pairs[0] == ("exact", 0, 1)
    assert {p[1:] for p in pairs[1:3]} == {(2, 3), (4, 5)}
    assert found.exact.value == 1
    assert len(found) <= 6  # three planted, and by chance 400/1000 expected
    assert isinstance(found.near, Measurement)
    assert min(found.table["similarity"][:3]) > 0.999
    assert found.table["p_chance"] == sorted(found.table["p_chance"])


def test_planted_leaks_are_found() -> None:
    found = duplicates(planted(), "train-test")
    assert (found.table["kind"][0], found.table["train_index"][0], found.table["other_index"][0]) == ("exact", 10, 0)
    assert (found.table["kind"][1], found.table["train_index"][1], found.table["other_index"][1]) == ("near", 11, 1)
    assert found.table["label"][0] == int(planted().train.labels()[10])


@pytest.mark.parametrize("dimension", [4, 12])
def test_the_false_positive_rate_is_the_stated_one(dimension: int) -> None:
    """Independent points: the share with p below the rate is the rate, within four standard errors and a third."""
    generator = torch.Generator().manual_seed(dimension)
    points = torch.randn(6000, dimension, generator=generator)
    first = chance(nearest(points, points, 10, same=True))[:, 0]
    for rate in (0.05, 0.01):
        share = float((first < rate).double().mean())
        assert abs(share - rate) < rate / 3 + 4 * math.sqrt(rate / 6000)


def test_blockwise_neighbours_are_the_true_ones(monkeypatch) -> None:
    import sys

    generator = torch.Generator().manual_seed(4)
    points = torch.randn(50, 5, generator=generator)
    monkeypatch.setattr(sys.modules["memspace.measures.duplicates"], "_AT_ONCE", 150)
    found = nearest(points, points, 3, same=True)
    unit = torch.nn.functional.normalize(points.double(), dim=1)
    distance = torch.cdist(unit, unit).fill_diagonal_(math.inf)
    want = distance.topk(3, largest=False)
    assert torch.equal(found.index, want.indices)
    assert torch.allclose(found.distance, want.values, atol=1e-5)


def test_sketched_products_are_those_of_the_gradients() -> None:
    """⟨s_i, s_j⟩ against uᵀJ_i J_jᵀu by autograd, to the sketch's own error."""
    task = planted(40, 5)
    space = verified_space(task)
    size = 4096
    ones = {b.name: torch.ones(b.shape) for b in space.blocks}
    table = GradientSketch(space.blocks, {b.name: Bases(None, None) for b in space.blocks}, ones, size, 0)
    run_pass(task, space, [table], PassOptions(batch=16))
    sketch = table.finish()["sketch"].double()
    u = torch.randn(3, generator=torch.Generator().manual_seed(1))
    rows = []
    for x in task.train.batch(range(40)).x:
        grads = torch.autograd.grad(task.model(x[None])[0] @ u, list(task.model.parameters()))
        rows.append(torch.cat([g.flatten() for g in grads]))
    want = torch.stack(rows).double() @ torch.stack(rows).double().t()
    norms = want.diagonal().sqrt()
    error = (sketch @ sketch.t() - want).abs() / (norms[:, None] * norms)
    assert float(error.max()) < 6 * math.sqrt(2 / size)


def test_few_examples_are_left_unmeasured_and_bad_input_refused() -> None:
    small = planted(60, 20)
    found = duplicates(small)
    assert isinstance(found.near, Unmeasured)
    assert found.exact.value == 1
    with pytest.raises(TaskError, match="not defined"):
        duplicates(small, "test")
    with pytest.raises(TaskError, match="no test data"):
        duplicates(Task(small.model, small.train), "train-test")


def test_command(tmp_path, monkeypatch) -> None:
    from memspace.cli import app

    monkeypatch.chdir(tmp_path)
    (tmp_path / "twice.py").write_text("from tests.labels.test_duplicates import planted\ntask = planted()\n")
    ran = CliRunner().invoke(app, ["duplicates", "twice:task", "--within", "train-test", "--out", "pairs.parquet"])
    assert ran.exit_code == 0, ran.output
    assert "1 exact pairs" in ran.output
    assert (tmp_path / "pairs.parquet").exists()
    assert CliRunner().invoke(app, ["duplicates", "twice:task", "--within", "test"]).exit_code == 2


def test_beyond_the_pairs_allowed_only_equal_inputs_are_looked_for():
    torch.manual_seed(0)
    x = torch.randn(120, 5)
    x[7] = x[3]
    task = Task(model=torch.nn.Linear(5, 3), train=(x, torch.arange(120) % 3))
    found = find_duplicates(task, ParameterSpace(task.model), Whitening({}, {}), "train", most=14_399)
    assert found.exact.value == 1
    assert isinstance(found.near, Absent)
    assert "14,400 pairs" in found.near.reason
