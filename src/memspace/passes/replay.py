"""Layers whose projections lie inside one module: their forward pass replayed with the projections exposed.

``nn.MultiheadAttention`` and the recurrent layers apply several weights within one call, where no hook reaches. The
call is repeated on the recorded inputs, and the input and output of every projection are stored. The module's own
output cotangent, pulled back through the repetition, yields the cotangent of every projection: their product form is
exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Replay", "ReplayFunction", "UnknownCallError"]


@dataclass(frozen=True)
class Replay:
    """One call with its projections exposed.

    Args:
        outputs: what the module returned, as differentiable tensors, in the order of its output's leaves.
        inputs: name of the projection to a (B, T, in).
        products: name of the projection to its outputs, whose cotangents, stacked along positions, are g: tensors
            (B, T, out), or T tensors (B, out).
        alive: name of the projection to (B, T) bool, which positions lie within their sequence, where sequences were
            packed; None: all.
    """

    outputs: tuple[Tensor, ...]
    inputs: Mapping[str, Tensor]
    products: Mapping[str, tuple[Tensor, ...]]
    alive: Mapping[str, Tensor] | None = None

    def cotangents(self, outer: Sequence[Tensor | None]) -> dict[str, Tensor]:
        """Pull cotangents of the outputs back to the projections.

        Args:
            outer: one per output; None: unused.

        Returns:
            Name of the projection to (B, T, out).
        """
        used = [(o, g) for o, g in zip(self.outputs, outer, strict=True) if g is not None and o.requires_grad]
        flat = [z for zs in self.products.values() for z in zs]
        grads: Sequence[Tensor | None] = (None,) * len(flat)
        if used:
            grads = torch.autograd.grad(
                [o for o, _ in used], flat, [g for _, g in used], retain_graph=True, allow_unused=True
            )
        out, at = {}, 0
        for part, zs in self.products.items():
            inner = [torch.zeros_like(z) if g is None else g for z, g in zip(zs, grads[at : at + len(zs)], strict=True)]
            at += len(zs)
            out[part] = torch.cat(inner, 1) if inner[0].dim() == 3 else torch.stack(inner, 1)
        return out


ReplayFunction = Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any], int], Replay]


class UnknownCallError(Exception):
    """A composite module was called in a way that cannot be replayed; its message says how."""
