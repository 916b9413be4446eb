"""Examples that can only be read one after another: read once, within bounds, and kept in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from memspace.errors import DataError
from memspace.task.tensors import as_batch, collate, leaves

__all__ = ["gathered"]

MOST = 1_000_000  # items read before an iterable counts as endless
BYTES = 4 * 2**30  # of tensors in memory


def gathered(iterable: Iterable[Any], name: str, *, batched: bool) -> Any:
    """Collect all examples of an iterable in one batch.

    Args:
        iterable: of examples or batches.
        name: of the data, for messages.
        batched: whether it gives batches. One whose labels are single numbers gives examples nevertheless.

    Returns:
        Nested dicts and tuples of tensors.

    Raises:
        DataError: it gives nothing, does not end, fails, or its batches do not fit together.
    """
    parts: list[Any] = []
    size = 0
    for item in _items(iterable, name):
        if len(parts) == MOST or size > BYTES:
            bound = f"{MOST:,} items" if len(parts) == MOST else f"{BYTES / 2**30:g} GiB"
            raise DataError(
                f"{name} gives more than {bound} one after another, perhaps without end",
                where=type(iterable).__name__,
                remedy="pass a dataset that can be read by index, or an iterable that ends: itertools.islice",
            )
        parts.append(as_batch(item, name) if batched else item)
        size += _bytes(item)
    if not parts:
        raise DataError(f"{name} holds no batches", where=name, remedy="check the loader or iterable that made it")
    if not batched or _single(parts[0]):
        return collate(parts, range(len(parts)), name)
    return _joined(parts, name)


def _items(iterable: Iterable[Any], name: str) -> Iterator[Any]:
    read = 0
    try:
        for item in iterable:
            yield item
            read += 1
    except DataError:
        raise
    except Exception as error:  # a user's own code
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"reading the {name} fails after {read:,} items ({type(error).__name__}: {reason})",
            where=type(iterable).__name__,
            remedy="repair the item that follows",
        ) from error


def _bytes(item: Any) -> int:
    """Sum the memory of an item's tensors and arrays."""
    if isinstance(item, Mapping):
        return sum(_bytes(v) for v in item.values())
    return sum(_bytes(v) for v in item) if isinstance(item, list | tuple) else int(getattr(item, "nbytes", 0))


def _single(item: Any) -> bool:
    """Tell whether an item is one example and not a batch: a batch's tensors share a first axis."""
    tensors = leaves(item)
    return bool(tensors) and (any(t.dim() == 0 for t in tensors) or len({len(t) for t in tensors}) > 1)


def _joined(parts: list[Any], name: str, where: str = "") -> Any:
    first = parts[0]
    kinds = {type(part) for part in parts}
    if len(kinds) > 1 or (isinstance(first, dict | tuple) and len({len(part) for part in parts}) > 1):
        raise DataError(
            f"batches of the {name} are of different kinds", where=where or name, remedy="give batches of one kind"
        )
    if isinstance(first, dict):
        for number, part in enumerate(parts):
            if part.keys() != first.keys():
                raise DataError(
                    f"batch 0 of the {name} has the entries {', '.join(map(str, first))}, "
                    f"batch {number} has {', '.join(map(str, part))}",
                    where=name,
                    remedy="give all batches the same entries",
                )
        return {key: _joined([part[key] for part in parts], name, f"entry {key!r}") for key in first}
    if isinstance(first, tuple):
        return tuple(_joined([part[i] for part in parts], name, f"entry {i}") for i in range(len(first)))
    if isinstance(first, list):
        return [v for part in parts for v in part]
    if not isinstance(first, Tensor):
        return first
    for number, part in enumerate(parts):
        if part.shape[1:] != first.shape[1:]:
            raise DataError(
                f"batch 0 of the {name} is of shape {tuple(first.shape)}, batch {number} of shape {tuple(part.shape)}",
                where=where or name,
                remedy="pad all batches to one length, or pass the dataset by index with its collate_fn",
            )
    return torch.cat(parts)
