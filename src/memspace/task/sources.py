"""Where examples come from: the source for whatever the user passes.

The sources themselves are in ``memspace.task.indexed``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate

from memspace.errors import DataError
from memspace.task.indexed import InMemory, Items, Source
from memspace.task.layout import LABELS, no_pairs
from memspace.task.samplers import indices_of
from memspace.task.streams import gathered
from memspace.task.tensors import as_batch, collate, is_array, is_text, leaves

__all__ = ["source_of"]


def source_of(source: Any, name: str) -> Source:
    """Make the source for whatever the user passes.

    Args:
        source: a pair of arrays, a data set, a loader, an iterable.
        name: of the data, for messages.

    Returns:
        Examples that can be read by index.

    Raises:
        DataError: it is nothing that holds examples, holds none, or its parts differ in number.
    """
    if isinstance(source, DataLoader):
        return _of_loader(source, name)
    if isinstance(source, TensorDataset):
        return _whole(tuple(source.tensors), name)
    if isinstance(source, tuple | list) and len(source) == 2 and _pair(source):
        return _whole(tuple(source), name)
    if isinstance(source, Mapping) and any(is_array(v) or isinstance(v, list) for v in source.values()):
        return _whole(dict(source), name)
    if is_array(source) or (
        isinstance(source, tuple) and len(source) == 2 and is_array(source[0]) and source[1] is None
    ):
        one = source if is_array(source) else source[0]
        table = "(table.drop(columns='label'), table['label'])" if hasattr(one, "columns") else "(x, y)"
        raise DataError(f"the {name} is one {type(one).__name__} without labels", where=name, remedy=f"pass {table}")
    if isinstance(source, IterableDataset):
        return _whole(gathered(source, name, batched=False), name)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, str | bytes | Mapping):
        if _length(source, name) == 0:
            raise _empty(name)
        if isinstance(source, list):
            _check_examples(source[0], name)
        return Items(source, range(len(source)), None, name)
    if isinstance(source, Iterable) and not isinstance(source, str | bytes | Mapping):
        return _whole(gathered(source, name, batched=True), name)
    raise DataError(
        f"the {name} given are of type {type(source).__name__}, not a Dataset, a DataLoader or an (x, y) pair of "
        "tensors or arrays",
        where=name,
        remedy="pass any of these" + (", with a __len__" if hasattr(source, "__getitem__") else ""),
    )


def _pair(values: Sequence[Any]) -> bool:
    """Tell whether two values are (x, y), as against a data set of two examples."""
    if is_array(values[1]):
        return not isinstance(values[1], Tensor) or values[1].dim() > 0
    if is_array(values[0]) and isinstance(values[1], list | tuple) and len(values[1]) == _rows(values[0]) > 2:
        return True
    if not isinstance(values, tuple) or not isinstance(values[1], list) or not values[1]:
        return False
    columns = isinstance(values[0], list) and len(values[0]) == len(values[1]) > 2
    return columns or not any(isinstance(v, tuple | list | dict) or is_array(v) for v in values[1])


def _rows(value: Any) -> int:
    return 0 if getattr(value, "ndim", 1) == 0 else len(value)


def _check_examples(item: Any, name: str) -> None:
    """Refuse a list whose items may as well be batches: rows of inputs with one label each."""
    if isinstance(item, Mapping):
        labels, inputs = [item[k] for k in LABELS if k in item], [v for k, v in item.items() if k not in LABELS]
    else:
        labels, inputs = ([item[-1]], list(item[:-1])) if isinstance(item, tuple | list) and len(item) > 1 else ([], [])
    y, x = leaves(as_batch(tuple(labels), name)), leaves(as_batch(tuple(inputs), name))
    if len(y) == 1 and x and y[0].dim() == 1 and all(t.dim() > 1 and len(t) == len(y[0]) for t in x):
        raise DataError(
            f"the items of the {name} hold {len(y[0])} rows of inputs and as many labels: batches, or sequences?",
            where="a list",
            remedy="pass iter(the list) where they are batches, a DataLoader of the list where each is an example",
        )


def _of_loader(loader: DataLoader[Any], name: str) -> Source:
    if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__getitem__"):
        return _whole(gathered(loader, name, batched=True), name)
    if hasattr(loader.dataset, "__len__") and _length(loader.dataset, name) == 0:
        raise _empty(name)
    keys = indices_of(loader, name)
    if loader.batch_sampler is None:  # each item is a batch already, or one example
        single = Items(loader.dataset, keys, lambda items: items[0], name)
        return _whole(gathered((single.raw(torch.tensor([i])) for i in range(len(keys))), name, batched=True), name)
    plain = loader.collate_fn is default_collate
    if plain and isinstance(loader.dataset, TensorDataset) and keys == range(len(loader.dataset)):
        return _whole(tuple(loader.dataset.tensors), name)
    return Items(loader.dataset, keys, None if plain else loader.collate_fn, name).padded()


def _length(dataset: Any, name: str) -> int:
    try:
        return len(dataset)
    except Exception as error:  # a user's own code
        raise DataError(
            f"the {name} does not state a length ({type(error).__name__}: {error})",
            where=type(dataset).__name__,
            remedy="give it a __len__ with the number of examples",
        ) from error


def _whole(batch: Any, name: str) -> Source:
    """Put all examples in memory; parts without an axis of examples are kept for every batch."""
    if isinstance(batch, tuple):
        if len(batch) > 1:
            _check_rows(batch, name)
        batch = tuple(_words(v) if k == 1 else v for k, v in enumerate(batch))
        batch = tuple(as_batch(_column(v, batch, name), name) for v in batch)
    else:
        batch = as_batch(batch, name)
    if not isinstance(batch, dict) and (not isinstance(batch, tuple) or len(batch) < 2):
        raise no_pairs(batch, name)
    labels = batch[1] if isinstance(batch, tuple) and len(batch) > 1 else None
    if isinstance(labels, tuple) and any(not isinstance(v, tuple | Tensor | dict) for v in labels):
        bad = next(v for v in labels if not isinstance(v, tuple | Tensor | dict))
        raise DataError(
            f"the labels of the {name} are a list that holds {bad!r} next to numbers",
            where=name,
            remedy="give every example a number, or -100 where a classifier's example has no label",
        )
    if isinstance(labels, list):
        count = len(labels)
    elif leaves(labels if labels is not None else batch):
        count = len(leaves(labels if labels is not None else batch)[0])
    else:
        raise DataError(f"{name} holds no tensor or array", where=name, remedy="pass (x, y)")
    if count == 0:
        raise _empty(name)
    unequal = [len(t) for t in leaves(batch) if t.dim() and len(t) != count]
    if unequal:
        raise DataError(
            f"{name} holds {unequal[0]} inputs for {count} labels", where=name, remedy="give one label per input"
        )
    return InMemory(batch, count, name)


def _words(labels: Any) -> Any:
    """Return the column of a table of labels that has only one, of strings; other labels as they are."""
    one = hasattr(labels, "columns") and hasattr(labels, "iloc") and len(labels.columns) == 1
    column = labels.iloc[:, 0] if one else None
    return column if column is not None and is_text(column.to_numpy()) else labels


def _check_rows(batch: Sequence[Any], name: str) -> None:
    """Refuse tables whose rows have the same names in different orders: one was shuffled or sorted without the other.

    Rows are matched by position. Tables whose names differ otherwise are accepted: names were made again.
    """
    x, y = (getattr(v, "index", None) if hasattr(v, "to_numpy") else None for v in batch[:2])
    if x is None or y is None or callable(x) or callable(y) or x.equals(y):
        return
    if len(x) == len(y) and x.is_unique and x.sort_values().equals(y.sort_values()):
        raise DataError(
            "the tables of inputs and labels have the same rows in different orders",
            where=name,
            remedy="pass y.loc[x.index], or reset_index(drop=True) of both if they belong together by position",
        )


def _column(value: Any, batch: tuple[Any, ...], name: str) -> Any:
    """Stack a list with one tensor or array per example; anything else stays as it is."""
    count = len(batch[1]) if len(batch) > 1 and hasattr(batch[1], "__len__") else 0
    if len(batch) > 1 and value is batch[1]:
        value = _labels(value, name)
    if isinstance(value, list) and len(value) == count and count and all(is_array(v) for v in value):
        return collate(value, range(count), name)
    return value


def _labels(value: Any, name: str) -> Any:
    """Return a table of one column of strings as that column; refuse categories that have an order of their own."""
    if hasattr(value, "columns") and len(value.columns) == 1 and is_text(value.iloc[:, 0].to_numpy()):
        value = value.iloc[:, 0]
    categories = getattr(getattr(value, "dtype", None), "categories", None)
    words = [] if categories is None else [v for v in categories if isinstance(v, str)]
    if words != sorted(words):
        raise DataError(
            f"the labels are categories in the order {', '.join(words[:5])}; strings are read in alphabetical order",
            where=name,
            remedy="pass their codes (y.cat.codes), or y.astype(str) and class_names in the order of the outputs",
        )
    return list(value) if isinstance(value, tuple) else value


def _empty(name: str) -> DataError:
    return DataError(f"{name} holds no examples", where=name, remedy="check the path or the filter that made it")
