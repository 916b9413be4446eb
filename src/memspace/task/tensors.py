"""Values as people have them (NumPy, pandas, lists, numbers) as tensors; items as one batch.

Values that are no numbers are kept where they may be labels (a list of strings) and left out of the inputs elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memspace.errors import DataError

__all__ = ["as_batch", "collate", "is_array", "is_text", "leaves", "mapped", "tensor_of", "text_of"]


def is_array(value: Any) -> bool:
    """Tell whether a value is a tensor, a NumPy array or a pandas object: one value that holds many examples.

    Args:
        value: anything.

    Returns:
        True where it is.
    """
    return isinstance(value, Tensor | np.ndarray) or (hasattr(value, "to_numpy") and hasattr(value, "__len__"))


def is_text(value: Any) -> bool:
    """Tell whether a value is a string, or an array or a list of strings.

    Args:
        value: anything.

    Returns:
        True where it is.
    """
    if isinstance(value, str | bytes | np.str_):
        return True
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "US" or (value.dtype.kind == "O" and all(isinstance(v, str) for v in value.flat))
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(v, str) for v in value)


def text_of(value: Any) -> list[str]:
    """List the strings in an array or a list of strings.

    Args:
        value: the array or list.

    Returns:
        The strings, bytes decoded.
    """
    return [v.decode() if isinstance(v, bytes) else str(v) for v in np.asarray(value).reshape(-1).tolist()]


def tensor_of(value: Any, where: str) -> Any:
    """Read the numbers of a value as a tensor.

    NumPy's memory is shared where torch allows it. pandas objects become arrays of numbers.

    Args:
        value: anything.
        where: the place that errors name.

    Returns:
        A tensor; strings, None and values that hold no numbers as they are.

    Raises:
        DataError: a table holds columns that are no numbers; an array holds objects; a tensor holds no data.
    """
    if isinstance(value, Tensor):
        return _dense(value, where)
    if hasattr(value, "to_numpy") and hasattr(value, "__len__"):
        value = _of_pandas(value, where)
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise DataError("the values are a SciPy sparse matrix", where=where, remedy="pass x.toarray()")
    if hasattr(value, "batch_sizes") and hasattr(value, "unsorted_indices"):
        raise DataError(
            "a packed sequence has no axis of examples",
            where=where,
            remedy="give padded tensors with their lengths, and let the network pack them",
        )
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise DataError(
            f"{int(np.ma.getmaskarray(value).sum()):,} values of a masked array are masked",
            where=where,
            remedy="leave these examples out, or fill them: x.filled(value)",
        )
    if isinstance(value, np.ndarray | np.generic):
        return value if is_text(value) else _of_numpy(np.asarray(value), where)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise DataError(f"{str(value)[:20]}... has no room in a tensor", where=where, remedy="give smaller numbers")
    if isinstance(value, bool | int | float):
        return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    if isinstance(value, list | tuple) and _numbers(value):
        return _of_numpy(np.asarray(value), where)
    if hasattr(value, "__array_interface__"):  # a picture, for example
        return _of_numpy(np.asarray(value), where)
    return value


def _dense(value: Tensor, where: str) -> Tensor:
    """Return a plain dense tensor that holds numbers, without the graph it came from."""
    fault = None
    if value.is_meta:
        fault = "are on the meta device and hold no numbers", "load them onto a real device"
    elif value.is_sparse or value.layout is not torch.strided:
        fault = f"are a sparse tensor ({str(value.layout).removeprefix('torch.')})", "pass x.to_dense()"
    elif value.is_nested:
        fault = "are a nested tensor", "pad the examples to one length: torch.nested.to_padded_tensor(x, 0.0)"
    if fault is not None:
        raise DataError(f"the values {fault[0]}", where=where, remedy=fault[1])
    return value.detach()


def _numbers(value: Sequence[Any]) -> bool:
    """Tell whether a value is a list of numbers, or of lists of numbers of one length."""
    if not value or not all(isinstance(v, bool | int | float | np.number | np.bool_ | list) for v in value):
        return False
    inner = [v for v in value if isinstance(v, list)]
    if not inner:
        return True
    return len(inner) == len(value) and len({len(v) for v in inner}) == 1 and all(_numbers(v) for v in inner)


def _of_pandas(value: Any, where: str) -> Any:
    """Return a DataFrame, a Series or an Index as an array; missing numbers become NaN."""
    columns = (
        [(c, value[c]) for c in value.columns] if hasattr(value, "columns") else [(getattr(value, "name", None), value)]
    )
    arrays = [c.to_numpy() for _, c in columns]
    if len(columns) == 1 and not hasattr(value, "columns") and is_text(arrays[0]):
        return arrays[0]
    for place, (name, column) in enumerate(columns):
        if arrays[place].dtype.kind not in "biuf":
            try:
                arrays[place] = column.to_numpy(dtype=np.float64, na_value=np.nan)
            except (TypeError, ValueError) as error:
                missing = int(np.sum(column.isna()))
                raise DataError(
                    f"{'a column' if name is None else f'column {name!r}'} of the table holds {column.dtype} values, "
                    f"not numbers{f', and {missing:,} are missing' if missing else ''}",
                    where=where,
                    remedy="encode that column as numbers, or leave it out",
                ) from error
    if not hasattr(value, "columns"):
        return arrays[0]
    if not arrays:
        return np.zeros((len(value), 0))
    return np.stack(arrays, axis=1)


def _of_numpy(value: np.ndarray[Any, Any], where: str) -> Tensor:
    if value.dtype.kind == "O" and value.ndim:
        value = _unboxed(value)
    if value.dtype.kind not in "biufc":
        raise DataError(
            f"an array holds {value.dtype} values, not numbers",
            where=where,
            remedy="convert it to an array of numbers of one shape",
        )
    if value.dtype.kind == "f" and value.dtype.itemsize > 8:
        value = value.astype(np.float64)
    if not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))
    if not value.flags.writeable or any(s < 0 for s in value.strides):
        value = value.copy()  # torch shares neither read-only nor reversed memory
    return torch.from_numpy(value) if value.ndim else torch.tensor(value.item())


def _unboxed(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array of Python's numbers as an array of numbers; of anything else as it is."""
    if not all(isinstance(v, bool | int | float | np.number | np.bool_) for v in value.flat):
        return value
    return np.array(value.tolist())


