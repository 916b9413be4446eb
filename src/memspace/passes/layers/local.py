"""Parameters without closed form: their module is differentiated example by example, or else the whole model."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from memspace.passes.layers.block import Block
from memspace.passes.layers.formed import FormedRule
from memspace.passes.layers.read import PulledCall

__all__ = ["Local", "Loose"]


class Local(FormedRule):
    """Matrix (1, numel) of one parameter, whose module is differentiated example by example."""

    name: ClassVar[str] = "local"
    by_example: ClassVar[bool] = True

    def gradient(self, block: Block, call: PulledCall) -> Tensor:
        """See :class:`FormedRule`."""
        return call.by_example[block.part]


class Loose(FormedRule):
    """Matrix (1, numel) of one parameter, for which the whole model is differentiated; no call is read."""

    name: ClassVar[str] = "loose"
    hooked: ClassVar[bool] = False
    by_example: ClassVar[bool] = True

    def gradient(self, block: Block, call: PulledCall) -> Tensor:
        """See :class:`FormedRule`.

        Raises:
            NotImplementedError: always; passes differentiate the whole model for these parameters.
        """
        raise NotImplementedError(f"{block.name} is read by differentiating the whole model")

    def sizes(self, block: Block, given: int, returned: int, last: int) -> tuple[int, int]:
        """See :class:`LayerRule`."""
        return 0, block.size
