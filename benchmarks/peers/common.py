"""What several peers need: copies of the model, losses in their shape, loaders without a Python loop per example."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.engine_workloads import Workload

__all__ = ["ClassesSecond", "Whole", "fast_loader", "model_of", "pack_list", "packed", "total_loss", "unpacked"]


def model_of(w: Workload) -> nn.Module:
    """A copy of the trained network in eval mode, for the peer to wrap as it likes."""
    return copy.deepcopy(w.task.model).eval()


class ClassesSecond(nn.Module):
    """A sequence network with its classes on axis 1, as torch's cross-entropy wants them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """(B, T) → (B, C, T)."""
        f: Tensor = self.inner(x)
        return f.transpose(1, 2)


class Whole(Dataset[Any]):
    """Tensors that a loader may index a batch at a time."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i], self.y[i]

    def __getitems__(self, index: list[int]) -> tuple[Tensor, Tensor]:
        at = torch.tensor(index)
        return self.x[at], self.y[at]


def as_it_is(batch: Any) -> Any:
    """The collate function of :class:`Whole`."""
    return batch


def fast_loader(x: Tensor, y: Tensor, batch: int) -> DataLoader[Any]:
    """A DataLoader in order that slices tensors."""
    return DataLoader(Whole(x, y), batch_size=batch, shuffle=False, collate_fn=as_it_is)


def total_loss(f: Tensor, y: Tensor) -> Tensor:
    """Σ over examples and positions of the cross-entropy."""
    return nn.functional.cross_entropy(f.flatten(0, -2), y.flatten(), reduction="sum")


def packed(w: Workload, named: Mapping[str, Tensor]) -> Tensor:
    """Tensors by parameter name → our flat layout."""
    return w.space.pack({n: t.detach() for n, t in named.items()})


def unpacked(w: Workload, flat: Tensor) -> list[Tensor]:
    """Our flat layout → tensors in the order of ``model.parameters()``."""
    named = w.space.unpack(flat)
    return [named[n].contiguous() for n, _ in w.task.model.named_parameters()]


def pack_list(w: Workload, tensors: list[Tensor]) -> Tensor:
    """The inverse of :func:`unpacked`."""
    return packed(w, {n: t for (n, _), t in zip(w.task.model.named_parameters(), tensors, strict=True)})
