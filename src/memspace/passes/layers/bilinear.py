"""Bilinear layers: linear in the products of two inputs' entries."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from memspace.passes.layers.block import Block
from memspace.passes.layers.product import ProductRule, by_position, ones
from memspace.passes.layers.read import CallRead, PulledCall

__all__ = ["Bilinear"]


class Bilinear(ProductRule):
    """Matrix (out, in₁·in₂ [+1])."""

    name: ClassVar[str] = "bilinear"
    types: ClassVar[tuple[type[nn.Module], ...]] = (nn.Bilinear,)

    def positional(self, module: nn.Module) -> bool:
        """See :class:`LayerRule`."""
        return True

    def inputs(self, block: Block, call: CallRead) -> Tensor:
        """See :class:`ProductRule`."""
        left, right = call.inputs[:2]
        pairs = by_position(left).unsqueeze(-1) * by_position(right).unsqueeze(-2)
        return ones(pairs) if self.only_bias(block) else pairs.flatten(2)

    def cotangents(self, block: Block, call: PulledCall) -> Tensor:
        """See :class:`ProductRule`."""
        return by_position(call.cotangent)
