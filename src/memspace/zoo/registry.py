"""Data sets and families by name: each is a function in a file of its own that registers itself."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from torch import Tensor, nn

from memspace.errors import SettingsError
from memspace.task.factors import Factors

__all__ = ["DataMaker", "FamilyMaker", "ZooData", "dataset", "dataset_named", "family", "family_named", "names_of"]


@dataclass(frozen=True)
class ZooData:
    """A data set as a zoo trains on it.

    Args:
        x: (N, ...) training inputs, the first n of which are the training set of size n.
        y: (N,) classes, or (N, T) next tokens.
        x_test: (M, ...) inputs of the test set.
        y_test: their labels.
        outputs: number of classes, or of tokens.
        vocabulary: number of tokens that inputs are made of; 0 where inputs are numbers.
        factors: what the test inputs are made of, in their order; None where that is not known.
    """

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    outputs: int
    vocabulary: int = 0
    factors: Factors | None = None

    @property
    def sequence(self) -> bool:
        """True where every position of an example is predicted."""
        return self.y.dim() > 1


DataMaker = Callable[[Path | None], ZooData]
FamilyMaker = Callable[[ZooData, int, int], nn.Module]
M = TypeVar("M", DataMaker, FamilyMaker)
_DATA: dict[str, DataMaker] = {}
_FAMILIES: dict[str, FamilyMaker] = {}


def dataset(name: str) -> Callable[[DataMaker], DataMaker]:
    """Register a function that reads a data set; use it as a decorator.

    Args:
        name: as declarations have it.

    Returns:
        What registers ``read(folder) -> ZooData`` and gives it back.
    """

    def register(make: DataMaker) -> DataMaker:
        _DATA[name] = make
        return make

    return register


def family(name: str) -> Callable[[FamilyMaker], FamilyMaker]:
    """Register a function that makes networks of a family; use it as a decorator.

    The networks compute ``model(x, masks=None)``; masks are tensors that multiply hidden units, one for each of
    ``model.dropped``, the shapes (without the batch) of what dropout acts on.

    Args:
        name: as declarations have it.

    Returns:
        What registers ``make(data, width, depth) -> nn.Module`` and gives it back.
    """

    def register(make: FamilyMaker) -> FamilyMaker:
        _FAMILIES[name] = make
        return make

    return register


def dataset_named(name: str) -> DataMaker:
    """Look up a data set.

    Args:
        name: of it.

    Returns:
        What reads it.

    Raises:
        SettingsError: there is none of that name.
    """
    import memspace.zoo.datasets as package

    return _named(name, _DATA, package, "data set")


def family_named(name: str) -> FamilyMaker:
    """Look up a family of architectures.

    Args:
        name: of it.

    Returns:
        What makes its networks.

    Raises:
        SettingsError: there is none of that name.
    """
    import memspace.zoo.families as package

    return _named(name, _FAMILIES, package, "family")


def names_of(package: ModuleType) -> tuple[str, ...]:
    """List the modules of a package, one for each entry of its table.

    Args:
        package: of data sets or of families.

    Returns:
        Full names.
    """
    return tuple(f"{package.__name__}.{m.name}" for m in pkgutil.iter_modules(package.__path__))


def _named(name: str, table: dict[str, M], package: ModuleType, what: str) -> M:
    for module in names_of(package):
        import_module(module)
    if name not in table:
        listed = ", ".join(sorted(table))
        raise SettingsError(f"there is no {what} {name!r}", where="zoo declaration", remedy=f"name one of {listed}")
    return table[name]
