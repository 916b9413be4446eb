"""Small float64 networks as workloads of the benchmark, so that its own use of each peer is what is tested."""

import torch
from torch import nn

from benchmarks.engine_workloads import Workload
from memspace.task.task import Task


def mlp(bias=True):
    return nn.Sequential(nn.Linear(5, 6, bias=bias), nn.Tanh(), nn.Linear(6, 3, bias=bias))


def cnn():
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 3))


MAKE = {"mlp": mlp, "cnn": cnn, "bias-free": lambda: mlp(bias=False)}


def workload(name, seed=0, n=12):
    """N examples (no multiple of a batch), four queries."""
    torch.manual_seed(seed)
    model = MAKE[name]().double().eval()
    shape = (1, 6, 6) if name == "cnn" else (5,)
    x, y = torch.randn(n + 4, *shape, dtype=torch.float64), torch.randint(0, 3, (n + 4,))
    task = Task(model=model, train=(x[:n], y[:n]), name=name)
    return Workload(name, name, task, (x[n:], y[n:]))
