"""A small training that the tests watch."""

from __future__ import annotations

import torch
from torch import nn

import memspace


def data(seed: int = 0, n: int = 120, classes: int = 3):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=g)
    y = (x @ torch.randn(6, classes, generator=g) + 0.5 * torch.randn(n, classes, generator=g)).argmax(1)
    return x, y


def network(seed: int = 0, classes: int = 3, stochastic: bool = True):
    torch.manual_seed(seed)
    middle = [nn.BatchNorm1d(16), nn.Dropout(0.2)] if stochastic else []
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), *middle, nn.Linear(16, classes))


def train(model, x, y, optimizer, steps: int, batch: int = 20, after=lambda: None):
    """Plain steps on random batches; ``after`` each."""
    for _ in range(steps):
        index = torch.randint(len(y), (batch,)) if batch < len(y) else slice(None)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()
        after()


def watched(out, steps: int, *, seed: int = 0, rate: float = 0.1, stochastic: bool = False, batch: int = 20, **options):
    """A whole recorded training: (model, recorder); further options as of ``memspace.watch`` and its settings."""
    x, y = data(seed)
    model = network(seed, stochastic=stochastic)
    optimizer = torch.optim.SGD(model.parameters(), rate)
    outer = {k: options.pop(k) for k in ("to", "resume") if k in options}
    settings = memspace.WatchSettings(**{"every": 1, "slow": False, "probe": 60} | options)
    with memspace.watch(model, (x, y), optimizer, out=out, settings=settings, **outer) as run:
        train(model, x, y, optimizer, steps, batch)
    return model, run
