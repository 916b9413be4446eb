"""Linear layers: W a + b."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from memspace.passes.layers.block import Block
from memspace.passes.layers.product import ProductRule, by_position, ones
from memspace.passes.layers.read import CallRead, PulledCall

__all__ = ["Linear"]


class Linear(ProductRule):
    """Matrix (out, in [+1]); every axis between the first and the last runs over positions."""

    name: ClassVar[str] = "linear"
    types: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)
    shareable: ClassVar[bool] = True
    units: ClassVar[bool] = True

    def positional(self, module: nn.Module) -> bool:
        """See :class:`LayerRule`."""
        return True

    def inputs(self, block: Block, call: CallRead) -> Tensor:
        """See :class:`ProductRule`."""
        a = by_position(call.inputs[0])
        return ones(a) if self.only_bias(block) else a

    def cotangents(self, block: Block, call: PulledCall) -> Tensor:
        """See :class:`ProductRule`."""
        return by_position(call.cotangent)
