"""How many examples go through the network at a time: few enough for the caches, enough to fill a matrix product."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.passes.capture import Capture
from memspace.task.checks import evaluating
from memspace.task.data import Data, call_model, move
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["TRANSIENT", "cotangent_numbers", "examples_at_once", "widest_signal"]

TRANSIENT = 2**21  # numbers in one layer's signals: larger ones leave the caches and page in
MOST, LEAST = 512, 16


def widest_signal(task: Task, data: Data | None = None, index: Tensor | None = None) -> int:
    """Numbers in the largest tensor that one example's graph holds, the parameters apart."""
    data = task.train if data is None else data
    held = [1]
    own = {p.data_ptr() for p in task.model.parameters()}

    def note(t: Tensor) -> Tensor:
        if t.data_ptr() not in own:
            held.append(t.numel())
        return t

    x = move(data.batch([0] if index is None else index[:1]).x, task.device, task.dtype)
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda t: t)
    with evaluating(task.model), torch.enable_grad(), hooks:
        f = call_model(task.model, x)
    return max(*held, int(f.numel()))


def examples_at_once(task: Task, data: Data | None = None, rows: int = 1) -> int:
    """The batch of a pass that pulls ``rows`` cotangents back per example."""
    return max(LEAST, min(MOST, TRANSIENT // (widest_signal(task, data) * rows)))


def cotangent_numbers(task: Task, space: ParameterSpace, index: Tensor | None = None) -> int:
    """Numbers that one output cotangent of one example takes, at the outputs and pulled back to every block."""
    with evaluating(task.model), Capture(task.model, space) as capture:
        x = task.train.batch([0] if index is None else index[:1]).x
        signals = capture.forward(move(x, task.device, task.dtype))
        pulled = signals.cotangents(torch.zeros_like(signals.f).unsqueeze(0))
        return int(signals.f.numel()) + sum(int(g.numel()) for g in pulled.values())
