"""A block: a slice of the flat vector that is one (out, in) matrix, and the rule by which its layer is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from memspace.passes.layers.rule import LayerRule

__all__ = ["BROADCAST", "Block"]

BROADCAST = -1  # in place of a batch axis: one output shared by all examples


@dataclass(frozen=True)
class Block:
    """A slice of the flat vector.

    Args:
        name: of the block, in messages and as a key.
        rule: by which its per-example gradients are read.
        module: name of the module that owns its parameters.
        names: of the parameters in it, weight first.
        shape: (out, in) of its matrix.
        start: first position of the slice.
        part: name of the part of its module, "" for the whole.
        axis: the axis of the module's input that runs over examples, or ``BROADCAST``.
        also: further modules that use the same weight; their calls count as calls of this block.
    """

    name: str
    rule: LayerRule
    module: str
    names: tuple[str, ...]
    shape: tuple[int, int]
    start: int
    part: str = ""
    axis: int = 0
    also: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The name of its rule."""
        return self.rule.name

    @property
    def groups(self) -> int:
        """Number of independent parts of its rows, all of the same length."""
        return self.rule.groups

    @property
    def diagonal(self) -> bool:
        """Whether Kronecker representations store only its diagonal."""
        return self.rule.diagonal(self)

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of all modules whose calls add to its gradient."""
        return (self.module, *self.also)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.shape[0] * self.shape[1]

    @property
    def stop(self) -> int:
        """End of the slice."""
        return self.start + self.size

    def view(self, flat: Tensor) -> Tensor:
        """View its part of flat vectors as matrices.

        Args:
            flat: (..., P).

        Returns:
            (..., out, in), a view where memory allows one.
        """
        return flat[..., self.start : self.stop].reshape(*flat.shape[:-1], *self.shape)

    def to_matrix(self, parameter: Tensor, leading: int = 0) -> Tensor:
        """Arrange one of its parameters, or gradients of it, as columns of its matrix.

        Args:
            parameter: the tensor, with further axes in front.
            leading: number of axes in front.

        Returns:
            (..., out, columns).
        """
        return self.rule.to_matrix(parameter, self.shape, leading)

    def from_matrix(self, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Invert :meth:`to_matrix`.

        Args:
            matrix: (..., out, columns).
            shape: of the parameter.

        Returns:
            (..., *shape).
        """
        return self.rule.from_matrix(matrix, shape)
