"""The network's outputs, with its own weights or with others put in their place for one call: no gradients."""

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
    """(f, y) of every example (or those at ``index``), in order.

    Args:
        state: parameters and buffers used instead of the model's own, which stay as they are.
    """
    total = len(data) if index is None else len(index)
    team = current() if current().shares(total) else ALONE
    index = index if team is ALONE else team.shard(total, index)
    fs, ys = [], []
    held = {k: v.to(task.device) for k, v in (state or {}).items()}
    with torch.no_grad(), evaluating(task.model):
        for part in data.batches(batch, index):
            x = move(part.x, task.device, task.dtype)
            args = () if isinstance(x, dict) else x if isinstance(x, tuple) else (x,)
            keywords = x if isinstance(x, dict) else {}
            f = functional_call(task.model, held, args, keywords)
            fs.append(f)
            ys.append(move(part.y, task.device))
    whole = team.concatenated({"f": torch.cat(fs), "y": torch.cat(ys)})
    return whole["f"], whole["y"]
