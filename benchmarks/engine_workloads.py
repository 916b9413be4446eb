"""The benchmark's three workloads: a network, its data and 300 queries, trained briefly before anything is timed."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from memspace.passes.batching import examples_at_once
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.task.builtin.fashion import read_idx
from memspace.task.builtin.text import CONTEXT, Transformer
from memspace.task.builtin.train import fit
from memspace.task.data import Data
from memspace.task.recipe import Recipe
from memspace.task.task import Task

__all__ = ["BATCH", "WORKLOADS", "Workload", "fashion_images"]

BATCH = 256


@dataclass(frozen=True, eq=False)
class Workload:
    """A task with its layout, the queries of the pairwise scores and the number of losses per example."""

    name: str
    title: str
    task: Task
    queries: tuple[Tensor, Tensor]

    @cached_property
    def space(self) -> ParameterSpace:
        return verified_space(self.task)

    @cached_property
    def data(self) -> tuple[Tensor, Tensor]:
        """All training inputs and labels."""
        part = self.task.train.batch(range(self.n))
        return part.x, part.y

    @property
    def n(self) -> int:
        return len(self.task.train)

    @property
    def sequence(self) -> bool:
        return self.data[1].dim() > 1

    @cached_property
    def batch(self) -> int:
        """Examples at a time, for us and for peers: what our own passes choose for this network."""
        return examples_at_once(self.task)

    def batches(self, size: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """What a peer that takes any iterable reads: batches made once, so that no loader is timed."""
        x, y = self.data
        size = size or self.batch
        return list(zip(x.split(size), y.split(size), strict=True))

    def doubled(self, n: int) -> Workload:
        """The first n examples and up to 20 queries, everything in float64."""

        def double(t: Tensor) -> Tensor:
            return t.double() if t.is_floating_point() else t

        model = copy.deepcopy(self.task.model).double()
        data = tuple(double(t[:n]) for t in self.data)
        queries = double(self.queries[0][:20]), self.queries[1][:20]
        return Workload(self.name, self.title, Task(model=model, train=Data(data), name=self.name), queries)

    @cached_property
    def vectors(self) -> Tensor:
        """The 16 Gaussian vectors of the products, (16, P)."""
        generator = torch.Generator().manual_seed(17)
        return torch.randn(16, self.space.size, generator=generator, dtype=torch.float64).to(self.task.dtype)

    def epoch(self) -> float:
        """Seconds of one training epoch: forward and backward at batch 256, no optimiser step."""
        start = time.perf_counter()
        params = list(self.task.model.parameters())
        for x, y in self.batches(BATCH):
            loss = nn.functional.cross_entropy(self.task.model(x).flatten(0, -2), y.flatten())
            torch.autograd.grad(loss, params)
        return time.perf_counter() - start


def _trained(
    make: Callable[[], nn.Module], name: str, title: str, data: tuple[Tensor, Tensor, Tensor, Tensor], recipe: Recipe
) -> Workload:
    x, y, qx, qy = data
    model = fit(make, x, y, recipe, seed=0, record=False).model
    return Workload(name, title, Task(model=model, train=Data((x, y)), name=name), (qx, qy))


def digits(root: Path, small: bool) -> Workload:
    raw = load_digits()
    order = torch.randperm(len(raw.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(raw.data / 16.0, dtype=torch.float32)[order]
    y = torch.tensor(raw.target, dtype=torch.long)[order]
    n, q = (200, 20) if small else (1497, 300)

    def make() -> nn.Module:
        layers = [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
        return nn.Sequential(*layers)

    data = (x[:n], y[:n], x[n : n + q], y[n : n + q])
    return _trained(make, "a", "MLP 64-256-256-10 on digits", data, Recipe(10, 128, 2e-3, 0.0))


def fashion_images(root: Path, split: str, count: int) -> tuple[Tensor, Tensor]:
    """The first images of a split, (count, 1, 28, 28) in [0, 1], and their classes."""
    folder = root / "fashion-mnist"
    x, y = (read_idx(folder / f"{split}-{k}-ubyte.gz")[:count] for k in ("images-idx3", "labels-idx1"))
    return (x.float() / 255).unsqueeze(1), y.long()


def fashion(root: Path, small: bool) -> Workload:
    n, q = (100, 10) if small else (10_000, 300)

    def make() -> nn.Module:
        convolutions = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        convolutions += [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        return nn.Sequential(*convolutions, nn.Linear(1568, 64), nn.ReLU(), nn.Linear(64, 10))

    data = (*fashion_images(root, "train", n), *fashion_images(root, "t10k", q))
    title = f"CNN of 105,866 parameters on {n:,} Fashion-MNIST images"
    return _trained(make, "b", title, data, Recipe(2, 128, 2e-3, 0.0))


def shakespeare(root: Path, small: bool) -> Workload:
    content = (root / "tiny-shakespeare" / "input.txt").read_text(encoding="utf-8")
    alphabet = sorted(set(content))
    code = {c: k for k, c in enumerate(alphabet)}
    n, q, width = (24, 6, 16) if small else (1000, 300, 128)
    ids = torch.tensor([code[c] for c in content], dtype=torch.long)
    pieces = ids[: len(ids) // (CONTEXT + 1) * (CONTEXT + 1)].reshape(-1, CONTEXT + 1)
    pieces = pieces[torch.randperm(len(pieces), generator=torch.Generator().manual_seed(0))[: n + q]]
    x, y = pieces[:, :-1].contiguous(), pieces[:, 1:].contiguous()

    def make() -> nn.Module:
        return Transformer(len(alphabet), width=width, layers=2, heads=4)

    data = (x[:n], y[:n], x[n:], y[n:])
    title = f"character transformer d={width}, context {CONTEXT}, {n:,} sequences of tiny-shakespeare"
    return _trained(make, "c", title, data, Recipe(3, 64, 3e-3, 0.0))


WORKLOADS: dict[str, Callable[[Path, bool], Workload]] = {"a": digits, "b": fashion, "c": shakespeare}