def mapped(function: Callable[[Any], Any], x: Any) -> Any:
    """Apply a function to every leaf of nested dicts and tuples, which keep their shape.

    Args:
        function: of a leaf.
        x: nested dicts and tuples.

    Returns:
        The same structure with the results.
    """
    if isinstance(x, Mapping):
        return {k: mapped(function, v) for k, v in x.items()}
    if isinstance(x, tuple):
        return tuple(mapped(function, v) for v in x)
    return function(x)


def leaves(x: Any) -> list[Tensor]:
    """List all tensors of nested dicts, tuples and lists, in order.

    Args:
        x: nested dicts, tuples and lists.

    Returns:
        The tensors.
    """
    if isinstance(x, Tensor):
        return [x]
    values = x.values() if isinstance(x, Mapping) else x if isinstance(x, list | tuple) else ()
    return [t for v in values for t in leaves(v)]


def as_batch(value: Any, where: str) -> Any:
    """Read a batch of any kind as nested dicts and tuples of tensors, lists of strings, and constants.

    Args:
        value: the batch.
        where: the place that errors name.

    Returns:
        The same structure.
    """
    if isinstance(value, Mapping):
        return {k: as_batch(v, f"{where}, {k!r}") for k, v in value.items()}
    if is_text(value):
        return value if isinstance(value, str) else text_of(value)
    batch = tensor_of(value, where)
    if isinstance(batch, list | tuple):
        return tuple(as_batch(v, where) for v in batch)
    return text_of(batch) if is_text(batch) and not isinstance(batch, str) else batch


def collate(items: Sequence[Any], index: Sequence[Any], where: str) -> Any:
    """Collect single examples in one batch, as ``torch.utils.data.default_collate`` does, and more.

    Lists of numbers are vectors, strings stay lists of strings, None stays None where all examples have it.

    Args:
        items: the examples.
        index: how messages call each item.
        where: the place that errors name.

    Returns:
        Nested dicts and tuples of tensors with one row per item.

    Raises:
        DataError: names the first example that does not fit the others.
    """
    first = items[0]
    if isinstance(first, Mapping):
        for number, item in zip(index, items, strict=True):
            if not isinstance(item, Mapping) or item.keys() != first.keys():
                raise _unlike(index[0], first, number, item, where)
        return {k: collate([v[k] for v in items], index, f"{where}, {k!r}") for k in first}
    if first is None or isinstance(first, str | bytes | np.str_):
        for number, item in zip(index, items, strict=True):
            if (item is None) != (first is None):
                raise DataError(
                    f"example {number} holds {_word(item)}",
                    where=where,
                    remedy=f"example {index[0]} holds {_word(first)}: give all examples the same",
                )
        return None if first is None else [v.decode() if isinstance(v, bytes) else str(v) for v in items]
    tensors = [tensor_of(v, f"{where}, example {number}") for number, v in zip(index, items, strict=True)]
    if isinstance(tensors[0], Tensor):
        return _stacked(tensors, index, where)
    if isinstance(first, list | tuple):
        for number, item in zip(index, items, strict=True):
            if not isinstance(item, list | tuple) or len(item) != len(first):
                raise _unlike(index[0], first, number, item, where)
        return tuple(collate([v[k] for v in items], index, where) for k in range(len(first)))
    raise DataError(
        f"example {index[0]} holds a {type(first).__name__}, which is no tensor, array or number",
        where=where,
        remedy="let the dataset return tensors, or give its DataLoader with a collate_fn",
    )


def _stacked(tensors: Sequence[Any], index: Sequence[Any], where: str) -> Tensor:
    first = tensors[0]
    for number, tensor in zip(index, tensors, strict=True):
        if not isinstance(tensor, Tensor):
            raise _unlike(index[0], first, number, tensor, where)
        if tensor.shape != first.shape:
            raise DataError(
                f"example {index[0]} is of shape {tuple(first.shape)}, example {number} of shape "
                f"{tuple(tensor.shape)}: they do not stack into batches",
                where=where,
                remedy="give all of one shape, or a DataLoader whose collate_fn pads them",
            )
    if len({t.dtype for t in tensors}) > 1:  # 0 next to 0.5, as default_collate reads Python's numbers
        dtype = first.dtype
        for tensor in tensors:
            dtype = torch.promote_types(dtype, tensor.dtype)
        tensors = [tensor.to(dtype) for tensor in tensors]
    return torch.stack(list(tensors))


def _unlike(at: Any, first: Any, other: Any, item: Any, where: str) -> DataError:
    return DataError(
        f"example {at} is {_word(first)}, example {other} is {_word(item)}",
        where=where,
        remedy="let the dataset return items of one kind",
    )


def _word(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value))}"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)} entries"
    return f"a {type(value).__name__}"
