"""Where examples come from: one interface, whatever was handed over.

A source gives *raw* batches (nested dicts and tuples of tensors, see ``memspace.task.tensors``) at any indices;
``memspace.task.layout`` says what in them is input and what is label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate

from memspace.errors import DataError
from memspace.task.layout import LABELS, no_pairs
from memspace.task.samplers import indices_of
from memspace.task.streams import gathered
from memspace.task.tensors import as_batch, collate, is_array, is_text, leaves, mapped

__all__ = ["Items", "Source", "Whole", "source_of"]

PROBED = 32  # examples looked at to see whether a collate function pads
HELD = 4 * 2**30  # bytes of examples of different lengths that are padded alike and kept


class Source(Protocol):
    """Examples that can be read by index, any number of times."""

    varies: bool  # whether a second read may differ from the first

    def __len__(self) -> int: ...

    def raw(self, index: Tensor) -> Any:
        """The batch at ``index`` (B,), in that order."""
        ...

    def again(self, index: Tensor) -> Any:
        """As :meth:`raw`, read from where the examples come from even where they are kept."""
        ...


class Whole:
    """All examples in memory, in tensors that may be the user's own.

    Consecutive rows are read without a copy, which for a small network would cost half of a pass. A network that
    writes into its inputs is given copies (``memspace.task.adapted``); a tensor written to nevertheless is noticed.
    """

    varies = False

    def __init__(self, batch: Any, count: int, name: str) -> None:
        self._batch, self._count, self._name = batch, count, name
        self._held = [t for t in leaves(batch) if not t.is_inference()]
        self._versions = [t._version for t in self._held]

    def __len__(self) -> int:
        return self._count

    def raw(self, index: Tensor) -> Any:
        """The rows at ``index``; what has no axis of examples as it is.

        Raises:
            DataError: a tensor has been written to since it was handed over.
        """
        if any(t._version != v for t, v in zip(self._held, self._versions, strict=True)):
            raise DataError(
                "a tensor of the data was written to after it was handed over, by the network or by other code",
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
        """The same."""
        return self.raw(index)


class Items:
    """A map-style data set: the examples at some of its keys, put together by a collate function.

    Args:
        keys: of the examples in the data set, in reading order.
        join: the loader's own collate function, or None for memspace's.
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
        """The items at ``index``, collated."""
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
        """The same."""
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
        """Itself, or, where the collate function pads to the longest of a batch, all examples padded alike.

        Only then does an example look the same whatever it is read with.
        """
        if self._join is None or len(self) < 2:
            return self
        at = torch.linspace(0, len(self) - 1, min(PROBED, len(self))).long()
        shapes, widest = set(), 0
        for i in at:
            alone = leaves(self.raw(i[None]))
            shapes.add(tuple(tuple(t.shape) for t in alone))
            widest = max(widest, sum(t.numel() * t.element_size() for t in alone))
        firsts = {tuple(s[:1] for s in each) for each in shapes}
        if len(shapes) < 2 or len(firsts) > 1 or widest * len(self) > HELD:
            return self  # where the first axis itself varies, examples are joined into a list and nothing is padded
        return Held(self)


class Held(Whole):
    """A data set whose collate function pads: collated once, all together."""

    varies = True

    def __init__(self, items: Items) -> None:
        self.items = items
        super().__init__(items.raw(torch.arange(len(items))), len(items), items.name)

    def again(self, index: Tensor) -> Any:
        """The items read anew and padded among themselves."""
        return self.items.raw(index)


def source_of(given: Any, name: str) -> Source:
    """The source for whatever was handed over.

    Raises:
        DataError: it is nothing that holds examples, holds none, or its parts differ in number.
    """
    if isinstance(given, DataLoader):
        return _of_loader(given, name)
    if isinstance(given, TensorDataset):
        return _whole(tuple(given.tensors), name)
    if isinstance(given, tuple | list) and len(given) == 2 and _pair(given):
        return _whole(tuple(given), name)
    if isinstance(given, Mapping) and any(is_array(v) or isinstance(v, list) for v in given.values()):
        return _whole(dict(given), name)
    if is_array(given) or (isinstance(given, tuple) and len(given) == 2 and is_array(given[0]) and given[1] is None):
        one = given if is_array(given) else given[0]
        table = "(table.drop(columns='label'), table['label'])" if hasattr(one, "columns") else "(x, y)"
        raise DataError(
            f"the {name} is one {type(one).__name__} without labels", where=name, remedy=f"hand over {table}"
        )
    if isinstance(given, IterableDataset):
        return _whole(gathered(given, name, batched=False), name)
    if hasattr(given, "__getitem__") and hasattr(given, "__len__") and not isinstance(given, str | bytes | Mapping):
        if _length(given, name) == 0:
            raise _empty(name)
        if isinstance(given, list):
            _check_examples(given[0], name)
        return Items(given, range(len(given)), None, name)
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
        return _whole(gathered(given, name, batched=True), name)
    raise DataError(
        f"the {name} given are of type {type(given).__name__}, not a Dataset, a DataLoader or an (x, y) pair of "
        "tensors or arrays",
        where=name,
        remedy="hand over any of these" + (", with a __len__" if hasattr(given, "__getitem__") else ""),
    )


