"""Linear layers that store their weight as (in, out): ``transformers``' ``Conv1D``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from memspace.passes.layers.linear import Linear

__all__ = ["Turned"]


class Turned(Linear):
    """Matrix (out, in [+1]), the weight transposed."""

    name: ClassVar[str] = "turned"
    types: ClassVar[tuple[type[nn.Module], ...]] = (nn.Module,)
    units: ClassVar[bool] = False

    def knows(self, module: nn.Module) -> bool:
        """Accept a module by its class's name and its parameters; verification finds out whether it is linear."""
        weight, bias = (module._parameters.get(n) for n in ("weight", "bias"))
        fits = weight is not None and weight.dim() == 2 and (bias is None or bias.shape == weight.shape[1:])
        return self.positional(module) and fits

    def positional(self, module: nn.Module) -> bool:
        """See :class:`LayerRule`."""
        return type(module).__name__ == "Conv1D"

    def shape(self, parameters: Sequence[Tensor]) -> tuple[int, int]:
        """See :class:`LayerRule`."""
        out = parameters[0].shape[-1]
        return out, sum(p.numel() for p in parameters) // out

    def to_matrix(self, parameter: Tensor, shape: tuple[int, int], leading: int) -> Tensor:
        """See :class:`LayerRule`."""
        if parameter.dim() == leading + 2:
            return parameter.transpose(-1, -2)
        return super().to_matrix(parameter, shape, leading)

    def from_matrix(self, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See :class:`LayerRule`."""
        if len(shape) == 2:
            return matrix.transpose(-1, -2).reshape((*matrix.shape[:-2], *shape))
        return super().from_matrix(matrix, shape)
