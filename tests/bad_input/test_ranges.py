"""Numbers out of their range and examples that do not fit end in one sentence, not in a loop or a traceback."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import memspace
from memspace import Categorical, MemspaceError, Recipe, Task, Training
from memspace.errors import DataError, LabelError, SettingsError, ShapeError, StochasticModelError, TaskError
from memspace.limits import COUNT
from memspace.task.checks import check_task

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(3))
Y = torch.arange(24) % 3


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def task(y=Y) -> Task:
    return Task(net(), (X, y))


TRAINING = Training(net, Recipe(1, 8, 0.1, 0.0))


def many(**changed):
    given = {"x": X, "y": Y, "likelihood": Categorical(), "seeds": [0, 1]} | changed
    return memspace.train_many(TRAINING, given.pop("x"), given.pop("y"), given.pop("likelihood"), **given)


def metric(**changed):
    return memspace.fisher(task(), memspace.verified_space(task()), "dual", **changed)


def path(**changed):
    return memspace.GeodesicSettings(**changed)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: memspace.leave_one_out(task(), folds=1), "folds=1 leaves nothing to train on"),
        (lambda: memspace.leave_one_out(task(), folds=-1), "folds is out of range: -1"),
        (lambda: memspace.label_issues(task(), folds=1), "folds=1 leaves nothing to train on"),
        (lambda: memspace.label_issues(task(), repeats=0), "repeats is out of range: 0"),
        (lambda: memspace.label_issues(task(), reasons=-1), "reasons is out of range: -1"),
        (lambda: memspace.duplicates(task(), rate=2.0), "rate is out of range"),
        (lambda: memspace.duplicates(task(), rate=math.nan), "rate is out of range"),
        (lambda: memspace.duplicates(task(), seed=-1), "seed is out of range"),
        (lambda: metric(batch=0), "batch is out of range: 0"),
        (lambda: metric(batch=-1), "batch is out of range: -1"),
        (lambda: metric(seed=-1), "seed is out of range"),
        (lambda: path(levels=()), "levels are none"),
        (lambda: path(levels=(9, 5)), "levels are 9, 5"),
        (lambda: path(levels=(-3,)), "levels is out of range"),
        (lambda: path(limit=0), "limit is out of range"),
        (lambda: path(tolerance=math.nan), "tolerance is out of range"),
        (lambda: memspace.natural_gradient_flow(task(), math.inf, 2), "duration is out of range"),
        (lambda: memspace.natural_gradient_flow(task(), 1.0, 2, damping=math.nan), "damping is out of range"),
        (lambda: memspace.FisherRaoNorm(net(), Categorical(), degree=math.nan), "degree is out of range"),
        (lambda: Recipe(1, -1, 0.1, 0.0), "batch is out of range"),
        (lambda: Recipe(1, None, math.nan, 0.0), "rate is out of range"),
        (lambda: Recipe(1, None, 0.1, 0.0, momentum=1.0), "momentum is out of range"),
        (lambda: Task(net(), (X, Y), decay=-1.0), "decay is out of range"),
        (lambda: many(at_once=0), "at_once is out of range"),
        (lambda: many(seeds=[-1]), "seeds is out of range"),
        (lambda: many(seeds=["a"]), "seeds is a list that holds 'a'"),
    ],
)
def test_a_number_out_of_range_is_named(call, says) -> None:
    with pytest.raises(SettingsError, match=says) as said:
        call()
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda: many(x="str"), DataError, "no inputs and 24 labels"),
        (lambda: many(x=3), DataError, "24 labels"),
        (lambda: many(x={}), DataError, "no inputs"),
        (lambda: many(x=X[:5]), DataError, "5 rows and 24 labels"),
        (lambda: many(y=Y[:3]), DataError, "24 rows and 3 labels"),
        (lambda: many(y="a"), LabelError, "no tensor of numbers"),
        (lambda: many(y=Y + 5), LabelError, r"outside 0\.\.2"),
        (lambda: many(y=Y.double()), LabelError, "must be integers"),
        (lambda: many(weights="a"), DataError, "weights are a str"),
        (lambda: many(index=[[0], [1]]), DataError, "index is a list"),
    ],
)
def test_examples_that_do_not_fit_are_named(call, kind, says) -> None:
    with pytest.raises(kind, match=says) as said:
        call()
    assert "\n" not in str(said.value)


def test_what_is_in_range_is_taken() -> None:
    assert len(many(x=X.numpy(), y=Y.numpy(), seeds=torch.tensor([0, 1]))) == 2
    want = many(x=X, y=Y)
    torch.testing.assert_close(many(x=X.numpy(), y=Y.numpy()).outputs(X), want.outputs(X))
    one = memspace.leave_one_out(Task(net(), (X[:2], Y[:2]), refit=lambda _i, _s: net()), folds=5)
    assert len(one.y) == 2  # more folds than examples: one for each
    assert COUNT(4.0, "count") == 4


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (torch.where(torch.arange(24) < 5, -1, Y), "if -1 means no label, put -100 in its place"),
        (torch.where(torch.arange(24) < 5, 255, Y).to(torch.uint8), "if 255 means no label"),
        (np.where(np.arange(24) == 3, np.uint64(2**64 - 1), Y.numpy().astype(np.uint64)), "reach 18446744073709551615"),
        (np.full(24, 2**63 + 1, dtype=np.uint64), "reach 9223372036854775809"),
        (Y.double() * 1e30, "must be integers"),
    ],
    ids=["-1", "255", "one uint64", "uint64", "1e30"],
)
def test_labels_out_of_range_are_shown_as_they_are(labels, says) -> None:
    with pytest.raises(LabelError, match=says) as said:
        check_task(task(labels))
    assert "-9223372036854775" not in str(said.value)


def test_offsets_that_are_none_say_what_they_should_be() -> None:
    class Bags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.head = nn.EmbeddingBag(9, 4), nn.Linear(4, 3)

        def forward(self, text, offsets):
            return self.head(self.bag(text, offsets))

    texts = [torch.arange(1, 3 + i % 4) for i in range(24)]

    def batches(first: int):
        def collate(items):
            lengths = [len(t) for t, _ in items]
            offsets = torch.tensor([first, *lengths[:-1]]).cumsum(0)
            return (torch.cat([t for t, _ in items]), offsets), torch.tensor([y for _, y in items])

        return torch.utils.data.DataLoader(list(zip(texts, Y.tolist(), strict=True)), 8, collate_fn=collate)

    check_task(Task(Bags(), batches(0)))
    with pytest.raises(ShapeError, match="let offsets say where each example's bag starts"):
        check_task(Task(Bags(), batches(1)))


@pytest.mark.filterwarnings("ignore")
def test_a_dynamically_quantised_layer_is_named() -> None:
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8))
    rounded = torch.ao.quantization.quantize_dynamic(whole, {nn.Linear})
    with pytest.raises(MemspaceError, match="before it was quantised") as said:
        memspace.audit(nn.Sequential(rounded, nn.Linear(8, 3)).eval(), (X * torch.logspace(-2, 2, 24)[:, None], Y))
    assert isinstance(said.value, StochasticModelError)
    with pytest.raises(TaskError, match="no trainable parameters"):
        memspace.audit(rounded, (X, Y))
