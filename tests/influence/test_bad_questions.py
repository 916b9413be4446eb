"""What a user can get wrong, in one sentence each."""

import pytest
import torch
from torch import nn

from memspace.attribution.engines import choose_engine
from memspace.attribution.influence import influence
from memspace.attribution.settings import InfluenceSettings
from memspace.attribution.target import target_of
from memspace.errors import DataError, MemoryBudgetError, NonFiniteError, SettingsError, TaskError
from memspace.task.data import Data
from memspace.task.likelihood import Categorical, Gaussian
from memspace.task.task import Task


@pytest.fixture
def task():
    torch.manual_seed(0)
    x, y = torch.randn(12, 4), torch.randint(0, 3, (12,))
    return Task(model=nn.Linear(4, 3), train=(x[:8], y[:8]), test=(x[8:], y[8:]))


@pytest.mark.parametrize(
    ("queries", "says"),
    [
        ([4], "no example 4 .*0 to 3"),
        ([-1], "no example -1"),
        ([], "no query"),
        ([0.5], "whole numbers"),
        ([[0, 1]], "whole numbers"),
        (torch.tensor([True, False]), "whole numbers"),
    ],
)
def test_queries(task, queries, says):
    with pytest.raises(DataError, match=says):
        influence(task, queries, damping=0.1)


@pytest.mark.parametrize("target", ["los", "logit:0", "logit:0-7", "logp:x", "logp", "logit:a-b"])
def test_targets(task, target):
    with pytest.raises(TaskError, match=r"no target|no output"):
        influence(task, [0], damping=0.1, target=target)


def test_targets_of_another_output_law():
    with pytest.raises(TaskError, match="class probabilities"):
        target_of("margin", Gaussian())
    assert target_of("logit:0-1", Gaussian()).name == "logit 0 - 1"


@pytest.mark.parametrize(
    ("function", "error", "says"),
    [
        (lambda f, y: f, TaskError, "one number per query"),
        (lambda f, y: 3.0, TaskError, "gives float"),
        (lambda f, y: torch.zeros(len(f)), TaskError, "does not depend"),
        (lambda f, y: (f[:, 0] - 1e9).log(), NonFiniteError, "NaN or infinite for 1 of 1"),
    ],
)
def test_functions(task, function, error, says):
    with pytest.raises(error, match=says):
        influence(task, [0], damping=0.1, target=function)


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan"), float("inf")])
def test_dampings(task, damping):
    with pytest.raises(SettingsError, match="damping is out of range"):
        influence(task, [0], damping=damping)


def test_words(task):
    with pytest.raises(TaskError, match="no engine 'ekfa'"):
        influence(task, [0], damping=0.1, engine="ekfa")
    with pytest.raises(TaskError, match="no split"):
        influence(task, [0], damping=0.1, split="layer")
    with pytest.raises(TaskError, match="no tokens"):
        influence(task, [0], damping=0.1, tokens="all")
    with pytest.raises(TaskError, match="knows no eigenmodes"):
        influence(task, [0], damping=0.1, engine="iterative", split="modes")
    with pytest.raises(TaskError, match="with positions"):
        influence(task, [0], damping=0.1, tokens="queries")


def test_queries_that_hold_nan(task):
    bad = Data((torch.full((2, 4), float("nan")), torch.tensor([0, 1])), "queries")
    with pytest.raises(NonFiniteError, match="queries"):
        influence(task, bad, damping=0.1)


def test_memory(task):
    with pytest.raises(MemoryBudgetError, match="Fisher rows"):
        influence(task, [0], damping=0.1, engine="dual", settings=InfluenceSettings(memory=2**13))


def test_the_model_is_left_as_it_was(task):
    task.model.train()
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    influence(task, [0], damping=0.1)
    assert task.model.training
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert all(p.grad is None for p in task.model.parameters())


def test_other_examples_as_queries(task):
    found = influence(task, Data((torch.zeros(2, 4), torch.tensor([0, 1]))), damping=0.1)
    assert found.scores.shape == (2, 8)
    assert found.queries.tolist() == [0, 1]


def test_left_out_groups_add_up(task):
    found = influence(task, [0, 1], damping=0.1)
    without = torch.zeros(3, 8, dtype=torch.bool)
    without[1, 2] = without[2, 2] = without[2, 5] = True
    change = found.group(without)
    assert change.shape == (3, 2)
    assert (change[0] == 0).all()
    assert torch.allclose(change[2], -found.scores[:, 2] - found.scores[:, 5])
    assert Categorical().name == "categorical"


@pytest.mark.parametrize(
    ("engine", "queries", "rows", "takes"),
    [("auto", 5, 24, "dual"), ("auto", 5, 23, "iterative"), ("auto", 10**6, 23, "ekfac"), ("ekfac", 5, 24, "ekfac")],
)
def test_the_engine_that_auto_takes(task, engine, queries, rows, takes):
    # 8 examples × 3 outputs: 24 rows.
    assert choose_engine(task, engine, queries, rows)[0] == takes


def test_a_target_that_mixes_queries_is_named() -> None:
    g = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    task = Task(nn.Linear(4, 3), (torch.randn(20, 4, generator=g), torch.arange(20) % 3))
    own = influence(task, [0, 5], damping=0.1, target=lambda f, _y: f[:, 0] - f.mean(-1))
    alone = influence(task, [0], damping=0.1, target=lambda f, _y: f[:, 0] - f.mean())
    torch.testing.assert_close(own.scores[:1], alone.scores)
    with pytest.raises(TaskError, match="among 2 queries"):
        influence(task, [0, 5], damping=0.1, target=lambda f, _y: f[:, 0] - f.mean())
