"""Embeddings with ``max_norm``, read without shortening the user's weights.

Torch shortens the rows that are looked up in place, in every forward pass. Here the shortened rows are used and the
weights left alone; the derivative is torch's own, that of the shortened row taken for the row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

__all__ = ["BOUNDED", "BoundedBag", "BoundedEmbedding", "within_norm"]


def within_norm(weight: Tensor, max_norm: float, norm_type: float) -> Tensor:
    """Rows no longer than ``max_norm``, with the derivative of the rows as they are."""
    held = weight.detach()
    return weight + (torch.renorm(held, norm_type, 0, max_norm) - held)


class BoundedEmbedding(nn.Embedding):
    """An embedding whose forward pass leaves its weight as it is."""

    def forward(self, input: Tensor) -> Tensor:
        """The rows looked up, none longer than ``max_norm``."""
        assert self.max_norm is not None
        weight = within_norm(self.weight, self.max_norm, self.norm_type)
        return nnf.embedding(input, weight, self.padding_idx, None, 2.0, self.scale_grad_by_freq)


class BoundedBag(nn.EmbeddingBag):
    """The same for bags."""

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """The rows looked up, none longer than ``max_norm``, by bag."""
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
