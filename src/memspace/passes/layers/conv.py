"""Convolutions without groups: a linear layer on the window of every position."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from memspace.passes.layers.block import Block
from memspace.passes.layers.product import ProductRule
from memspace.passes.layers.read import CallRead, PulledCall
from memspace.passes.layers.windows import CONVOLUTIONS, Convolution, patches

__all__ = ["Conv"]


class Conv(ProductRule):
    """Matrix (out, in·kernel [+1]); a position is one of the output."""

    name: ClassVar[str] = "conv"
    types: ClassVar[tuple[type[nn.Module], ...]] = CONVOLUTIONS
    units: ClassVar[bool] = True
    filters: ClassVar[bool] = True

    def knows(self, module: nn.Module) -> bool:
        """See :class:`LayerRule`."""
        return super().knows(module) and getattr(module, "groups", 1) == 1

    def inputs(self, block: Block, call: CallRead) -> Tensor:
        """See :class:`ProductRule`."""
        a = call.inputs[0]
        if self.only_bias(block):
            return a.new_ones(a.shape[0], 1, 1)
        assert isinstance(call.module, Convolution)
        return patches(call.module, a)

    def cotangents(self, block: Block, call: PulledCall) -> Tensor:
        """See :class:`ProductRule`."""
        flat = call.cotangent.flatten(2).transpose(1, 2)
        return flat.sum(1, keepdim=True) if self.only_bias(block) else flat

    def positions(self, block: Block, given: int, returned: int, last: int) -> int:
        """See :class:`LayerRule`."""
        return max(1, returned // block.shape[0])
