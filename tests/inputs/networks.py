"""Small networks whose distances are known, and one that is curved."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memspace.task.likelihood import Categorical, Likelihood
from memspace.task.task import Task


def linear(weight: Tensor, bias: Tensor | None = None, likelihood: Likelihood | None = None, n: int = 20) -> Task:
    """f = W x + b in float64, with n Gaussian inputs and labels that do not matter."""
    model = nn.Linear(weight.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.copy_(torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias)
    x = torch.randn(n, weight.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Task(model, (x, _labels(model, x, likelihood)), likelihood or Categorical())


def curved(inputs: int = 6, classes: int = 4, likelihood: Likelihood | None = None, n: int = 40) -> Task:
    """A 2-layer network of tanh units in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, classes)).double()
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(3)
        x = torch.randn(n, inputs, dtype=torch.float64)
    return Task(model, (x, _labels(model, x, likelihood)), likelihood or Categorical())


def inputs_of(task: Task) -> Tensor:
    x = task.train.batch(range(len(task.train))).x
    assert isinstance(x, Tensor)
    return x


@torch.no_grad()
def _labels(model: nn.Module, x: Tensor, likelihood: Likelihood | None) -> Tensor:
    f = model(x)
    return f.argmax(-1) if likelihood is None else torch.zeros_like(f)
