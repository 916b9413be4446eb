"""The interface of what a pass computes: a streaming monoid, mergeable across batches, processes and resumed runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from torch import Tensor

from memspace.passes.cotangent import View

__all__ = ["Statistic"]

T = TypeVar("T")


class Statistic(ABC, Generic[T]):
    """A value accumulated over batches. ``a.merge(b)`` equals an update with both shards.

    Attributes:
        kinds: the cotangents it reads (see ``memspace.passes.cotangent``), which decide the backward passes.
        additive: whether merging adds the states' tensors, so that processes may sum them in one exchange.
    """

    kinds: tuple[str, ...] = ()
    additive: bool = False

    @abstractmethod
    def update(self, view: View) -> None:
        """Add one batch.

        Args:
            view: its outputs, labels and cotangents.
        """

    @abstractmethod
    def merge(self, other: Statistic[T]) -> None:
        """Add the data of another instance, a later shard.

        Args:
            other: of the same class.
        """

    @abstractmethod
    def finish(self) -> T:
        """Return the result.

        Returns:
            The statistic over all batches.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return everything accumulated.

        Returns:
            Tensors by name, from which :meth:`restore` continues.
        """

    @abstractmethod
    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state` returned.

        Args:
            state: tensors by name; empty: no data.
        """
