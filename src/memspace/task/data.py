"""Examples in a fixed order: what every pass reads, whatever the user passes.

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
from memspace.task.indexed import Items, Padded, Source
from memspace.task.layout import Layout, layouts
from memspace.task.samplers import generators_of, same_draws
from memspace.task.sources import source_of
from memspace.task.tensors import is_text, leaves, mapped, tensor_of

__all__ = ["Batch", "Data", "Inputs", "call_model", "first_tensor", "move", "take"]

READ_AT_ONCE = 256  # examples, where all are read once: pictures may be large
Inputs = Any  # a tensor, a tuple of tensors (positional arguments) or a dict of tensors (keyword arguments)


@dataclass(frozen=True)
class Batch:
    """Some examples.

    Args:
        index: (B,) positions in the data.
        x: inputs, tensors with B rows.
        y: labels (B, ...).
    """

    index: Tensor
    x: Inputs
    y: Tensor

    def __len__(self) -> int:
        return len(self.index)


def move(x: Inputs, device: torch.device, dtype: torch.dtype | None = None) -> Inputs:
    """Move inputs to a device; floating tensors also to a dtype.

    Args:
        x: a tensor, or nested tuples and dicts of tensors.
        device: where to.
        dtype: of the floating tensors; None: as they are.

    Returns:
        Inputs of the same structure.
    """
    if isinstance(x, Tensor):
        return x.to(device=device, dtype=dtype if dtype is not None and x.is_floating_point() else x.dtype)
    if isinstance(x, dict):
        return {k: move(v, device, dtype) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return tuple(move(v, device, dtype) for v in x)
    return x


def take(x: Inputs, index: Any) -> Inputs:
    """Restrict the example axis of every tensor to an index.

    Args:
        x: a tensor, or nested tuples and dicts of tensors.
        index: anything that indexes an axis of a tensor.

    Returns:
        Inputs of the same structure.
    """
    if isinstance(x, Tensor):
        return x[index]
    if isinstance(x, dict):
        return {k: take(v, index) for k, v in x.items()}
    return tuple(take(v, index) for v in x) if isinstance(x, list | tuple) else x


def first_tensor(x: Inputs) -> Tensor:
    """Return the first tensor of a batch of inputs; its first axis runs over examples.

    Args:
        x: a tensor, or nested tuples and dicts of tensors.

    Returns:
        The tensor (B, ...).
    """
    return leaves(x)[0]


def call_model(model: Any, x: Inputs) -> Any:
    """Evaluate ``model(x)``, ``model(*x)`` for a tuple, ``model(**x)`` for a dict.

    Args:
        model: any callable.
        x: inputs.

    Returns:
        Whatever the model returns.
    """
    if isinstance(x, dict):
        return model(**x)
    if isinstance(x, tuple):
        return model(*x)
    return model(x)


def as_labels(y: Any) -> Any:
    """Read raw labels of a batch as a tensor, narrow integers as the int64 that torch indexes with.

    Args:
        y: labels as the source gives them.

    Returns:
        A tensor (B, ...); strings as they are.

    Raises:
        LabelError: they are neither numbers nor strings.
    """
    if is_text(y):
        return y
    labels = tensor_of(y, "labels")
    if not isinstance(labels, Tensor):
        word = "None" if y is None else f"of the kind {type(y).__name__}"
        raise LabelError(
            f"the labels are {word}, not numbers", where="labels", remedy="give every example a label: 0, 1, 2, ..."
        )
    return _whole(labels)


class Data:
    """An indexable set of (input, label) pairs, read in a fixed order.

    Args:
        source: a ``(x, y)`` pair of tensors, NumPy arrays or pandas objects, a map-style Dataset, a list of
            examples, a DataLoader, or a finite iterable of batches (read once into memory). A loader is read by
            index, exactly the examples its sampler gives (see ``memspace.task.samplers``). Which part of an example
            is input and which is label: see ``memspace.task.layout``.
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
        self.labelled: Tensor | None = None
        self.meaning: object = None
        if isinstance(source, Data):
            self.__dict__.update(source.__dict__, name=name)
            return
        with same_draws(generators_of(source)):
            self._reader: Source = source_of(source, name)

    def __len__(self) -> int:
        return len(self._reader) if self.labelled is None else len(self.labelled)

    @property
    def varies(self) -> bool:
        """Whether the examples come from user code, which may give others at a second read."""
        return self._reader.varies

    @property
    def collated(self) -> bool:
        """Whether batches are made by a user's own collate function."""
        return isinstance(self._reader, Padded) or (isinstance(self._reader, Items) and self._reader.joined)

    @property
    def padded(self) -> bool:
        """Whether the length of an example in a batch depends on the others of the batch."""
        return isinstance(self._reader, Padded)

    def read_as(self, layout: Layout | None, dtype: torch.dtype | None) -> Data:
        """Return the same examples under another reading of what is input.

        Args:
            layout: the reading; None: the first that the rules allow.
            dtype: of floating inputs; None: as they are.

        Returns:
            New data over the same source.
        """
        other = copy.copy(self)
        other._layout, other._dtype, other._labels = layout, dtype, None
        return other

    def encoded(self, encode: Callable[[Any], Tensor]) -> Data:
        """Return the same examples with another encoding of their labels.

        Args:
            encode: turns raw labels of a batch (a tensor, or a list of strings) into numbers.

        Returns:
            New data over the same source.
        """
        other = copy.copy(self)
        other.encode, other._labels = encode, None
        return other

    def meant(self, meaning: object, encode: Callable[[Any], Tensor], labels: Tensor, labelled: Tensor | None) -> Data:
        """Return the same examples, or some of them, with their labels encoded.

        Args:
            meaning: how a task reads outputs and labels.
            encode: turns raw labels of a batch into numbers.
            labels: all of them, encoded.
            labelled: ascending places in these data of the examples to keep; None: all.

        Returns:
            New data over the same source.
        """
        other = self.encoded(encode)
        other.meaning, other._labels = meaning, labels if labelled is None else labels[labelled]
        if labelled is not None:
            other.labelled = labelled if self.labelled is None else self.labelled[labelled]
        return other

    def numbers(self, index: Tensor) -> Tensor:
        """Return the places of examples in the data as the user gave them; unlabelled ones are left out here.

        Args:
            index: (B,) positions in these data.

        Returns:
            (B,) positions in the data as given.
        """
        return index if self.labelled is None else self.labelled.to(index.device)[index]

    def places(self, numbers: Tensor) -> Tensor:
        """Find examples of the data as given among those that are read: the inverse of :meth:`numbers`.

        Args:
            numbers: (B,) positions in the data as given.

        Returns:
            (B,) positions in these data.

        Raises:
            DataError: an example was left out, since it has no label.
        """
        if self.labelled is None:
            return numbers
        place = torch.searchsorted(self.labelled, numbers.cpu().long()).clamp_max(len(self.labelled) - 1)
        absent = numbers.cpu()[self.labelled[place] != numbers.cpu()]
        if len(absent):
            raise DataError(
                f"example {int(absent[0])} is not among the labelled examples", where=self.name, remedy="name others"
            )
        return place.to(numbers.device)

    def raw(self, index: Sequence[int] | Tensor) -> Any:
        """Read a batch as the source gives it, in tensors.

        Args:
            index: (B,) positions.

        Returns:
            Nested dicts and tuples of tensors, not yet split into inputs and labels.
        """
        return self._reader.raw(self.numbers(torch.as_tensor(index, dtype=torch.long)))

    def batch(self, index: Sequence[int] | Tensor) -> Batch:
        """Read the examples at some positions, in that order.

        Args:
            index: (B,) positions.

        Returns:
            The batch, labels encoded.
        """
        where = torch.as_tensor(index, dtype=torch.long)
        return self._batch(where, self.raw(where))

    def inputs(self, index: Sequence[int] | Tensor) -> Inputs:
        """Read inputs alone: the labels need not be readable.

        Args:
            index: (B,) positions.

        Returns:
            The inputs of these examples.
        """
        return self.encoded(lambda _: torch.zeros(0)).batch(index).x

    def again(self, index: Sequence[int] | Tensor) -> Batch:
        """Read as :meth:`batch` does, once more from where the examples come from.

        Args:
            index: (B,) positions.

        Returns:
            The batch, labels encoded.
        """
        where = torch.as_tensor(index, dtype=torch.long)
        return self._batch(where, self._reader.again(self.numbers(where)))

    def raw_labels(self, size: int = READ_AT_ONCE) -> Iterator[Any]:
        """Iterate over the labels of all examples before ``encode``.

        Args:
            size: examples per batch.

        Yields:
            A tensor or a list of strings per batch.
        """
        for start in range(0, len(self), size):
            yield self._split(self.raw(torch.arange(start, min(start + size, len(self)))))[1]

    def batches(self, size: int, index: Sequence[int] | Tensor | None = None) -> Iterator[Batch]:
        """Iterate over all examples, or some of them, in order.

        Args:
            size: examples per batch.
            index: positions; None: all.

        Yields:
            The batches.
        """
        order = torch.arange(len(self)) if index is None else torch.as_tensor(index, dtype=torch.long)
        for start in range(0, len(order), size):
            yield self.batch(order[start : start + size])

    def labels(self) -> Any:
        """Read all labels; they are read once and kept.

        Returns:
            A copy, (N, ...), or a list of strings.

        Raises:
            DataError: labels differ in shape between batches.
        """
        if self._labels is None:
            batches = enumerate(self.raw_labels())
            parts: list[Any] = [self._encoded(y, f"from example {k * READ_AT_ONCE} on") for k, y in batches]
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
            dtype = self._dtype
            x = mapped(lambda v: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v, x)
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
