"""What a piece of work gives back, in one form for us and for every peer, so that results can be held side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Outcome", "Work", "difference", "trace_of"]


@dataclass(frozen=True)
class Outcome:
    """A result, with the seconds of eigendecompositions in it (reported apart).

    ``result``: a tensor; a dict of tensors by block; or a dict of Kronecker factors (a, g) by block. ``blocks``: of a
    tensor summed over blocks, those in it (None: all).
    """

    result: Any
    apart: float = 0.0
    blocks: frozenset[str] | None = None


Work = Callable[[], Outcome]


def _relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    if a.shape != b.shape:
        raise ValueError(f"shapes {tuple(a.shape)} and {tuple(b.shape)}")
    return float((a - b).norm() / b.norm())


def _factors(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """Of g ⊗ a, whatever constant sits in which factor: directions of both, and the product of their norms."""
    scale = [float(f[0].double().norm() * f[1].double().norm()) for f in (a, b)]
    parts = [_relative(x / x.double().norm(), y / y.double().norm()) for x, y in zip(a, b, strict=True)]
    return max(*parts, abs(scale[0] / scale[1] - 1))


def difference(ours: Any, theirs: Any) -> float:
    """Largest relative difference (Frobenius norm) over the parts that the peer has too."""
    if isinstance(ours, Tensor):
        return _relative(ours, theirs)
    found = []
    for name, value in theirs.items():
        mine = ours[name]
        if isinstance(value, tuple):
            # A peer that keeps the bias elsewhere has no column of ones.
            width = len(value[0])
            found.append(_factors((mine[0][:width, :width], mine[1]), value))
        else:  # eigenvalues in bases of one's own: only the sorted spectrum is comparable
            a, b = (t.flatten().double().sort().values for t in (mine, value))
            found.append(_relative(a, b))
    return max(found)


def trace_of(result: Any, names: Any = None) -> float:
    """Tr F̂, over the blocks named: what two estimates from different sampled labels can be compared in."""
    if isinstance(result, Tensor):
        return float(result.double().sum())
    total = 0.0
    for name in names or result:
        value = result[name]
        if isinstance(value, tuple):
            total += float(torch.trace(value[0].double()) * torch.trace(value[1].double()))
        else:
            total += float(value.double().sum())
    return total
