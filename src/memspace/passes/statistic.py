"""The protocol of what a pass computes: a streaming monoid, mergeable across batches, processes and resumed runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from torch import Tensor

from memspace.passes.cotangent import View

__all__ = ["Statistic"]

T = TypeVar("T")


class Statistic(ABC, Generic[T]):
    """Accumulates over batches. ``a.merge(b)`` equals having seen both shards.

    ``kinds``: the cotangents it reads (see ``memspace.passes.cotangent``), which decides the backward passes;
    ``additive``: merging adds the states' tensors, so that processes may add them on the wire.
    """

    kinds: tuple[str, ...] = ()
    additive: bool = False

    @abstractmethod
    def update(self, view: View) -> None:
        """Take in one batch."""

    @abstractmethod
    def merge(self, other: Statistic[T]) -> None:
        """Take in what another instance has seen (a later shard of the data)."""

    @abstractmethod
    def finish(self) -> T:
        """The result."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything accumulated, as tensors."""

    @abstractmethod
    def restore(self, state: dict[str, Tensor]) -> None:
        """Inverse of :meth:`state`."""
