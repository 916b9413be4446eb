"""Transposed convolutions without groups: a linear layer from every input position to a window of the output."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from torch import Tensor, nn

from memspace.passes.layers.bias import Bias
from memspace.passes.layers.block import Block
from memspace.passes.layers.product import ProductRule
from memspace.passes.layers.read import CallRead, PulledCall
from memspace.passes.layers.rule import Part
from memspace.passes.layers.windows import unfolded

__all__ = ["Transposed"]

_TRANSPOSED = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


class Transposed(ProductRule):
    """Matrix (out·kernel, in); a position is one of the input, and the bias is a separate block."""

    name: ClassVar[str] = "transposed"
    types: ClassVar[tuple[type[nn.Module], ...]] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

    def knows(self, module: nn.Module) -> bool:
        """See :class:`LayerRule`."""
        return super().knows(module) and getattr(module, "groups", 1) == 1

    def parts(self, module: nn.Module, own: Sequence[str], outside: Collection[str]) -> Sequence[Part] | None:
        """See :class:`LayerRule`."""
        if super().parts(module, own, outside) is None:
            return None
        return [Part(self, ("weight",)), Part(Bias(), ("bias",), "bias")]

    def shape(self, parameters: Sequence[Tensor]) -> tuple[int, int]:
        """See :class:`LayerRule`."""
        weight = parameters[0]
        return weight.numel() // weight.shape[0], weight.shape[0]

    def to_matrix(self, parameter: Tensor, shape: tuple[int, int], leading: int) -> Tensor:
        """See :class:`LayerRule`."""
        return parameter.movedim(leading, -1).reshape(*parameter.shape[:leading], *shape)

    def from_matrix(self, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See :class:`LayerRule`."""
        lead = matrix.shape[:-2]
        return matrix.reshape(*lead, *shape[1:], shape[0]).movedim(-1, len(lead))

    def inputs(self, block: Block, call: CallRead) -> Tensor:
        """See :class:`ProductRule`."""
        return call.inputs[0].flatten(2).transpose(1, 2)

    def cotangents(self, block: Block, call: PulledCall) -> Tensor:
        """See :class:`ProductRule`."""
        layer = call.module
        assert isinstance(layer, _TRANSPOSED)
        return unfolded(call.cotangent, layer.kernel_size, layer.dilation, layer.stride, layer.padding)

    def positions(self, block: Block, given: int, returned: int, last: int) -> int:
        """See :class:`LayerRule`."""
        return given // block.shape[1]
