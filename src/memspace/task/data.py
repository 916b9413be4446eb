"""Examples in a fixed order: what every pass reads, whatever the user handed over.

A loader that shuffles is read through its dataset in index order, so that "example 17" means the same thing in every
pass, in every table and in the report.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from memspace.errors import DataError

__all__ = ["Batch", "Data", "Inputs", "call_model", "move", "take"]

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
    return tuple(take(v, index) for v in x)


def first_tensor(x: Inputs) -> Tensor:
    """The first tensor of a batch of inputs; its first axis runs over examples."""
    while not isinstance(x, Tensor):
        x = next(iter(x.values() if isinstance(x, dict) else x))
    return x


def call_model(model: Any, x: Inputs) -> Any:
    """``model(x)``, ``model(*x)`` for a tuple, ``model(**x)`` for a dict."""
    if isinstance(x, dict):
        return model(**x)
    if isinstance(x, tuple):
        return model(*x)
    return model(x)


class Data:
    """An indexable set of (input, label) pairs, read in a fixed order.

    Args:
        source: a ``(x, y)`` pair of tensors, a map-style Dataset, a DataLoader over one (its order is ignored;
            of a SubsetRandomSampler only the examples it picks are read), or any
            finite iterable of (x, y) batches (read once into memory).
        name: how messages call it, for example ``"training data"``.

    Raises:
        DataError: the source is empty or does not give (input, label) pairs.
    """

    def __init__(self, source: Any, name: str = "data") -> None:
        self.name = name
        collate: Any = default_collate
        self._tensors: tuple[Inputs, Tensor] | None = None
        self._dataset: Any = None
        self._collate: Any = default_collate
        if isinstance(source, Data):
            self._tensors, self._dataset, self._collate = source._tensors, source._dataset, source._collate
            return
        if isinstance(source, DataLoader):
            if source.batch_sampler is not None and _map_style(source.dataset):
                collate, source = source.collate_fn, _read_by(source)
            else:
                source = _materialise(source, name)
        self._collate = collate
        if isinstance(source, TensorDataset) and len(source.tensors) == 2 and collate is default_collate:
            self._tensors = (source.tensors[0], source.tensors[1])
        elif isinstance(source, list | tuple) and len(source) == 2 and isinstance(source[1], Tensor):
            self._tensors = (source[0], source[1])
        elif _map_style(source):
            self._dataset = source
        elif isinstance(source, Iterable):
            self._tensors = _materialise(source, name)
        else:
            raise DataError(
                f"{name} is a {type(source).__name__}, not a Dataset, a DataLoader or an (x, y) pair of tensors",
                where=name,
                remedy="hand over any of these",
            )
        if self._tensors is not None:
            unequal = [len(t) for t in _leaves(self._tensors[0]) if len(t) != len(self._tensors[1])]
            if unequal:
                raise DataError(
                    f"{name} holds {unequal[0]} inputs for {len(self._tensors[1])} labels",
                    where=name,
                    remedy="give one label per input",
                )
        if len(self) == 0:
            raise DataError(f"{name} holds no examples", where=name, remedy="check the path or the filter that made it")

    def __len__(self) -> int:
        if self._tensors is not None:
            return len(self._tensors[1])
        return len(self._dataset)

    def batch(self, index: Sequence[int] | Tensor) -> Batch:
        """The examples at ``index``, in that order."""
        where = torch.as_tensor(index, dtype=torch.long)
        if self._tensors is not None:
            x, y = self._tensors
            if len(where) and bool((where[1:] - where[:-1] == 1).all()):  # a slice avoids a gather
                span = slice(int(where[0]), int(where[-1]) + 1)
                return Batch(where, take(x, span), _whole(y[span]))
            return Batch(where, take(x, where), _whole(y[where]))
        assert self._dataset is not None
        items = [self._dataset[int(i)] for i in where]
        try:
            pair = self._collate(items)
            x, y = pair
        except (TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{self.name} does not give (input, label) pairs that stack into batches ({reason})",
                where=f"examples {int(where[0])}..{int(where[-1])}",
                remedy="let the dataset return one (input, label) pair per item, all of one shape",
            ) from error
        if isinstance(x, list):
            x = tuple(x)
        return Batch(where, x, _whole(torch.as_tensor(y)))

    def batches(self, size: int, index: Sequence[int] | Tensor | None = None) -> Iterator[Batch]:
        """All examples (or those at ``index``) in order, ``size`` at a time."""
        order = torch.arange(len(self)) if index is None else torch.as_tensor(index, dtype=torch.long)
        for start in range(0, len(order), size):
            yield self.batch(order[start : start + size])

    def labels(self) -> Tensor:
        """All labels, (N, ...)."""
        if self._tensors is not None:
            return _whole(self._tensors[1])
        return torch.cat([b.y for b in self.batches(1024)])


def _whole(y: Tensor) -> Tensor:
    """Labels of a narrow integer type as the int64 that torch indexes with; others as they are."""
    return y.long() if y.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32) else y


def _leaves(x: Inputs) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    values = x.values() if isinstance(x, dict) else x if isinstance(x, list | tuple) else ()
    return [t for v in values for t in _leaves(v)]


def _map_style(source: Any) -> bool:
    """True where examples can be read by index."""
    indexed = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    return indexed and not isinstance(source, IterableDataset)


def _read_by(loader: DataLoader[Any]) -> Any:
    """The dataset of a loader in index order: only the examples its sampler picks, where it picks some."""
    if isinstance(loader.sampler, SubsetRandomSampler):
        return Subset(loader.dataset, sorted(loader.sampler.indices))
    return loader.dataset


def _materialise(batches: Iterable[Any], name: str) -> tuple[Inputs, Tensor]:
    xs: list[Inputs] = []
    ys: list[Tensor] = []
    for pair in batches:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DataError(
                f"{name} gives {type(pair).__name__} items, not (input, label) batches",
                where=name,
                remedy="let it give (x, y) batches",
            )
        xs.append(pair[0])
        ys.append(torch.as_tensor(pair[1]))
    if not xs:
        raise DataError(f"{name} holds no batches", where=name, remedy="check the loader that made it")
    return _concatenate(xs), torch.cat(ys)


def _concatenate(xs: list[Inputs]) -> Inputs:
    if isinstance(xs[0], Tensor):
        return torch.cat(xs)
    if isinstance(xs[0], dict):
        return {k: _concatenate([x[k] for x in xs]) for k in xs[0]}
    return tuple(_concatenate([x[i] for x in xs]) for i in range(len(xs[0])))
