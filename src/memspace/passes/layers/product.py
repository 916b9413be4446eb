"""Layers whose per-example gradient is Σ_t g_t a_tᵀ over positions t: pixels, tokens, or the one of a plain layer."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from memspace.passes.forms.form import Form
from memspace.passes.forms.product import ProductForm
from memspace.passes.layers.block import Block
from memspace.passes.layers.read import BlockRead, CallRead, PulledCall, joined
from memspace.passes.layers.rule import LayerRule
from memspace.passes.row_parts.part import RowPart
from memspace.passes.row_parts.product import ProductPart

__all__ = ["ProductRule", "by_position", "ones"]

LARGER = 1.75  # times the factors, that rows may be to be kept


class ProductRule(LayerRule):
    """A rule with a product form: a bias is the last column of the matrix, and its input a one."""

    row_part: ClassVar[type[RowPart] | None] = ProductPart

    @abstractmethod
    def inputs(self, block: Block, call: CallRead) -> Tensor:
        """Give what the block's matrix multiplies in one call.

        Args:
            block: one of its blocks.
            call: a call of its module.

        Returns:
            a, (B, T, in), without the column of ones of a bias next to a weight.
        """

    @abstractmethod
    def cotangents(self, block: Block, call: PulledCall) -> Tensor:
        """Give the cotangent of what the block's matrix gave in one call.

        Args:
            block: one of its blocks.
            call: a call of its module with the cotangent of its output.

        Returns:
            g, (B, T, out).
        """

    def only_bias(self, block: Block) -> bool:
        """Whether the weight is frozen or elsewhere: the block is the bias alone, whose input is a column of ones."""
        return block.names[0].rsplit(".", 1)[-1] != self.parameters[0]

    def gathered(self, read: BlockRead) -> Tensor:
        """See :class:`LayerRule`."""
        parts = [self.inputs(read.block, call) for call in read.calls]
        return joined(parts, (len(read), 1, read.block.shape[1]), read.outputs)

    def signals(self, block: Block, calls: Sequence[PulledCall], outputs: Tensor) -> Tensor:
        """See :class:`LayerRule`."""
        parts = [self.cotangents(block, call) for call in calls]
        return joined(parts, (len(outputs), 1, block.shape[0]), outputs)

    def form(self, read: BlockRead, pulled: Tensor) -> Form:
        """See :class:`LayerRule`."""
        a = read.inputs
        if a.shape[1] == 1:
            return ProductForm(read.rows, pulled)
        return ProductForm(a, pulled, ones=read.block.shape[1] > a.shape[-1])

    def forms_rows(self, block: Block, positions: int, rows: int) -> bool:
        """See :class:`LayerRule`."""
        factors = positions * (block.shape[1] + rows * block.shape[0])
        return positions > 1 and rows * block.size <= LARGER * factors


def by_position(a: Tensor) -> Tensor:
    """Lay out every axis between the first and the last as positions: (B, ..., d) → (B, T, d)."""
    return a.reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])


def ones(a: Tensor) -> Tensor:
    """Give a column of ones for the positions of (B, T, ...): (B, T, 1)."""
    return a.new_ones(*a.shape[:2], 1)
