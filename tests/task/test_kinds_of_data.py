"""Whatever kind of data is passed, the network sees the same examples in the same order."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import memspace
from memspace.errors import DataError, MemspaceError, StochasticModelError
from memspace.passes.outputs import outputs
from memspace.task import streams
from memspace.task.checks import check_task
from memspace.task.data import Data
from memspace.task.task import Task
from memspace.training.many import train_many

N, D, C = 13, 5, 3


def _xy(seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(N, D, generator=g), torch.randint(0, C, (N,), generator=g)


X, Y = _xy()


class Net(nn.Module):
    """A layer with optional keyword arguments, as libraries have them; what it returns is chosen."""

    def __init__(self, gives: str = "tensor") -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(D, C)
        self.gives = gives

    def forward(self, feats: Tensor, scale: Tensor | None = None, labels: Tensor | None = None) -> Any:
        f = self.layer(feats)
        f = f if scale is None else f * scale[:, None]
        hidden = torch.zeros(len(f), 2)
        return {
            "tensor": f,
            "dict": {"loss": f.sum(), "logits": f, "hidden": hidden},
            "one entry": {"scores": f, "loss": f.sum()},
            "object": SimpleNamespace(logits=f, hidden=hidden),
            "tuple of one": (f,),
            "tuple with None": (f, None),
        }[self.gives]


class WholeDict(Net):
    def forward(self, batch: dict[str, Tensor]) -> Any:  # type: ignore[override]
        return self.layer(batch["feats"])


class Shared(Net):
    def forward(self, feats: Tensor, mixing: Tensor) -> Any:  # type: ignore[override]
        return self.layer(feats @ mixing)


class InPlace(Net):
    """Centres its input where it lies: a second pass over the same tensor gives something else."""

    def forward(self, feats: Tensor) -> Any:  # type: ignore[override]
        return self.layer(feats.sub_(1.0))


@dataclass
class Items(Dataset[Any]):
    item: Callable[[int], Any]
    length: int = N

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Any:
        return self.item(i)


@dataclass
class Stream(IterableDataset[Any]):
    item: Callable[[int], Any]
    length: int = N

    def __iter__(self) -> Iterator[Any]:
        return (self.item(i) for i in range(self.length))


def _mixed(items: list[tuple[Tensor, int]]) -> dict[str, Any]:
    return {
        "feats": torch.stack([a for a, _ in items]),
        "mixing": torch.eye(D),
        "label": torch.tensor([b for _, b in items]),
    }


def _mixed_tuple(items: list[tuple[Tensor, int]]) -> Any:
    return (torch.stack([a for a, _ in items]), torch.eye(D)), torch.tensor([b for _, b in items])


def _pair(i: int) -> Any:
    return X[i], int(Y[i])


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "tensors": (Net, lambda: (X, Y)),
    "a list of both": (Net, lambda: [X, Y]),
    "numpy": (Net, lambda: (X.numpy(), Y.numpy())),
    "numpy float64 and uint16": (Net, lambda: (X.double().numpy(), Y.numpy().astype(np.uint16))),
    "big-endian": (Net, lambda: (X.numpy().astype(">f8"), Y.numpy().astype(">i4"))),
    "read-only": (Net, lambda: (np.broadcast_to(X.numpy(), X.shape), Y.numpy())),
    "reversed": (Net, lambda: (X.flip(0).numpy()[::-1], Y.flip(0).numpy()[::-1])),
    "long double": (Net, lambda: (X.numpy().astype(np.longdouble), Y.numpy())),
    "a table": (Net, lambda: (pd.DataFrame(X.numpy()), pd.Series(Y.numpy()))),
    "a table with nullable labels": (Net, lambda: (pd.DataFrame(X.numpy()), pd.Series(Y.numpy(), dtype="Int64"))),
    "a table, labels an array": (Net, lambda: (pd.DataFrame(X.numpy()), Y.numpy())),
    "lists of numbers": (Net, lambda: (X.tolist(), Y.tolist())),
    "a list of pairs": (Net, lambda: [_pair(i) for i in range(N)]),
    "a list of numpy pairs": (Net, lambda: [(X[i].numpy(), Y[i].numpy()) for i in range(N)]),
    "items": (Net, lambda: Items(_pair)),
    "items with lists of numbers": (Net, lambda: Items(lambda i: (X[i].tolist(), int(Y[i])))),
    "image and label": (Net, lambda: Items(lambda i: {"image": X[i], "label": int(Y[i])})),
    "ids, strings and None": (
        Net,
        lambda: Items(lambda i: {"image": X[i], "label": int(Y[i]), "id": f"a{i}", "mask": None}),
    ),
    "named inputs": (
        Net,
        lambda: Items(lambda i: {"feats": X[i], "scale": 1.0, "labels": int(Y[i]), "idx": i, "text": "x"}),
    ),
    "a pair with a dict": (Net, lambda: Items(lambda i: ({"feats": X[i], "idx": i}, int(Y[i])))),
    "a loader of dicts": (Net, lambda: DataLoader(Items(lambda i: {"feats": X[i], "labels": int(Y[i])}), 4, True)),
    "input, label, id": (Net, lambda: Items(lambda i: (X[i], int(Y[i]), 1000 + i))),
    "input, label, name": (Net, lambda: Items(lambda i: (X[i], int(Y[i]), f"file {i}"))),
    "two inputs, label": (Net, lambda: TensorDataset(X, torch.ones(N), Y)),
    "a dict of all": (Net, lambda: {"feats": X, "labels": Y}),
    "a batch encoding": (Net, lambda: UserDict({"feats": X, "labels": Y})),
    "a batch encoding and labels": (Net, lambda: (UserDict({"feats": X}), Y)),
    "batches of dicts": (
        Net,
        lambda: iter([{"feats": a, "y": b} for a, b in zip(X.split(4), Y.split(4), strict=True)]),
    ),
    "the dict as one argument": (WholeDict, lambda: Items(lambda i: {"feats": X[i], "more": X[i], "label": int(Y[i])})),
    "a shared tensor by name": (Shared, lambda: DataLoader(Items(_pair), 4, collate_fn=_mixed)),
    "a shared tensor by place": (Shared, lambda: DataLoader(Items(_pair), 4, collate_fn=_mixed_tuple)),
    "a stream of examples": (Net, lambda: Stream(_pair)),
    "a loader over a stream": (Net, lambda: DataLoader(Stream(_pair), 4)),
    "a loader without batches": (Net, lambda: DataLoader(Stream(_pair), None)),
    "workers": (Net, lambda: DataLoader(Items(_pair), 4, True, num_workers=2)),
    "logits in a dict": (lambda: Net("dict"), lambda: (X, Y)),
    "one entry that is outputs": (lambda: Net("one entry"), lambda: (X, Y)),
    "logits of an object": (lambda: Net("object"), lambda: (X, Y)),
    "a tuple of one": (lambda: Net("tuple of one"), lambda: (X, Y)),
    "a tuple with None": (lambda: Net("tuple with None"), lambda: (X, Y)),
    "made in inference mode": (Net, lambda: (_inference(X), Y)),
    "part of a graph": (Net, lambda: (X.clone().requires_grad_() * 1, Y)),
}


def _inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_give_the_same_outputs_and_labels(kind: str) -> None:
    make, data = KINDS[kind]
    want = Net().layer(X)
    state = torch.get_rng_state()
    task = Task(make(), data(), test=data())
    check_task(task)
    assert torch.equal(torch.get_rng_state(), state)
    for part in (task.train, task.test):
        assert part is not None
        assert len(part) == N
        f, y = outputs(task, part)
        torch.testing.assert_close(f, want)
        assert torch.equal(y, Y)
        assert torch.equal(part.labels(), Y)
        for index in (torch.arange(N), torch.tensor([7, 0, 12, 7])):
            first, second = part.batch(index), part.batch(index)
            for a, b in zip(_tensors(first.x), _tensors(second.x), strict=True):
                assert torch.equal(a, b)
            assert torch.equal(first.y, Y[index])


def _tensors(x: Any) -> list[Tensor]:
    return (
        [x] if isinstance(x, Tensor) else [t for v in (x.values() if isinstance(x, dict) else x) for t in _tensors(v)]
    )


@pytest.mark.parametrize("kind", ["named inputs", "a shared tensor by name", "logits in a dict", "image and label"])
def test_the_metric_is_that_of_the_plain_network_on_plain_data(kind: str) -> None:
    make, data = KINDS[kind]
    want = memspace.fisher(plain := Task(Net(), (X, Y)), memspace.ParameterSpace.of(plain), "dense").trace().value
    task = Task(make(), data())
    for representation in ("dense", "dual"):
        found = memspace.fisher(task, memspace.ParameterSpace.of(task), representation).trace().value
        assert found == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("source", ["pair", "dataset", "loader", "numpy"])
def test_a_network_that_writes_into_its_inputs_never_writes_into_the_user_s(source: str) -> None:
    x, model = X.clone(), InPlace()
    given: Any = {
        "pair": (x, Y),
        "dataset": TensorDataset(x, Y),
        "loader": DataLoader(TensorDataset(x, Y), 4),
        "numpy": (x.numpy(), Y.numpy()),
    }[source]
    task = Task(model, given)
    check_task(task)
    space = memspace.ParameterSpace.of(task)
    first, second = (memspace.fisher(task, space, "dual").trace().value for _ in range(2))
    assert first == second
    torch.testing.assert_close(outputs(task, task.train)[0], model.layer(X - 1))
    assert torch.equal(x, X)
    assert type(model) is InPlace


def test_a_write_into_the_data_that_no_probe_could_see_is_noticed() -> None:
    class Sometimes(Net):
        def forward(self, feats: Tensor) -> Any:  # type: ignore[override]
            return self.layer(feats.add_(1.0) if len(feats) == 5 else feats)

    x = X.clone()
    task = Task(Sometimes(), (x, Y))
    outputs(task, task.train, batch=4)
    outputs(task, task.train, index=torch.arange(5))
    with pytest.raises(DataError, match="was written to after it was passed"):
        task.train.batch([0])


def test_inputs_take_the_dtype_of_floating_parameters_and_whole_numbers_none() -> None:
    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(D, D, dtype=torch.int8), requires_grad=False)
            self.layer = nn.Linear(D, C)

        def forward(self, x: Tensor, ids: Tensor) -> Tensor:
            assert ids.dtype == torch.int64
            return self.layer(x @ self.weight.to(x.dtype)) + ids[:, None]

    task = Task(Quantised(), ((X.double(), torch.arange(N)), Y))
    assert task.dtype == torch.float32
    check_task(task)
    assert task.train.batch([0]).x[0].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.bool, torch.int16])
def test_whole_inputs_reach_the_network_as_they_are(dtype: torch.dtype) -> None:
    class Scaled(Net):
        def forward(self, x: Tensor) -> Any:  # type: ignore[override]
            assert x.dtype == dtype
            return self.layer(x.float() / 255)

    x = (torch.arange(N * D).reshape(N, D) % 250).to(dtype)
    task = Task(Scaled(), (x, Y))
    check_task(task)
    assert torch.equal(task.train.batch([12, 3]).x.long(), torch.stack([x[12], x[3]]).long())


def test_copies_and_trainings_of_adapted_networks_are_adapted_too() -> None:
    training = memspace.Training(lambda: Net("dict"), memspace.Recipe(epochs=2, batch=4, rate=0.1, decay=0.0))
    task = Task(Net("dict"), Items(lambda i: {"feats": X[i], "labels": int(Y[i])}), training=training)
    twin = copy.deepcopy(task.model)
    with torch.no_grad():
        twin.layer.bias += 1
    assert not torch.equal(twin(X), task.model(X))
    assert task.training is not None
    networks = train_many(task.training, {"feats": X}, Y, task.likelihood, seeds=[0, 1])
    assert isinstance(networks.model(1)(X), Tensor)
    again = replace(task, model=twin)
    torch.testing.assert_close(outputs(again, again.train)[0], twin.layer(X))


# Collate functions that pad.


class Reader(nn.Module):
    def __init__(self, masked: bool, tokens: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.out = nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, C)
        self.masked, self.tokens = masked, tokens

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.embed(x))
        if self.tokens:
            return self.out(h)
        seen = (x > 0).unsqueeze(-1).float() if self.masked else torch.ones(*x.shape, 1)
        return self.out((h * seen).sum(1) / seen.sum(1))


SEQUENCES = [torch.arange(1, 2 + k % 5) for k in range(N)]


def _padding(items: list[tuple[Tensor, int]]) -> Any:
    return pad_sequence([a for a, _ in items], batch_first=True), torch.tensor([b for _, b in items])


def _padding_both(items: list[tuple[Tensor, Tensor]]) -> Any:
    return _padding([(a, 0) for a, _ in items])[0], pad_sequence([b for _, b in items], True, padding_value=-100)


def test_examples_padded_by_batch_are_read_alike_in_every_batch() -> None:
    task = Task(Reader(True), DataLoader(list(zip(SEQUENCES, Y.tolist(), strict=True)), 4, collate_fn=_padding))
    check_task(task)
    want = torch.cat([task.model(s[None]) for s in SEQUENCES])
    for size in (1, 3, N):
        f, _ = outputs(task, task.train, batch=size)
        torch.testing.assert_close(f, want)


def test_labels_by_token_are_padded_alike() -> None:
    items = [(s, s % C) for s in SEQUENCES]
    task = Task(Reader(True, tokens=True), DataLoader(items, 4, collate_fn=_padding_both))  # type: ignore[arg-type]
    check_task(task)
    assert task.train.labels().shape == (N, 5)
    f, y = outputs(task, task.train, batch=2)
    assert f.shape == (N, 5, C)
    assert int((y >= 0).sum()) == sum(map(len, SEQUENCES))


def test_outputs_that_depend_on_the_padding_are_refused_by_example() -> None:
    data = DataLoader(list(zip(SEQUENCES, Y.tolist(), strict=True)), 4, collate_fn=_padding)
    with pytest.raises(StochasticModelError, match=r"example \d+ change by .* with the padding of its batch"):
        check_task(Task(Reader(False), data))


# What is random.


@pytest.mark.parametrize("what", ["inputs", "labels"])
@pytest.mark.parametrize("padded", [False, True])
def test_two_in_a_hundred_random_reads_are_noticed(what: str, padded: bool) -> None:
    torch.manual_seed(5)

    def item(i: int) -> Any:
        odd = float(torch.rand(())) < 0.02
        x = SEQUENCES[i].clone() if padded else X[i].clone()
        if odd and what == "inputs":
            x[0] = 8
        return x, (int(Y[i]) + (odd and what == "labels")) % C

    data: Any = DataLoader(Items(item), 4, collate_fn=_padding) if padded else Items(item)
    with pytest.raises(DataError, match=rf"different {what} when read twice \(training data, example \d+\)"):
        check_task(Task(Reader(True) if padded else Net(), data))


def test_an_example_that_differs_far_into_the_data_is_named() -> None:
    count = iter(range(10**9))
    big = Items(lambda i: (torch.tensor([float(next(count)) if i == 2999 else 0.0] * D), 0), 3000)
    with pytest.raises(DataError, match="example 2999"):
        check_task(Task(Net(), big))


# What cannot be read ends in one sentence.


def _bad_item(i: int) -> Any:
    if i == 7:
        raise OSError("image file is\n truncated")
    return _pair(i)


def _endless() -> Iterator[Any]:
    while True:
        yield X, Y


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "raises at 7": (lambda: Items(_bad_item), r"example 7 of 13 cannot be read \(OSError: image file is truncated\)"),
    "lies about its length": (lambda: Items(lambda i: [_pair(j) for j in range(N)][i], 50), r"example 49 of 50 cannot"),
    "a stream that gives nothing": (lambda: Stream(_pair, 0), "holds no batches"),
    "a stream that fails": (lambda: Stream(_bad_item), "after 7 items .OSError"),
    "batches of two shapes": (lambda: iter([(X, Y), (X[:, :2], Y)]), r"shape \(13, 5\), batch 1 of shape \(13, 2\)"),
    "batches of two kinds": (lambda: iter([(X, Y), {"feats": X, "y": Y}]), "different kinds"),
    "no labels": (lambda: Items(lambda i: (X[i], None)), "the labels are None"),
    "one label missing": (lambda: Items(lambda i: (X[i], None if i == 12 else 0)), "example 12"),
    "meta tensors": (lambda: (torch.zeros(N, D, device="meta"), Y), "meta device"),
    "sparse": (lambda: (X.to_sparse(), Y), "to_dense"),
    "strings for inputs": (lambda: Items(lambda i: ("a text", 1)), "hold no tensor"),
    "dicts without a label": (lambda: Items(lambda i: {"feats": X[i], "klass": 1}), "labels, label, label_ids"),
    "two labels": (lambda: Items(lambda i: {"feats": X[i], "label": 1, "target": 2}), "more than one label"),
    "a column of words": (lambda: (pd.DataFrame({"a": ["x"] * N}), Y), "column 'a'"),
    "an array of objects": (lambda: (np.array([{}] * N), Y), "object values"),
    "items of two kinds": (lambda: Items(lambda i: {"a": X[i], "y": 1} if i else {"b": X[i], "y": 1}), "example 12 is"),
    "no label at all": (lambda: X, "without labels"),
    "a list of batches": (lambda: [(X, Y), (X, Y)], "batches, or sequences"),
    "no length": (lambda: type("NoLength", (), {"__getitem__": lambda s, i: _pair(i)})(), "__len__"),
    "a length that fails": (lambda: type("Odd", (Items,), {"__len__": lambda s: 1 // 0})(_pair), "ZeroDivisionError"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_data_end_in_one_sentence(kind: str) -> None:
    make, words = BAD[kind]
    with pytest.raises(MemspaceError, match=words) as caught:
        check_task(Task(Net(), make()))
    assert "\n" not in str(caught.value)


def test_a_stream_without_end_is_refused_by_count_and_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST", 50)
    with pytest.raises(DataError, match="more than 50 items one after another"):
        Data(_endless())
    monkeypatch.setattr(streams, "BYTES", 2**12)
    with pytest.raises(DataError, match="GiB one after another"):
        Data(_endless())


def test_which_entry_is_the_label_must_be_clear() -> None:
    ambiguous = Items(lambda i: (X[i], 1, 2))  # forward takes a scale beside the input
    with pytest.raises(DataError, match="either of entry 2 and entry 1 could be the label"):
        Task(Net(), ambiguous)
    with pytest.raises(DataError, match="depends on the network"):
        Data(ambiguous).batch([0])
