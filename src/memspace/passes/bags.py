"""Which rows an embedding looked up in one call, and what share of its output's cotangent each of them gets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memspace.errors import UnsupportedLayerError
from memspace.passes.calls import Call
from memspace.task.bounded import within_norm
from memspace.task.operations import bags

__all__ = ["TABLES", "looked_up", "spread"]

TABLES = (nn.Embedding, nn.EmbeddingBag)


def looked_up(module: nn.Module, call: Call, axis: int, batch: int) -> tuple[Tensor, Tensor]:
    """Token numbers (B, T) and which of them count: not padding, nor places beyond the end of a bag.

    Raises:
        UnsupportedLayerError: there is not one bag per example.
    """
    if not isinstance(module, nn.EmbeddingBag):
        tokens = call.inputs(axis, batch)[0].reshape(batch, -1)
        held = torch.ones_like(tokens, dtype=torch.bool)
    else:
        tokens, _, held = _bags(module, call, batch)
    padding = getattr(module, "padding_idx", None)
    return tokens, held if padding is None else held & tokens.ne(padding)


def spread(module: nn.EmbeddingBag, call: Call, g: Tensor) -> Tensor:
    """The cotangent of bags (B, dim) as that of the rows in them, (B, T, dim)."""
    tokens, weights, _ = _bags(module, call, len(g))
    held = looked_up(module, call, 0, len(g))[1].unsqueeze(-1)
    if module.mode == "max":
        table = module.weight.detach()
        if module.max_norm is not None:
            table = within_norm(table, module.max_norm, module.norm_type)
        largest = table[tokens].masked_fill(~held, float("-inf")).argmax(1, keepdim=True)
        return torch.zeros_like(held * g.unsqueeze(1)).scatter(1, largest, g.unsqueeze(1)) * held
    if module.mode == "mean":
        return held * (g / held.sum(1).clamp_min(1)).unsqueeze(1)
    return held * g.unsqueeze(1) * (1 if weights is None else weights.unsqueeze(-1))


def _bags(module: nn.EmbeddingBag, call: Call, batch: int) -> tuple[Tensor, Tensor | None, Tensor]:
    given = call.arguments("input", "offsets", "per_sample_weights")
    weights = given.get("per_sample_weights")
    weights = None if weights is None else weights.detach()
    tokens, weights, held = bags(given["input"], given.get("offsets"), weights, module.include_last_offset)
    if tokens.dim() != 2 or len(tokens) != batch:
        raise UnsupportedLayerError(
            "the layer was called on another number of bags than there are examples",
            where=call.name,
            remedy="give one bag per example",
        )
    return tokens, weights, held
