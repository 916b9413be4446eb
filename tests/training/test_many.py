"""Networks trained together are the networks trained one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from memspace.task.builtin.train import fit
from memspace.task.likelihood import Categorical
from memspace.task.recipe import Recipe, Training
from memspace.training.many import train_many

ADAM = Recipe(4, 8, 1e-2, 1e-2)
SGD = Recipe(4, 8, 0.2, 1e-2, optimiser="sgd")


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3)).double()


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    ).double()


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3)).double()


class Tokens(nn.Module):
    """A sequence model whose embedding is also its head; one parameter is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4, dtype=torch.float64)
        self.mix = nn.Linear(4, 4, dtype=torch.float64)
        self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.register_buffer("scale", torch.rand(1, dtype=torch.float64) + 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        h = torch.tanh(self.mix(h.cumsum(1))) * self.scale
        return h @ self.embedding.weight.T


def data(make, n: int = 30) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    if make is Tokens:
        return torch.randint(6, (n, 5), generator=g), torch.randint(6, (n, 5), generator=g)
    shape = (n, 1, 4, 4) if make is cnn else (n, 5)
    return torch.randn(shape, generator=g, dtype=torch.float64), torch.randint(3, (n,), generator=g)


def same(networks, m: int, model: nn.Module) -> None:
    got, want = networks.state_dict(m), model.state_dict()
    assert got.keys() == want.keys()
    for n in want:
        torch.testing.assert_close(got[n], want[n], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [mlp, cnn, normed, Tokens])
@pytest.mark.parametrize(
    "recipe",
    [ADAM, SGD, replace(SGD, momentum=0.0), replace(ADAM, batch=None), replace(SGD, batch=None), replace(SGD, decay=0)],
    ids=["adam", "sgd", "no momentum", "adam full batch", "sgd full batch", "no decay"],
)
def test_equals_one_by_one(make, recipe) -> None:
    """Three networks on their own 21 of 30 examples (a last batch of 5), in groups of two."""
    x, y = data(make)
    index = torch.stack([torch.randperm(30, generator=torch.Generator().manual_seed(k))[:21] for k in range(3)])
    seeds = (4, 4, 5)
    networks = train_many(Training(make, recipe), x, y, Categorical(), seeds=seeds, index=index, at_once=2)
    assert len(networks) == 3
    for m, s in enumerate(seeds):
        same(networks, m, fit(make, x[index[m]], y[index[m]], recipe, seed=s, record=False).model)
    f = networks.outputs(x, batch=7)
    torch.testing.assert_close(f[2], networks.model(2)(x).detach())
