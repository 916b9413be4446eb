"""A run is gone on with only where all that its results depend on is the same."""

from __future__ import annotations

import functools
import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import memspace
from memspace.auditing.key import run_key
from memspace.auditing.store import _same
from memspace.task.data import Data
from memspace.task.fingerprint import fingerprint
from tests import warm

N = 60


class Net(nn.Module):
    def __init__(self, act=torch.tanh, slope: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)
        self.act, self.slope = act, slope

    def forward(self, x):
        return self.b(self.act(self.slope * self.a(x)))


def _data(seed: int = 0, n: int = N):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=g), torch.randint(0, 3, (n,), generator=g)


def _task(**changes):
    x, y = _data()
    model = Net()
    return memspace.Task(**{"model": model, "train": (x, y), "test": (x[:9], y[:9]), "name": "t"} | changes)


def test_the_same_task_built_again_has_the_same_fingerprint():
    assert fingerprint(_task()) == fingerprint(_task())
    assert _same(run_key(_task(), memspace.Settings()), run_key(_task(), memspace.Settings()))


@pytest.mark.parametrize("at", [0, 1, 17, 38, N - 1])
def test_a_change_of_any_one_input_or_label_is_seen(at):
    x, y = _data()
    base = fingerprint(_task())
    moved = x.clone()
    moved[at, 2] += 1e-6
    assert fingerprint(_task(train=(moved, y))) != base
    other = y.clone()
    other[at] = (other[at] + 1) % 3
    assert fingerprint(_task(train=(x, other))) != base
    assert fingerprint(_task(train=Listed(x, y))) == base
    assert fingerprint(_task(train=Listed(moved, y))) != base


class Listed(torch.utils.data.Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


def _shifted(x):
    return torch.tanh(x) + 0.1


def _forward(x, model):
    return 2 * Net.forward(model, x)


def _hooked():
    model = Net()
    model.a.register_forward_hook(lambda _m, _i, out: out + 1)
    return model


def _patched():
    model = Net()
    model.forward = functools.partial(_forward, model=model)
    return model


@pytest.mark.parametrize(
    "model",
    [
        lambda: Net(functional.relu),
        lambda: Net(_shifted),
        lambda: Net(lambda x: torch.tanh(x)),
        lambda: Net(slope=1.5),
        _hooked,
        _patched,
    ],
    ids=["other function", "own function", "lambda", "constant", "hook", "patched forward"],
)
def test_a_changed_forward_with_the_same_weights_is_seen(model):
    assert fingerprint(_task(model=model())) != fingerprint(_task())


@pytest.mark.parametrize(
    "changes",
    [
        {"likelihood": memspace.Gaussian(0.5)},
        {"parameters": "b.*"},
        {"test": None},
        {"class_names": ("a", "b", "c")},
        {"true_labels": torch.zeros(N, dtype=torch.long)},
        {"input_shape": (2, 2)},
        {"decay": 0.1},
        {"refit": lambda index, seed: Net()},
        {"show": str},
        {"run": memspace.Run(({"w": torch.zeros(2)}, {"w": torch.ones(2)}), (0.0, 1.0), (0, 5))},
    ],
    ids=lambda c: next(iter(c)),
)
def test_whatever_else_the_task_tells_is_part_of_it(changes):
    assert fingerprint(_task(**changes)) != fingerprint(_task())


def test_constants_of_the_law_count():
    x = _data()[0]
    tasks = [_task(train=(x, x[:, :3]), test=None, likelihood=memspace.Gaussian(s)) for s in (0.5, 0.50001)]
    assert fingerprint(tasks[0]) != fingerprint(tasks[1])


def test_settings_and_versions_are_in_the_key_from_python_too(monkeypatch):
    task, settings = _task(), memspace.Settings()
    key = run_key(task, settings)
    assert not _same(run_key(task, replace(settings, seed=1)), key)
    monkeypatch.setattr(importlib.import_module("memspace.auditing.key"), "VERSION", "9.9.9")
    assert not _same(run_key(task, settings), key)


def test_what_the_model_answers_is_in_the_key(monkeypatch):
    """Also where a part that no fingerprint reaches has changed, as an installed package."""
    base = run_key(_task(), memspace.Settings())
    real = functional.linear
    monkeypatch.setattr(functional, "linear", lambda *args: 1.01 * real(*args))
    assert not _same(run_key(_task(), memspace.Settings()), base)


ODD = {
    "none": None,
    "text": ["a", "b"],
    "numpy": np.arange(3.0),
    "objects": np.array(["a", None], dtype=object),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "complex": torch.ones(2, dtype=torch.complex64).conj(),
    "scalar": torch.tensor(3),
    "empty": torch.empty(0, 4),
    "sparse": torch.eye(3).to_sparse(),
    "meta": torch.empty(3, device="meta"),
    "transposed": torch.ones(2, 3).t(),
    "itself": [],
    "set": {3, "a", None},
    "generator": torch.Generator(),
    "lock": __import__("threading").Lock(),
    "surrogate": "\ud800",
}
ODD["itself"].append(ODD["itself"])


@pytest.mark.parametrize("kind", ODD)
def test_odd_attributes_of_a_model_do_not_stop_a_fingerprint(kind):
    def task(value):
        model = Net()
        model.odd = value
        return _task(model=model)

    assert fingerprint(task(ODD[kind])) == fingerprint(task(ODD[kind])) != fingerprint(_task())


MODULE = """
import torch
from torch import nn

SCALE = {scale}

def squash(x):
    return {squash}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(3, 2)

    def forward(self, x):
        return self.helper(self.a(x))

    def helper(self, f):
        {comment}
        return SCALE * squash(f)
"""
ASK = """
import torch, memspace, net
from memspace.task.fingerprint import fingerprint
x = torch.arange(12.0).reshape(4, 3)
print(fingerprint(memspace.Task(model=net.Net(), train=(x, torch.tensor([0, 1, 0, 1])))))
"""


def test_a_helper_or_a_constant_of_the_same_file_counts_and_a_comment_does_not(tmp_path):
    def ask(scale="2.0", squash="torch.tanh(x)", comment="pass"):
        (tmp_path / "net.py").write_text(MODULE.format(scale=scale, squash=squash, comment=comment))
        done = warm.python(tmp_path, "import sys; sys.dont_write_bytecode = True\n" + ASK, path=sys.path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    base = ask()
    assert ask(comment="# another remark\n\n        pass") == base
    assert ask(scale="2.5") != base
    assert ask(squash="torch.sin(x)") != base


def test_data_read_by_index_is_read_once():
    class Counted(Listed):
        reads = 0

        def __getitem__(self, i):
            Counted.reads += 1
            return super().__getitem__(i)

    task = _task(train=Counted(*_data()), test=None)
    Counted.reads = 0
    fingerprint(task)
    assert Counted.reads == N
    assert isinstance(task.train, Data)
