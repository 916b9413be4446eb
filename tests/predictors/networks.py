"""Small networks of four families in float64, and the predictors measured on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from memspace.measurement import Measurement
from memspace.measures import predictors  # noqa: F401
from memspace.measures.declaration import declared_measures
from memspace.measures.workspace import Workspace
from memspace.task.task import Task


def sequence_labels(task: Task) -> Tensor:
    """All labels."""
    return task.train.batch(range(len(task.train))).y


def perceptron(seed: int, n: int = 12, **fields: object) -> Task:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x, y = torch.randn(n, 4, dtype=torch.float64), torch.randint(0, 3, (n,))
    return Task(model=model, train=(x, y), **fields)


def convolutional(seed: int, n: int = 8) -> Task:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3, padding=1), nn.ReLU())
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)).double()
    return Task(model=model, train=(torch.randn(n, 1, 6, 6, dtype=torch.float64), torch.randint(0, 3, (n,))))


class Recurrent(nn.Module):
    """A hand-written cell: its matrices belong to no layer of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.randn(5, 3) / 2)
        self.weight_hh = nn.Parameter(torch.randn(5, 5) / 3)
        self.bias = nn.Parameter(torch.randn(5) / 4)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 5)
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] @ self.weight_ih.t() + h @ self.weight_hh.t() + self.bias)
        return self.head(h)


def recurrent(seed: int, n: int = 8) -> Task:
    torch.manual_seed(seed)
    x, y = torch.randn(n, 4, 3, dtype=torch.float64), torch.randint(0, 3, (n,))
    return Task(model=Recurrent().double(), train=(x, y))


class Gated(nn.Module):
    """torch's own recurrent layer, read at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0])


def gated(seed: int, n: int = 8) -> Task:
    torch.manual_seed(seed)
    x, y = torch.randn(n, 4, 3, dtype=torch.float64), torch.randint(0, 4, (n, 4))
    return Task(model=Gated().double(), train=(x, y))


class Transformer(nn.Module):
    """Tokens, a table of places, one block of attention, a prediction at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 8)
        self.place = nn.Parameter(torch.randn(1, 5, 8) / 3)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(self.embed(tokens) + self.place))


def transformer(seed: int, n: int = 8) -> Task:
    torch.manual_seed(seed)
    tokens, y = torch.randint(0, 6, (n, 5)), torch.randint(0, 6, (n, 5))
    return Task(model=Transformer().double(), train=(tokens, y))


ALL = (perceptron, convolutional, recurrent, gated, transformer)

FAMILIES = ("alignment", "confidence", "gradients", "margins", "norms", "optimisation", "similarity", "tails")


def measures(prefix: str) -> list[Callable[..., Any]]:
    """The declared predictors of weights, outputs and gradients whose names begin so."""
    declared = [m for m in declared_measures() if m.chapter == "predictors" and m.name.startswith(FAMILIES)]
    return [m.function for m in declared if m.name.startswith(prefix)]


def measured(workspace: Workspace, prefix: str = "") -> dict[str, Measurement]:
    """Those that are measured, by name."""
    return {m.name: m for m in workspace.measure_all(measures(prefix))[0]}
