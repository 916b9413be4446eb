"""Per-example gradients of a block from its factors: formed, squared or contracted, whichever is cheapest."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from memspace.passes.capture import Signals
from memspace.task.space import Block

__all__ = ["CHUNK", "gradients", "has_product_form", "squared_norms", "squares"]

CHUNK = 2**25  # numbers held at a time while per-example gradients are formed (128 MiB in float32)


def has_product_form(block: Block) -> bool:
    """True where the per-example gradient is Σ_t g_t a_tᵀ."""
    return block.kind in ("linear", "conv", "embedding")


def gradients(signals: Signals, block: Block, g: Tensor) -> Tensor:
    """Per-example gradients, (K, B, out, in)."""
    if not has_product_form(block):
        return g.unsqueeze(2)
    return torch.matmul(g.transpose(-1, -2), signals.rows(block))


def pieces(block: Block, g: Tensor) -> Iterator[slice]:
    """Slices of the example axis within which all gradients fit into CHUNK numbers."""
    step = max(1, CHUNK // (len(g) * block.size))
    for start in range(0, g.shape[1], step):
        yield slice(start, min(start + step, g.shape[1]))


def squared_norms(signals: Signals, block: Block, g: Tensor) -> Tensor:
    """‖gradient‖² per cotangent and example, (K, B)."""
    if not has_product_form(block):
        return g.square().sum(-1)
    a = signals.rows(block)
    positions = a.shape[1]
    if positions == 1:
        return a.square().sum((1, 2)) * g.square().sum((2, 3))
    if positions * (block.shape[0] + block.shape[1]) < block.size:
        inner = torch.matmul(a, a.transpose(-1, -2))
        return (torch.matmul(g, g.transpose(-1, -2)) * inner).sum((-1, -2))
    out = g.new_empty(g.shape[:2])
    for s in pieces(block, g):
        out[:, s] = torch.matmul(g[:, s].transpose(-1, -2), a[s]).square().sum((-1, -2))
    return out


def squares(signals: Signals, block: Block, g: Tensor) -> Tensor:
    """Σ over cotangents and examples of the elementwise square of the gradient, (out, in), float64."""
    if not has_product_form(block):
        return g.square().sum((0, 1)).double().unsqueeze(0)
    a = signals.rows(block)
    if a.shape[1] == 1:
        return (g.square().sum(0)[:, 0].t() @ a[:, 0].square()).double()
    total = torch.zeros(block.shape, dtype=torch.float64, device=g.device)
    for s in pieces(block, g):
        total += torch.matmul(g[:, s].transpose(-1, -2), a[s]).square().sum((0, 1)).double()
    return total
