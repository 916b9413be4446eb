"""Known generating factors of inputs, checked when they are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.arguments import check_fields
from memspace.errors import DataError
from memspace.task.tensors import tensor_of

__all__ = ["Factors"]


@dataclass(frozen=True)
class Factors:
    """Known generating factors of some inputs.

    Args:
        names: one per factor.
        values: (M, K) integer levels of each factor for each input.
        inputs: (M, ...) the inputs themselves.
        sizes: number of levels of each factor.
        render: (levels (B, K) float) -> inputs (B, ...); where given, directions along a factor can be differenced.
        ordered: names of the factors whose levels lie on a line or a circle; None: those of more than three levels.

    Raises:
        DataError: the parts do not fit one another, or a level is no whole number.
    """

    names: tuple[str, ...]
    values: Tensor
    inputs: Tensor
    sizes: tuple[int, ...]
    render: Callable[[Tensor], Tensor] | None = None
    ordered: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        values, inputs = _numbers(self.values, "values"), _numbers(self.inputs, "inputs")
        names, sizes = tuple(self.names), tuple(self.sizes)
        if values.dim() != 2 or len(names) != values.shape[1] or len(sizes) != values.shape[1]:
            raise DataError(
                f"values are of shape {tuple(values.shape)} for {len(names)} names and {len(sizes)} sizes",
                where="Factors",
                remedy="give one column of values, one name and one size for each factor",
            )
        if not inputs.dim() or len(inputs) != len(values) or not len(values):
            raise DataError(
                f"there are {len(inputs) if inputs.dim() else 0:,} inputs and levels of {len(values):,}",
                where="Factors",
                remedy="give the levels of every input, in the order of the inputs",
            )
        _check_levels(values, names, sizes)
        ordered = None if self.ordered is None else tuple(self.ordered)
        if ordered is not None and not set(ordered) <= set(names):
            raise DataError(
                f"the ordered factors {ordered} are not all among {names}",
                where="Factors",
                remedy="name factors as names does",
            )
        for name, value in (("values", values.long()), ("inputs", inputs), ("names", names), ("sizes", sizes)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "ordered", ordered)


def _numbers(value: object, name: str) -> Tensor:
    tensor = tensor_of(value, f"Factors, {name}")
    if isinstance(tensor, Tensor):
        return tensor
    raise DataError(f"{name} are a {type(value).__name__}, not numbers", where="Factors", remedy="give a tensor")


def _check_levels(values: Tensor, names: tuple[str, ...], sizes: tuple[int, ...]) -> None:
    """Raise where a factor's levels are not whole numbers, or more of them occur than it has."""
    for column, name, size in zip(values.T, names, sizes, strict=True):
        if column.is_complex() or not bool((column == column.round()).all() if column.is_floating_point() else True):
            raise DataError(
                f"the levels of the factor {name!r} are not whole numbers",
                where="Factors",
                remedy="give the number of the level, 0, 1, 2, ...; sort a continuous factor into levels first",
            )
        levels = len(torch.unique(column))
        if levels > size:
            raise DataError(
                f"the factor {name!r} takes {levels} levels, but its size is given as {size}",
                where="Factors",
                remedy="give the number of its levels as its size",
            )
