"""A bias in a separate block: added to every position, so that its gradient is the cotangents' sum."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from memspace.passes.layers.block import Block
from memspace.passes.layers.product import ProductRule
from memspace.passes.layers.read import CallRead, PulledCall

__all__ = ["Bias"]


class Bias(ProductRule):
    """Matrix (out, 1), whose input is 1; for layers whose weight's matrix has no column for it."""

    name: ClassVar[str] = "bias"
    parameters: ClassVar[tuple[str, ...]] = ("bias",)

    def inputs(self, block: Block, call: CallRead) -> Tensor:
        """See :class:`ProductRule`."""
        a = call.inputs[0]
        return a.new_ones(len(a), 1, 1)

    def cotangents(self, block: Block, call: PulledCall) -> Tensor:
        """See :class:`ProductRule`."""
        return call.cotangent.flatten(2).sum(2).unsqueeze(1)

    def positions(self, block: Block, given: int, returned: int, last: int) -> int:
        """See :class:`LayerRule`."""
        return 1
