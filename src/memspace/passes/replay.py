"""Layers whose projections lie inside one module: their forward pass again, opened up.

``nn.MultiheadAttention`` and the recurrent layers apply several weights within one call, where no hook reaches. Here
the call is repeated on the recorded inputs, and every projection's input and output are kept. The module's own output
cotangent, pulled back through the repetition, gives each projection's cotangent: their product form is exact.
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
    """One call, opened up.

    Args:
        outputs: what the module returned, as differentiable tensors, in the order of its output's leaves.
        inputs: part → a (B, T, in); ``products``: part → the projections' outputs, whose cotangents, stacked along
            positions, are g: tensors (B, T, out), or T tensors (B, out).
        alive: part → (B, T) which of its positions lie within their sequence, where sequences were packed.
    """

    outputs: tuple[Tensor, ...]
    inputs: Mapping[str, Tensor]
    products: Mapping[str, tuple[Tensor, ...]]
    alive: Mapping[str, Tensor] | None = None

    def cotangents(self, given: Sequence[Tensor | None]) -> dict[str, Tensor]:
        """Part → (B, T, out), for cotangents of the outputs (None: unused)."""
        used = [(o, g) for o, g in zip(self.outputs, given, strict=True) if g is not None and o.requires_grad]
        flat = [z for zs in self.products.values() for z in zs]
        grads: Sequence[Tensor | None] = (None,) * len(flat)
        if used:
            grads = torch.autograd.grad(
                [o for o, _ in used], flat, [g for _, g in used], retain_graph=True, allow_unused=True
            )
        out, at = {}, 0
        for part, zs in self.products.items():
            found = [torch.zeros_like(z) if g is None else g for z, g in zip(zs, grads[at : at + len(zs)], strict=True)]
            at += len(zs)
            out[part] = torch.cat(found, 1) if found[0].dim() == 3 else torch.stack(found, 1)
        return out


ReplayFunction = Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any], int], Replay]


class UnknownCallError(Exception):
    """A composite module was called in a way that cannot be opened up; its message says which."""
