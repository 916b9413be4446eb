"""Layers whose per-example gradients have no product form and are formed as rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from memspace.passes.forms.form import Form
from memspace.passes.forms.formed import DENSE_LIMIT, FormedForm
from memspace.passes.layers.block import Block
from memspace.passes.layers.read import BlockRead, PulledCall
from memspace.passes.layers.rule import LayerRule, Part

__all__ = ["FormedRule"]


class FormedRule(LayerRule):
    """A rule that forms gradients: the matrix has one row, with the parameters one after another."""

    kronecker: ClassVar[bool] = False

    @abstractmethod
    def gradient(self, block: Block, call: PulledCall) -> Tensor:
        """Compute the per-example gradients of one call.

        Args:
            block: one of its blocks.
            call: a call of its module with the cotangent of its output.

        Returns:
            (B, p): the gradients of ``parameters``, flattened, one after another.
        """

    def parts(self, module: nn.Module, own: Sequence[str], outside: Collection[str]) -> Sequence[Part] | None:
        """See :class:`LayerRule`; a formula yields the gradients of all parameters, so that none may be missing."""
        computed = any(n not in own and getattr(module, n, None) is not None for n in self.parameters)
        return None if computed or any(n in outside for n in own) else super().parts(module, own, outside)

    def shape(self, parameters: Sequence[Tensor]) -> tuple[int, int]:
        """See :class:`LayerRule`."""
        return 1, sum(p.numel() for p in parameters)

    def signals(self, block: Block, calls: Sequence[PulledCall], outputs: Tensor) -> Tensor:
        """See :class:`LayerRule`."""
        parts = [self.gradient(block, call) for call in calls]
        if not parts:
            return outputs.new_zeros(len(outputs), block.size)
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def form(self, read: BlockRead, pulled: Tensor) -> Form:
        """See :class:`LayerRule`."""
        return self.whole_form(read.block, pulled)

    def whole(self, block: Block, gradients: Sequence[Tensor]) -> Tensor:
        """See :class:`LayerRule`."""
        return super().whole(block, gradients).flatten(2)

    def whole_form(self, block: Block, gradients: Tensor) -> Form:
        """See :class:`LayerRule`."""
        return FormedForm(gradients)

    def diagonal(self, block: Block) -> bool:
        """See :class:`LayerRule`."""
        return block.size > DENSE_LIMIT

    def sides(self, block: Block) -> tuple[int, ...]:
        """See :class:`LayerRule`."""
        return () if self.diagonal(block) else (block.size,)

    def rotation(self, block: Block, positions: int) -> float:
        """See :class:`LayerRule`."""
        return block.size * sum(self.sides(block)[:2])

    def sizes(self, block: Block, given: int, returned: int, last: int) -> tuple[int, int]:
        """See :class:`LayerRule`."""
        return given, block.size

    def row_floats(self, block: Block, sizes: tuple[int, int], rows: int) -> int:
        """See :class:`LayerRule`."""
        return sizes[0] + rows * sizes[1]

    def product_floats(self, block: Block, sizes: tuple[int, int], rows: int) -> int:
        """See :class:`LayerRule`."""
        return self.row_floats(block, sizes, rows)
