"""Layers whose per-example gradient is Σ_t g_t a_tᵀ over positions t: pixels, tokens, or one in a plain layer."""

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

LARGER = 1.75  # rows up to so many times the size of their factors are stored as rows


class ProductRule(LayerRule):
    """A rule with a product form: a bias is the last column of the matrix, and its input a one."""

    row_part: ClassVar[type[RowPart] | None] = ProductPart

    @abstractmethod
    def inputs(self, block: Block, call: CallRead) -> Tensor:
        """Return the inputs of the block's matrix in one call.

        Args:
            block: one of its blocks.
            call: a call of its module.

        Returns:
            a, (B, T, in), without the column of ones of a bias next to a weight.
        """

    @abstractmethod
    def cotangents(self, block: Block, call: PulledCall) -> Tensor:
        """Return the cotangents of the block's matrix product in one call.

        Args:
            block: one of its blocks.
            call: a call of its module with the cotangent of its output.

        Returns:
            g, (B, T, out).
        """

    def only_bias(self, block: Block) -> bool:
        """Tell whether the block is the bias alone, whose input is a column of ones.

        Args:
            block: one of its blocks.

        Returns:
            True where the weight is frozen or in another block.
        """
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
    """Flatten all axes between the first and the last to positions.

    Args:
        a: (B, ..., d).

    Returns:
        (B, T, d).
    """
    return a.reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])


def ones(a: Tensor) -> Tensor:
    """Return a column of ones, the input of a bias.

    Args:
        a: (B, T, ...).

    Returns:
        (B, T, 1), in the dtype of ``a``.
    """
    return a.new_ones(*a.shape[:2], 1)
