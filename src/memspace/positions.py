"""Positions in data, as people give them: lists, ranges, arrays and tensors of whole numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from memspace.arguments import described
from memspace.errors import DataError

__all__ = ["as_index", "as_positions"]


def as_positions(given: Any, name: str, remedy: str) -> Tensor:
    """Read positions in data.

    Args:
        given: whole numbers in a list, a range, an array or a tensor; there may be none.
        name: of the argument, for the message.
        remedy: what to give instead, for the message.

    Returns:
        A tensor (n,) of whole numbers on the CPU.

    Raises:
        DataError: anything else was given.
    """
    try:
        index = torch.as_tensor(given if isinstance(given, Tensor) or hasattr(given, "__array__") else list(given))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        index = None
    if index is None or index.dim() != 1 or index.dtype == torch.bool or (len(index) and _fractional(index)):
        kind = described(given) if index is None else str(index.dtype).removeprefix("torch.")
        shape = "" if index is None else f" of shape {tuple(index.shape)}"
        raise DataError(f"{name} are whole numbers in a list, not {kind}{shape}", where=name, remedy=remedy)
    return index.cpu()


def as_index(given: Any, count: int, name: str) -> Tensor:
    """Read one or more positions in data and check that they are there.

    Args:
        given: as :func:`as_positions` takes it.
        count: examples of the data.
        name: of the argument, for the message.

    Returns:
        A tensor (n,) of int64 on the CPU, from 0 to ``count`` − 1.

    Raises:
        DataError: anything else was given, none, or one that is not there.
    """
    index = as_positions(given, name, f"give whole numbers from 0 to {count - 1}").long()
    if not len(index) or int(index.min()) < 0 or int(index.max()) >= count:
        what = "holds no example" if not len(index) else f"holds {int(index.min())} to {int(index.max())}"
        raise DataError(f"{name} {what}", where=name, remedy=f"give whole numbers from 0 to {count - 1}")
    return index


def _fractional(index: Tensor) -> bool:
    return index.is_floating_point() or index.is_complex()
