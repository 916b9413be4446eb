"""Whether a model gives its user other outputs than are read: some of torch's kernels run without gradients only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from memspace.task.first_calls import ATTENTION, as_used, first_calls_of, near

if TYPE_CHECKING:
    from memspace.task.task import Task

__all__ = ["other_outputs"]

FEW, MORE = 4, 16  # examples spread over the data, with attention more: padding may be rare


def other_outputs(task: Task) -> str:
    """Say where the model, in eval mode without gradients, gives other outputs than memspace reads.

    Padded positions come out of ``nn.TransformerEncoder`` as zeros then, or are cut off, so that what is pooled over
    them changes. A plain network whose outputs agreed to rounding when the task was made is not called again.

    Args:
        task: being made.

    Returns:
        One sentence; empty where the outputs agree to rounding, or cannot be had.
    """
    first = first_calls_of(task)
    if first is not None and first.alone is not None and near(first.used[first.at :][:1], first.alone.f):
        return ""
    from memspace.task.checks import untouched  # which knows the task
    from memspace.task.data import call_model, move

    attends = any(isinstance(m, ATTENTION) for m in task.model.modules())
    n, most = len(task.train), MORE if attends else FEW
    index = torch.linspace(0, n - 1, min(most, n)).round().long()
    try:
        batch = task.train.batch(index)
        x = move(batch.x, task.device, task.dtype)
        with torch.enable_grad(), untouched(task.model):
            read = call_model(task.model, x).detach()
        with torch.no_grad(), as_used(task.model):
            used = call_model(task.model, x)
            counts = task.likelihood.weight(read, move(batch.y, task.device)) > 0
        difference = _apart(read, used, counts)
    except Exception:  # whatever is wrong with the user's model or data is named by the check
        return ""
    if not difference:
        return ""
    if not attends:
        return f"the model without gradients gives {difference}: here it runs in full precision, without fused kernels"
    return (
        f"the model in eval mode without gradients gives {difference}: torch's fused attention empties or cuts off "
        "padded positions there. Read are the outputs with gradients, as in training; "
        "torch.backends.mha.set_fastpath_enabled(False) gives these everywhere"
    )


def _apart(read: Tensor, used: Tensor, counts: Tensor) -> str:
    """Say how the outputs differ where they count; empty where they agree to rounding."""
    shape = tuple(read.shape[1:])
    if read.dim() > 2 and used.dim() == read.dim() and not bool(counts[:, used.shape[1] :].any()):
        read, counts = read[:, : used.shape[1]], counts[:, : used.shape[1]]  # cut off is nothing that counts
    if used.shape != read.shape:
        return f"outputs of shape {tuple(used.shape[1:])} an example instead of {shape}"
    allowed = 10 * math.sqrt(torch.finfo(read.dtype).eps) * max(1.0, float(read.abs().max()))
    off = ((used.to(read.dtype) - read).abs() * counts.unsqueeze(-1)).flatten(1).amax(1)
    count = int((off > allowed).sum())
    return f"other outputs (by up to {float(off.max()):.2g}, for {count} of {len(off)} examples)" if count else ""
