"""Parameters that no rule knows: their own module is differentiated, or else the whole model, example by example."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from memspace.passes.layers.block import Block
from memspace.passes.layers.formed import FormedRule
from memspace.passes.layers.read import PulledCall

__all__ = ["Local", "Loose"]


class Local(FormedRule):
    """(1, numel) of one parameter, by its module's own forward pass."""

    name: ClassVar[str] = "local"
    by_example: ClassVar[bool] = True

    def gradient(self, block: Block, call: PulledCall) -> Tensor:
        """See :class:`FormedRule`."""
        return call.by_example[block.part]


class Loose(FormedRule):
    """(1, numel) of one parameter, by differentiating the whole model; no call of its module is read."""

    name: ClassVar[str] = "loose"
    hooked: ClassVar[bool] = False
    by_example: ClassVar[bool] = True

    def gradient(self, block: Block, call: PulledCall) -> Tensor:
        """See :class:`FormedRule`.

        Raises:
            NotImplementedError: always; a pass reads these parameters the generic way.
        """
        raise NotImplementedError(f"{block.name} is read by differentiating the whole model")

    def sizes(self, block: Block, given: int, returned: int, last: int) -> tuple[int, int]:
        """See :class:`LayerRule`."""
        return 0, block.size
