"""Examples that can be read by index: in memory, from a data set, or from one whose batches are padded.

A source gives *raw* batches (nested dicts and tuples of tensors, see ``memspace.task.tensors``) at any indices;
``memspace.task.layout`` says which part of them is input and which is label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from memspace.errors import DataError
from memspace.task.tensors import as_batch, collate, leaves, mapped

__all__ = ["InMemory", "Items", "Padded", "Source"]

PROBED = 32  # examples looked at to see whether a collate function pads
PADDED_BYTES = 4 * 2**30  # of examples of different lengths that are padded alike and kept


class Source(Protocol):
    """Examples that can be read by index, any number of times."""

    varies: bool  # whether a second read may differ from the first

    def __len__(self) -> int: ...

    def raw(self, index: Tensor) -> Any:
        """Read a batch.

        Args:
            index: (B,) positions, in any order.

        Returns:
            Nested dicts and tuples of tensors with B rows.
        """
        ...

    def again(self, index: Tensor) -> Any:
        """Read a batch from where the examples come from, even where they are kept in memory.

        Args:
            index: (B,) positions, in any order.

        Returns:
            As :meth:`raw`.
        """
        ...


class InMemory:
    """All examples in memory, in tensors that may be the user's own.

    Consecutive rows are read without a copy, which for a small network would cost half of a pass. A network that
    writes into its inputs is given copies (``memspace.task.adapted``); a tensor written to nevertheless is noticed.

    Args:
        batch: nested dicts and tuples of tensors.
        count: of examples.
        name: of the data, for messages.
    """

    varies = False

    def __init__(self, batch: Any, count: int, name: str) -> None:
        self._batch, self._count, self._name = batch, count, name
        self._tensors = [t for t in leaves(batch) if not t.is_inference()]
        self._versions = [t._version for t in self._tensors]

    def __len__(self) -> int:
        return self._count

    def raw(self, index: Tensor) -> Any:
        """Take the rows at some positions; values without an axis of examples stay as they are.

        Args:
            index: (B,) positions, in any order.

        Returns:
            Nested dicts and tuples of tensors.

        Raises:
            DataError: a tensor has been written to since it was passed.
        """
        if any(t._version != v for t, v in zip(self._tensors, self._versions, strict=True)):
            raise DataError(
                "a tensor of the data was written to after it was passed, by the network or by other code",
                where=self._name,
                remedy="copy inputs before changing them in place, and make the task again from data as they were",
            )
        step = len(index) > 0 and bool((index[1:] - index[:-1] == 1).all())
        span = slice(int(index[0]), int(index[-1]) + 1) if step else None

        def taken(v: Any) -> Any:
            if isinstance(v, Tensor) and v.dim() and len(v) == self._count:
                part = _gathered(v, index) if span is None else v[span]
                return part.clone() if part.is_inference() else part  # which autograd would not keep
            if isinstance(v, list) and len(v) == self._count:
                return [v[int(i)] for i in index]
            return v

        return mapped(taken, self._batch)

    def again(self, index: Tensor) -> Any:
        """Read as :meth:`raw` does.

        Args:
            index: (B,) positions, in any order.

        Returns:
            Nested dicts and tuples of tensors.
        """
        return self.raw(index)


class Items:
    """A map-style data set: the examples at some of its keys, put together by a collate function.

    Args:
        dataset: anything with ``__getitem__``.
        keys: of the examples in the data set, in reading order.
        join: the loader's own collate function, or None for memspace's.
        name: of the data, for messages.
    """

    varies = True

    def __init__(self, dataset: Any, keys: Sequence[Any], join: Any, name: str) -> None:
        self._dataset, self._keys, self._join, self.name = dataset, keys, join, name

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def joined(self) -> bool:
        """Whether a user's own collate function makes the batches."""
        return self._join is not None

    def raw(self, index: Tensor) -> Any:
        """Collect the items at some positions in one batch.

        Args:
            index: (B,) positions, in any order.

        Returns:
            Nested dicts and tuples of tensors.

        Raises:
            DataError: an item cannot be read, or they do not fit together.
        """
        at = index.tolist()
        items = [self._item(i) for i in at]
        if self._join is None:
            return collate(items, at, self.name)
        where = f"examples {at[0]}..{at[-1]}"
        try:
            return as_batch(self._join(items), self.name)
        except DataError:
            raise
        except Exception as error:  # a user's own code
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"the collate function of the {self.name} fails ({type(error).__name__}: {reason})",
                where=where,
                remedy="let it make one batch of any number of examples, all of one shape or padded to one",
            ) from error

    def again(self, index: Tensor) -> Any:
        """Read as :meth:`raw` does.

        Args:
            index: (B,) positions, in any order.

        Returns:
            Nested dicts and tuples of tensors.
        """
        return self.raw(index)

    def _item(self, i: int) -> Any:
        key = self._keys[i]
        try:
            return self._dataset[key]
        except DataError:
            raise
        except Exception as error:  # a user's own code
            reason = " ".join(str(error).split())[:200]
            at = f"example {i}" if key == i else f"example {i} (index {key!r} of the dataset)"
            raise DataError(
                f"{at} of {len(self):,} cannot be read ({type(error).__name__}{': ' if reason else ''}{reason})",
                where=self.name,
                remedy="repair that example, or make the length that the dataset states the number it can give",
            ) from error

    def padded(self) -> Source:
        """Collect all examples in memory, padded alike, where the collate function pads to the longest of a batch.

        Only then is an example the same whichever others are read with it.

        Returns:
            The padded examples in memory; itself where nothing is padded, or they are too large.
        """
        if self._join is None or len(self) < 2:
            return self
        at = torch.linspace(0, len(self) - 1, min(PROBED, len(self))).long()
        shapes, widest = set(), 0
        for position in at:
            alone = leaves(self.raw(position[None]))
            shapes.add(tuple(tuple(t.shape) for t in alone))
            widest = max(widest, sum(t.numel() * t.element_size() for t in alone))
        firsts = {tuple(s[:1] for s in sizes) for sizes in shapes}
        if len(shapes) < 2 or len(firsts) > 1 or widest * len(self) > PADDED_BYTES:
            return self  # where the first axis itself varies, examples are joined into a list and nothing is padded
        return Padded(self)


class Padded(InMemory):
    """A data set whose collate function pads: collated once, all together.

    Args:
        items: of the data set.
    """

    varies = True

    def __init__(self, items: Items) -> None:
        self.items = items
        super().__init__(items.raw(torch.arange(len(items))), len(items), items.name)

    def again(self, index: Tensor) -> Any:
        """Read the items again and pad them among themselves.

        Args:
            index: (B,) positions, in any order.

        Returns:
            Nested dicts and tuples of tensors.
        """
        return self.items.raw(index)


def _gathered(t: Tensor, index: Tensor) -> Tensor:
    if t.dtype in _SIGNED:  # torch does not index these
        return t.view(_SIGNED[t.dtype])[index].view(t.dtype)
    return t[index.to(t.device)]


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