def _pair(given: Sequence[Any]) -> bool:
    """True for (x, y), as against a data set of two examples."""
    if is_array(given[1]):
        return not isinstance(given[1], Tensor) or given[1].dim() > 0
    if is_array(given[0]) and isinstance(given[1], list | tuple) and len(given[1]) == _rows(given[0]) > 2:
        return True
    if not isinstance(given, tuple) or not isinstance(given[1], list) or not given[1]:
        return False
    columns = isinstance(given[0], list) and len(given[0]) == len(given[1]) > 2
    return columns or not any(isinstance(v, tuple | list | dict) or is_array(v) for v in given[1])


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
            remedy="hand over iter(the list) where they are batches, a DataLoader of the list where each is an example",
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


def _length(given: Any, name: str) -> int:
    try:
        return len(given)
    except Exception as error:  # a user's own code
        raise DataError(
            f"the {name} does not state a length ({type(error).__name__}: {error})",
            where=type(given).__name__,
            remedy="give it a __len__ with the number of examples",
        ) from error


def _whole(batch: Any, name: str) -> Source:
    """All examples in memory; parts without an axis of examples are kept for every batch."""
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
            f"the labels of the {name} are a list that holds {bad!r} beside numbers",
            where=name,
            remedy="give every example a number, or -100 where a classifier's example has no label",
        )
    if isinstance(labels, list):
        count = len(labels)
    elif leaves(labels if labels is not None else batch):
        count = len(leaves(labels if labels is not None else batch)[0])
    else:
        raise DataError(f"{name} holds no tensor or array", where=name, remedy="hand over (x, y)")
    if count == 0:
        raise _empty(name)
    unequal = [len(t) for t in leaves(batch) if t.dim() and len(t) != count]
    if unequal:
        raise DataError(
            f"{name} holds {unequal[0]} inputs for {count} labels", where=name, remedy="give one label per input"
        )
    return Whole(batch, count, name)


def _words(labels: Any) -> Any:
    """The column of a table of labels that has but one, of strings; other labels as they are."""
    one = hasattr(labels, "columns") and hasattr(labels, "iloc") and len(labels.columns) == 1
    column = labels.iloc[:, 0] if one else None
    return column if column is not None and is_text(column.to_numpy()) else labels


def _check_rows(batch: Sequence[Any], name: str) -> None:
    """Refuse tables whose rows have the same names in different orders: one was shuffled or sorted without the other.

    Rows are matched by position. Tables whose names differ otherwise are taken so: names were made anew.
    """
    x, y = (getattr(v, "index", None) if hasattr(v, "to_numpy") else None for v in batch[:2])
    if x is None or y is None or callable(x) or callable(y) or x.equals(y):
        return
    if len(x) == len(y) and x.is_unique and x.sort_values().equals(y.sort_values()):
        raise DataError(
            "the tables of inputs and labels have the same rows in different orders",
            where=name,
            remedy="hand over y.loc[x.index], or reset_index(drop=True) of both if they belong together by position",
        )


def _column(value: Any, batch: tuple[Any, ...], name: str) -> Any:
    """A list with one tensor or array per example as one tensor; anything else as it is."""
    count = len(batch[1]) if len(batch) > 1 and hasattr(batch[1], "__len__") else 0
    if len(batch) > 1 and value is batch[1]:
        value = _labels(value, name)
    if isinstance(value, list) and len(value) == count and count and all(is_array(v) for v in value):
        return collate(value, range(count), name)
    return value


def _labels(value: Any, name: str) -> Any:
    """A table of one column of strings as that column; categories that have an order of their own are refused."""
    if hasattr(value, "columns") and len(value.columns) == 1 and is_text(value.iloc[:, 0].to_numpy()):
        value = value.iloc[:, 0]
    categories = getattr(getattr(value, "dtype", None), "categories", None)
    words = [] if categories is None else [v for v in categories if isinstance(v, str)]
    if words != sorted(words):
        raise DataError(
            f"the labels are categories in the order {', '.join(words[:5])}; strings are read in alphabetical order",
            where=name,
            remedy="hand over their codes (y.cat.codes), or y.astype(str) and class_names in the order of the outputs",
        )
    return list(value) if isinstance(value, tuple) else value


def _empty(name: str) -> DataError:
    return DataError(f"{name} holds no examples", where=name, remedy="check the path or the filter that made it")


def _gathered(t: Tensor, index: Tensor) -> Tensor:
    if t.dtype in _SIGNED:  # torch does not index these
        return t.view(_SIGNED[t.dtype])[index].view(t.dtype)
    return t[index.to(t.device)]


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
