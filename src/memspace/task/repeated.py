"""Data that differ between reads: random inputs or labels, and outputs that depend on the padding.

Every number memspace gives assumes that example 17 is the same in every pass.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from memspace.errors import DataError, StochasticModelError
from memspace.task.data import Batch, Data, call_model, move, take
from memspace.task.tensors import leaves

if TYPE_CHECKING:
    from memspace.task.task import Task

__all__ = ["check_padding", "check_repeatable"]

READS = 512  # further reads of single examples: an augmentation of 2% is missed with chance 0.98^512 = 3e-5
AT_ONCE = 64
SECONDS = 2.0  # further reads may take that long, or as long as the first of all examples did
PADDED = 8  # examples compared alone and in a batch


def check_repeatable(data: Data) -> None:
    """Check that examples all over the data are bit for bit the same when read again.

    Where there are few, they are read several times. Data in memory that is no user's code is not read again: it cannot
    differ.

    Args:
        data: training or test data.

    Raises:
        DataError: names the first example whose inputs or labels differ.
    """
    if not data.varies:
        return
    count = len(data)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    ends = torch.tensor(sorted({0, count - 1}))
    sample = torch.cat([ends, order[~torch.isin(order, ends)]])[:READS]
    start = time.perf_counter()
    parts = [sample[k : k + AT_ONCE] for k in range(0, len(sample), AT_ONCE)]
    first = [data.again(part) for part in parts]
    allowed = max(SECONDS, (time.perf_counter() - start) * count / len(sample))
    start = time.perf_counter()
    for turn in range(-(-READS // len(sample))):
        for part, before in zip(parts, first, strict=True):
            if turn and time.perf_counter() - start > allowed:
                return
            _compare(data, before, data.again(part))


def _compare(data: Data, before: Batch, after: Batch) -> None:
    for word, earlier, later, remedy in (
        ("inputs", before.x, after.x, "switch random augmentation off for the audit"),
        ("labels", before.y, after.y, "let an example have the same label at every read"),
    ):
        differ = _differing(earlier, later, len(before))
        if differ is not None:
            raise DataError(
                f"the data give different {word} when read twice",
                where=f"{data.name}, example {int(before.index[differ])}",
                remedy=remedy,
            )


def _differing(a: Any, b: Any, count: int) -> int | None:
    """Find the first row in which two batches differ; NaN equals NaN."""
    if isinstance(a, list) and isinstance(b, list):  # strings
        return next((i for i, (v, w) in enumerate(zip(a, b, strict=True)) if v != w), None)
    for v, w in zip(leaves(a), leaves(b), strict=True):
        if v.shape != w.shape:
            return 0
        same = v == w
        if v.is_floating_point():
            same |= torch.isnan(v) & torch.isnan(w)
        if not same.dim() or len(same) != count:  # a list of all examples' parts, or what they share
            if not bool(same.all()):
                return 0
            continue
        rows = same.reshape(count, -1).all(1)
        if not bool(rows.all()):
            return int((~rows).int().argmax())
    return None


@torch.no_grad()
def check_padding(task: Task, data: Data, allowed: float) -> None:
    """Compare outputs of single examples with those in a batch of examples that a collate function padded alike.

    Args:
        task: whose network is called.
        data: training or test data; only those that a collate function pads are compared.
        allowed: difference that rounding may make, relative to the largest output.

    Raises:
        StochasticModelError: names the example whose outputs differ most.
    """
    if not data.padded:
        return
    index = torch.linspace(0, len(data) - 1, min(PADDED, len(data))).long()
    together = data.batch(index)
    f = call_model(task.model, move(together.x, task.device, task.dtype))
    worst, at = 0.0, 0
    for row, example in enumerate(index.tolist()):
        one = data.again([example])
        alone = call_model(task.model, move(one.x, task.device, task.dtype))
        apart = _apart(alone[0], f[row], one.y, take(together.y, row))
        if apart > worst:
            worst, at = apart, example
    if worst > allowed * max(1.0, float(f.abs().max())):
        raise StochasticModelError(
            f"the model's outputs for example {at} change by {worst:.2g} with the padding of its batch",
            where=data.name,
            remedy="mask the padded positions in the model, or pad all examples to one length before",
        )


def _apart(alone: Tensor, padded: Tensor, y: Any, y_padded: Any) -> float:
    """Measure the largest difference between outputs, at the positions that both have."""
    if alone.shape == padded.shape:
        return float((alone - padded).abs().max())
    if isinstance(y, Tensor) and y.shape[1:] == alone.shape[:-1] and y_padded.shape == padded.shape[:-1]:
        single, batched = alone[y[0] >= 0], padded[y_padded >= 0]
        if single.shape == batched.shape:
            return float((single - batched).abs().max()) if single.numel() else 0.0
    return 0.0
