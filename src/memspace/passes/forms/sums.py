"""Sums over examples and positions, in the order in which signals lie in memory and some numbers at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["CHUNK", "channels_first", "second_moment", "slices"]

CHUNK = 2**25  # numbers held at a time while per-example gradients are formed (128 MiB in float32)
PANEL = 128  # columns of a second moment's panel at least: narrower products cost more than symmetry saves


def channels_first(x: Tensor) -> bool:
    """Tell whether a tensor lies in memory with channels before positions, as images do.

    Args:
        x: (..., B, T, d).

    Returns:
        True where the order of memory is (..., B, d, T).
    """
    return x.stride(-1) != 1 and x.stride(-2) == 1


def second_moment(x: Tensor) -> Tensor:
    """Sum outer products over examples and positions, Σ_bt x_bt x_btᵀ; wide ones by panels of the upper half.

    Args:
        x: (B, T, d).

    Returns:
        (d, d), in the dtype of ``x``.
    """
    panels = 1 if x.shape[-1] < 3 * PANEL else min(6, x.shape[-1] // PANEL)
    edges = [round(i * x.shape[-1] / panels) for i in range(panels + 1)]
    batched = channels_first(x) and x.shape[1] > 1
    flat = x if batched else x.flatten(0, 1)
    if panels == 1:
        return torch.bmm(flat.transpose(-1, -2), flat).sum(0) if batched else flat.t() @ flat
    out = x.new_empty(x.shape[-1], x.shape[-1])
    for i, j in pairwise(edges):
        left, right = flat[..., i:j].transpose(-1, -2), flat[..., i:]
        block = torch.bmm(left, right).sum(0) if batched else left @ right
        out[i:j, i:] = block
        out[j:, i:j] = block[:, j - i :].t()
    return out


def slices(count: int, width: int) -> Iterator[slice]:
    """Cut ``count`` items of ``width`` numbers into runs of at most ``CHUNK`` numbers.

    Args:
        count: number of items.
        width: numbers of one item.

    Yields:
        Slices that cover ``range(count)`` in order.
    """
    step = max(1, CHUNK // max(1, width))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
