"""Examples in a fixed order: what every pass reads, whatever the user handed over.

A loader that shuffles is read through its dataset in index order, so that "example 17" means the same thing in every
pass, in every table and in the report.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memspace.arguments import typed
from memspace.errors import DataError, LabelError
from memspace.task.layout import Layout, layouts
from memspace.task.samplers import generators_of, same_draws
from memspace.task.sources import Held, Items, Source, source_of
from memspace.task.tensors import is_text, leaves, tensor_of

__all__ = ["Batch", "Data", "Inputs", "call_model", "first_tensor", "move", "take"]

READ_AT_ONCE = 256  # examples, where all are read once: pictures may be large
Inputs = Any  # a tensor, a tuple of tensors (positional arguments) or a dict of tensors (keyword arguments)


@dataclass(frozen=True)
class Batch:
    """``index`` (B,) positions in the data, ``x`` the inputs, ``y`` the labels (B, ...)."""

    index: Tensor
    x: Inputs
    y: Tensor

    def __len__(self) -> int:
        return len(self.index)


def move(x: Inputs, device: torch.device, dtype: torch.dtype | None = None) -> Inputs:
    """Move inputs to a device; floating tensors also to ``dtype``."""
    if isinstance(x, Tensor):
        return x.to(device=device, dtype=dtype if dtype is not None and x.is_floating_point() else x.dtype)
    if isinstance(x, dict):
        return {k: move(v, device, dtype) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return tuple(move(v, device, dtype) for v in x)
    return x


def take(x: Inputs, index: Any) -> Inputs:
    """Index the example axis of every tensor in ``x``."""
    if isinstance(x, Tensor):
        return x[index]
    if isinstance(x, dict):
        return {k: take(v, index) for k, v in x.items()}
    return tuple(take(v, index) for v in x) if isinstance(x, list | tuple) else x


def first_tensor(x: Inputs) -> Tensor:
    """The first tensor of a batch of inputs; its first axis runs over examples."""
    return leaves(x)[0]


def call_model(model: Any, x: Inputs) -> Any:
    """``model(x)``, ``model(*x)`` for a tuple, ``model(**x)`` for a dict."""
    if isinstance(x, dict):
        return model(**x)
    if isinstance(x, tuple):
        return model(*x)
    return model(x)


def as_labels(y: Any) -> Any:
    """Raw labels of a batch: numbers as a tensor, narrow integers as the int64 that torch indexes with; strings as are.

    Raises:
        LabelError: they are neither.
    """
    if is_text(y):
        return y
    found = tensor_of(y, "labels")
    if not isinstance(found, Tensor):
        word = "None" if y is None else f"of the kind {type(y).__name__}"
        raise LabelError(
            f"the labels are {word}, not numbers", where="labels", remedy="give every example a label: 0, 1, 2, ..."
        )
    return _whole(found)


class Data:
    """An indexable set of (input, label) pairs, read in a fixed order.

    Args:
        source: a ``(x, y)`` pair of tensors, NumPy arrays or pandas objects, a map-style Dataset or a list of
            examples, a DataLoader (read by index, exactly the examples its sampler gives, see
            ``memspace.task.samplers``), or any finite iterable of batches (read once into memory). What in an example
            is input and what is label: see ``memspace.task.layout``.
        name: how messages call it, for example ``"training data"``.

    Raises:
        DataError: the source is empty, has no end, or does not give (input, label) pairs.
    """

    @typed
    def __init__(self, source: Any, name: str = "data") -> None:
        self.name = name
        self.encode: Callable[[Any], Any] = as_labels
        self._layout: Layout | None = None
        self._dtype: torch.dtype | None = None
        self._labels: Any = None
        self.kept: Tensor | None = None
        self.meaning: object = None
        if isinstance(source, Data):
            self.__dict__.update(source.__dict__, name=name)
            return
        with same_draws(generators_of(source)):
            self._reader: Source = source_of(source, name)

    def __len__(self) -> int:
        return len(self._reader) if self.kept is None else len(self.kept)

    @property
    def varies(self) -> bool:
        """Whether the examples come from user code, which may give others at a second read."""
        return self._reader.varies

    @property
    def collated(self) -> bool:
        """Whether batches are made by a user's own collate function."""
        return isinstance(self._reader, Held) or (isinstance(self._reader, Items) and self._reader.joined)

    @property
    def padded(self) -> bool:
        """Whether the length of an example in a batch depends on the others of the batch."""
        return isinstance(self._reader, Held)

    def read_as(self, layout: Layout | None, dtype: torch.dtype | None) -> Data:
        """The same examples, with another reading of what is input, floating inputs in ``dtype``."""
        other = copy.copy(self)
        other._layout, other._dtype, other._labels = layout, dtype, None
        return other

    def encoded(self, encode: Callable[[Any], Tensor]) -> Data:
        """The same examples, with raw labels of a batch (a tensor, or a list of strings) turned into numbers by it."""
        other = copy.copy(self)
        other.encode, other._labels = encode, None
        return other

    def meant(self, meaning: object, encode: Callable[[Any], Tensor], labels: Tensor, kept: Tensor | None) -> Data:
        """The same examples, or those at ``kept``, with labels encoded; ``meaning`` is what a task found them to be.

        Args:
            labels: all of them, encoded.
            kept: ascending places in these data; None: all.
        """
        other = self.encoded(encode)
        other.meaning, other._labels = meaning, labels if kept is None else labels[kept]
        if kept is not None:
            other.kept = kept if self.kept is None else self.kept[kept]
        return other

    def numbers(self, index: Tensor) -> Tensor:
        """The places in the data as given of the examples at ``index``: others may have no label and be left out."""
        return index if self.kept is None else self.kept.to(index.device)[index]

    def places(self, numbers: Tensor) -> Tensor:
        """The inverse of :meth:`numbers`: where examples of the data as given stand among those that are read.

        Raises:
            DataError: an example was left out, since it has no label.
        """
        if self.kept is None:
            return numbers
        place = torch.searchsorted(self.kept, numbers.cpu().long()).clamp_max(len(self.kept) - 1)
        absent = numbers.cpu()[self.kept[place] != numbers.cpu()]
        if len(absent):
            raise DataError(
                f"example {int(absent[0])} is not among the labelled examples", where=self.name, remedy="name others"
            )
        return place.to(numbers.device)

    def raw(self, index: Sequence[int] | Tensor) -> Any:
        """The batch at ``index`` as the source gives it, in tensors."""
        return self._reader.raw(self.numbers(torch.as_tensor(index, dtype=torch.long)))

    def batch(self, index: Sequence[int] | Tensor) -> Batch:
        """The examples at ``index``, in that order."""
        where = torch.as_tensor(index, dtype=torch.long)
        return self._batch(where, self.raw(where))

    def inputs(self, index: Sequence[int] | Tensor) -> Inputs:
        """The inputs of the examples at ``index`` alone: their labels need not be readable."""
        other = self.encoded(lambda _: torch.zeros(0))
        return other.batch(index).x

    def again(self, index: Sequence[int] | Tensor) -> Batch:
        """As :meth:`batch`, read anew from where the examples come from."""
        where = torch.as_tensor(index, dtype=torch.long)
        return self._batch(where, self._reader.again(self.numbers(where)))

    def raw_labels(self, size: int = READ_AT_ONCE) -> Iterator[Any]:
        """The labels of all examples before ``encode``, batch by batch: tensors or lists of strings."""
        for start in range(0, len(self), size):
            yield self._split(self.raw(torch.arange(start, min(start + size, len(self)))))[1]

    def batches(self, size: int, index: Sequence[int] | Tensor | None = None) -> Iterator[Batch]:
        """All examples (or those at ``index``) in order, ``size`` at a time."""
        order = torch.arange(len(self)) if index is None else torch.as_tensor(index, dtype=torch.long)
        for start in range(0, len(order), size):
            yield self.batch(order[start : start + size])

    def labels(self) -> Any:
        """All labels, (N, ...), or a list of strings; read once and kept."""
        if self._labels is None:
            parts: list[Any] = [
                self._encoded(y, f"from example {k * READ_AT_ONCE} on") for k, y in enumerate(self.raw_labels())
            ]
            if isinstance(parts[0], list):
                self._labels = [v for p in parts for v in p]
                return list(self._labels)
            if len({p.shape[1:] for p in parts}) > 1:
                shapes = sorted({tuple(p.shape[1:]) for p in parts})
                raise DataError(
                    f"labels differ in shape between batches: {shapes[0]} and {shapes[-1]}",
                    where=self.name,
                    remedy="pad the labels of all examples to one length, with -100",
                )
            self._labels = torch.cat(parts)
        return self._labels.clone() if isinstance(self._labels, Tensor) else list(self._labels)

    def _split(self, raw: Any) -> tuple[Inputs, Any]:
        if self._layout is None:
            self._layout = layouts(raw, None, self.name)[0]
        return self._layout.split(raw, self.name)

    def _batch(self, where: Tensor, raw: Any) -> Batch:
        x, y = self._split(raw)
        assert self._layout is not None
        x = self._layout.without_shared(x)
        if self._dtype is not None:
            x = _cast(x, self._dtype)
        span = f"examples {int(where[0])}..{int(where[-1])}" if len(where) else "no examples"
        wrong = [t for t in leaves(x) if not t.dim() or len(t) != len(where)]
        # A collate function may join the parts of all examples into one list, with offsets that tell them apart.
        if wrong and not (self.collated and len(wrong) < len(leaves(x))):
            raise DataError(
                f"a batch of {len(where)} examples holds a tensor of shape {tuple(wrong[0].shape)}",
                where=f"{self.name}, {span}",
                remedy="give one row per example",
            )
        return Batch(where, x, self._encoded(y, span))

    def _encoded(self, y: Any, span: str) -> Any:
        try:
            return self.encode(y)
        except LabelError as error:
            raise LabelError(error.what, where=f"{self.name}, {span}", remedy=error.remedy) from error


def _cast(x: Inputs, dtype: torch.dtype) -> Inputs:
    if isinstance(x, Tensor):
        return x.to(dtype) if x.is_floating_point() else x
    if isinstance(x, dict):
        return {k: _cast(v, dtype) for k, v in x.items()}
    return tuple(_cast(v, dtype) for v in x) if isinstance(x, tuple) else x


def _whole(y: Tensor) -> Tensor:
    """Labels of a narrow integer type as the int64 that torch indexes with; others as they are."""
    if y.dtype == torch.uint64 and bool((y.view(torch.int64) < 0).any()):
        largest = max(y.flatten().tolist())
        raise LabelError(
            f"the labels reach {largest}, more than a 64-bit integer with a sign holds",
            where="labels",
            remedy="number the classes 0, 1, 2, ...",
        )
    narrow = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32, torch.uint64)
    return y.long() if y.dtype in narrow else y
