"""Losses with known answers: a linear regression, whose loss is quadratic, and a small network that fits its data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memspace.measures.predictors.loss_surface import LossSurface
from memspace.measures.values import Budget
from memspace.measures.workspace import Workspace
from memspace.passes.space import ParameterSpace
from memspace.progress import Silent
from memspace.task.likelihood import Gaussian
from memspace.task.run import Run
from memspace.task.task import Task


def workspace_of(task: Task, seed: int = 0) -> Workspace:
    return Workspace({Task: task, ParameterSpace: ParameterSpace.of(task), Budget: Budget(seed, 2**30, Silent())})


def surface_of(task: Task, seed: int = 0) -> LossSurface:
    surface = workspace_of(task, seed).get(LossSurface)
    assert isinstance(surface, LossSurface)
    return surface


def linear_task(seed: int, inputs: int = 6, n: int = 40, optimal: bool = False) -> Task:
    """L(w) = mean ½ (w·x − y)² + ½ ln 2π."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, inputs, generator=generator, dtype=torch.float64) * torch.linspace(0.3, 2, inputs)
    y = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    model = nn.Linear(inputs, 1, bias=False).double()
    with torch.no_grad():
        w = torch.randn(inputs, generator=generator, dtype=torch.float64)
        model.weight.copy_(torch.linalg.lstsq(x, y).solution.t() if optimal else w)
    return Task(model, (x, y), Gaussian(1.0))


def quadratic_of(task: Task) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian of the linear task's loss at its weights."""
    batch = task.train.batch(range(len(task.train)))
    x, w = batch.x, task.model.weight.detach()
    return ((x @ w.t() - batch.y) * x).mean(0), x.t() @ x / len(x)


def fitted_task(seed: int, n: int = 90, width: int = 12, gain: float = 1.0, steps: int = 120) -> Task:
    """A ReLU network with two hidden layers on three overlapping classes, in float64, trained by Adam."""
    torch.manual_seed(seed)
    y = torch.arange(n) % 3
    x = torch.randn(n, 5, dtype=torch.float64) + 1.2 * nn.functional.one_hot(y, 5)
    layers = (nn.Linear(5, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))
    model = nn.Sequential(*layers).double()
    start = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    model.zero_grad()
    with torch.no_grad():
        model[4].weight.mul_(gain)
        model[4].bias.mul_(gain)
    end = {k: v.clone() for k, v in model.state_dict().items()}
    return Task(model.eval(), (x, y), run=Run((start, end), (0.0, 1.0), (0, steps)))


def rescaled(task: Task, seed: int) -> Task:
    """The same function: inputs of every hidden unit times a random number, its outputs over it."""
    generator = torch.Generator().manual_seed(seed)
    model = task.model
    with torch.no_grad():
        for before, after in ((0, 2), (2, 4)):
            scale = torch.rand(len(model[before].bias), generator=generator, dtype=torch.float64) * 3 + 0.2
            model[before].weight.mul_(scale[:, None])
            model[before].bias.mul_(scale)
            model[after].weight.div_(scale)
    return task
