"""Embeddings and bags of them: gradients are stored for the tokens in an example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from memspace.passes.forms.form import Form
from memspace.passes.forms.token import TokenForm
from memspace.passes.layers.bags import by_row, looked_up
from memspace.passes.layers.block import BROADCAST, Block
from memspace.passes.layers.read import BlockRead, PulledCall, joined
from memspace.passes.layers.rule import LayerRule
from memspace.passes.row_parts.part import RowPart
from memspace.passes.row_parts.token import TokenPart
from memspace.task.bounded import BoundedBag, BoundedEmbedding

__all__ = ["TABLES", "Embedding", "tokens_of"]

TABLES = (nn.Embedding, nn.EmbeddingBag)


class Embedding(LayerRule):
    """Matrix (dim, vocabulary), the weight transposed."""

    name: ClassVar[str] = "embedding"
    types: ClassVar[tuple[type[nn.Module], ...]] = (*TABLES, BoundedEmbedding, BoundedBag)
    shareable: ClassVar[bool] = True
    token_side: ClassVar[Literal["", "in", "out"]] = "in"
    row_part: ClassVar[type[RowPart] | None] = TokenPart

    def knows(self, module: nn.Module) -> bool:
        """Refuse a module that scales its gradient, or that shortens its rows in place."""
        if not super().knows(module):
            return False
        writes = module.max_norm is not None and not isinstance(module, BoundedEmbedding | BoundedBag)
        return not (module.scale_grad_by_freq or writes)

    def positional(self, module: nn.Module) -> bool:
        """See :class:`LayerRule`."""
        return isinstance(module, nn.Embedding)

    def axis(self, module: nn.Module, shapes: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> int | None:
        """See :class:`LayerRule`; bags may come as one list, and a table may get one input for all examples."""
        if isinstance(module, nn.EmbeddingBag):
            return 0 if all(len(s) == 1 for s in shapes) else super().axis(module, shapes, sizes)
        first = all(s and s[0] == n for s, n in zip(shapes, sizes, strict=True))
        return BROADCAST if not first and len(set(shapes)) == 1 else super().axis(module, shapes, sizes)

    def shape(self, parameters: Sequence[Tensor]) -> tuple[int, int]:
        """See :class:`LayerRule`."""
        vocabulary, dim = parameters[0].shape
        return dim, vocabulary

    def to_matrix(self, parameter: Tensor, shape: tuple[int, int], leading: int) -> Tensor:
        """See :class:`LayerRule`."""
        return parameter.transpose(-1, -2)

    def from_matrix(self, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See :class:`LayerRule`."""
        return matrix.transpose(-1, -2).reshape((*matrix.shape[:-2], *shape))

    def signals(self, block: Block, calls: Sequence[PulledCall], outputs: Tensor) -> Tensor:
        """See :class:`LayerRule`: (B, T, dim)."""
        parts = [by_row(call, block.shape[0]) for call in calls]
        return joined(parts, (len(outputs), 1, block.shape[0]), outputs)

    def form(self, read: BlockRead, pulled: Tensor) -> Form:
        """See :class:`LayerRule`."""
        tokens, counted = tokens_of(read)
        return TokenForm.of(tokens, pulled * counted.unsqueeze(-1).to(pulled.dtype), read.block.shape[1])

    def row_factors(self, read: BlockRead, pulled: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`LayerRule`: token numbers (B, T) for the inputs."""
        tokens, counted = tokens_of(read)
        return tokens, pulled * counted.to(pulled.dtype)[:, None, :, None]

    def forms_rows(self, block: Block, positions: int, rows: int) -> bool:
        """See :class:`LayerRule`; a row has the size of the vocabulary."""
        return False

    def sizes(self, block: Block, given: int, returned: int, last: int) -> tuple[int, int]:
        """See :class:`LayerRule`; the factor of an input is the token's number."""
        positions = self.positions(block, given, returned, last)
        return positions, positions * block.shape[0]


def tokens_of(read: BlockRead) -> tuple[Tensor, Tensor]:
    """Find the tokens that all calls of a table looked up.

    Args:
        read: the block of the table's weight in one forward pass.

    Returns:
        Token numbers (B, T), and (B, T) bool: False at padding.
    """
    parts = [looked_up(call) for call in read.of(*TABLES)]
    if not parts:
        tokens = torch.zeros(len(read), 1, dtype=torch.long, device=read.outputs.device)
        return tokens, torch.ones_like(tokens, dtype=torch.bool)
    return torch.cat([tokens for tokens, _ in parts], 1), torch.cat([counted for _, counted in parts], 1)
