"""The network's outputs without gradients, at its own weights or at others for one call."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from memspace.passes.processes import ALONE, current
from memspace.task.checks import evaluating
from memspace.task.data import Data, move
from memspace.task.functional import functional_call
from memspace.task.task import Task

__all__ = ["outputs"]


def outputs(
    task: Task,
    data: Data,
    *,
    state: Mapping[str, Tensor] | None = None,
    index: Tensor | None = None,
    batch: int = 512,
) -> tuple[Tensor, Tensor]:
    """Compute the outputs of every example, in order. Inside ``processes.across`` every process computes its shard.

    Args:
        task: the network.
        data: the examples.
        state: parameters and buffers used instead of the model's own, which are not changed; None: the model's.
        index: positions (n,) of the examples to read; None: all.
        batch: examples at a time.

    Returns:
        F (n, ..., C) and labels y (n, ...), on the model's device.
    """
    total = len(data) if index is None else len(index)
    processes = current() if current().shares(total) else ALONE
    index = index if processes is ALONE else processes.shard(total, index)
    fs, ys = [], []
    replaced = {k: v.to(task.device) for k, v in (state or {}).items()}
    with torch.no_grad(), evaluating(task.model):
        for part in data.batches(batch, index):
            x = move(part.x, task.device, task.dtype)
            args = () if isinstance(x, dict) else x if isinstance(x, tuple) else (x,)
            keywords = x if isinstance(x, dict) else {}
            f = functional_call(task.model, replaced, args, keywords)
            fs.append(f)
            ys.append(move(part.y, task.device))
    whole = processes.concatenated({"f": torch.cat(fs), "y": torch.cat(ys)})
    return whole["f"], whole["y"]
