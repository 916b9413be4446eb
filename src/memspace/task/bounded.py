"""Embeddings with ``max_norm``, read without shortening the user's weights.

Torch shortens the rows that are looked up in place, in every forward pass. Here the shortened rows are used and the
weights left alone. The derivative is torch's own, which takes the shortened row for the row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

__all__ = ["BOUNDED", "BoundedBag", "BoundedEmbedding", "within_norm"]


def within_norm(weight: Tensor, max_norm: float, norm_type: float) -> Tensor:
    """Scale rows down to a largest norm, with the derivative of the rows as they are.

    Args:
        weight: (V, D) rows.
        max_norm: the largest norm.
        norm_type: p of the p-norm.

    Returns:
        (V, D); rows that are short enough are unchanged.
    """
    rows = weight.detach()
    return weight + (torch.renorm(rows, norm_type, 0, max_norm) - rows)


class BoundedEmbedding(nn.Embedding):
    """An embedding whose forward pass leaves its weight as it is."""

    def forward(self, input: Tensor) -> Tensor:
        """Look rows up, none longer than ``max_norm``.

        Args:
            input: whole numbers, any shape.

        Returns:
            The rows, (..., D).
        """
        assert self.max_norm is not None
        weight = within_norm(self.weight, self.max_norm, self.norm_type)
        return nnf.embedding(input, weight, self.padding_idx, None, 2.0, self.scale_grad_by_freq)


class BoundedBag(nn.EmbeddingBag):
    """A bag of embeddings whose forward pass leaves its weight as it is."""

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """Look rows up, none longer than ``max_norm``, and reduce them by bag.

        Args:
            input: whole numbers, (B, L) or one list (N,).
            offsets: (B,) where each bag starts in a list.
            per_sample_weights: weights of the rows, of the shape of ``input``.

        Returns:
            (B, D).
        """
        assert self.max_norm is not None
        weight = within_norm(self.weight, self.max_norm, self.norm_type)
        return nnf.embedding_bag(
            input,
            weight,
            offsets,
            None,
            2.0,
            self.scale_grad_by_freq,
            self.mode,
            False,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )


BOUNDED: dict[type[nn.Module], type[nn.Module]] = {nn.Embedding: BoundedEmbedding, nn.EmbeddingBag: BoundedBag}
