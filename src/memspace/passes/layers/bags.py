"""The rows that an embedding looked up in one call, and every row's share of the output's cotangent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memspace.errors import UnsupportedLayerError
from memspace.passes.layers.read import CallRead, PulledCall
from memspace.task.bounded import within_norm
from memspace.task.operations import bags

__all__ = ["by_row", "looked_up"]


def looked_up(call: CallRead) -> tuple[Tensor, Tensor]:
    """Find the rows of the table that one call looked up.

    Args:
        call: of an embedding or a bag of embeddings.

    Returns:
        Token numbers (B, T), and (B, T) bool: False at padding and beyond the end of a bag.

    Raises:
        UnsupportedLayerError: there is not one bag per example.
    """
    if isinstance(call.module, nn.EmbeddingBag):
        tokens, _, counted = _bags(call.module, call)
    else:
        tokens = call.inputs[0].reshape(call.batch, -1)
        counted = torch.ones_like(tokens, dtype=torch.bool)
    padding = getattr(call.module, "padding_idx", None)
    return tokens, counted if padding is None else counted & tokens.ne(padding)


def by_row(call: PulledCall, width: int) -> Tensor:
    """Compute the cotangent of every row that one call looked up.

    Args:
        call: of an embedding or a bag of embeddings.
        width: numbers in a row.

    Returns:
        (B, T, width); a bag's cotangent is distributed over its rows by its mode.

    Raises:
        UnsupportedLayerError: there is not one bag per example.
    """
    if isinstance(call.module, nn.EmbeddingBag):
        return _spread(call.module, call)
    return call.cotangent.reshape(call.batch, -1, width)


def _spread(module: nn.EmbeddingBag, call: PulledCall) -> Tensor:
    """The cotangent of bags (B, dim) as that of the rows in them, (B, T, dim)."""
    g = call.cotangent
    tokens, weights, _ = _bags(module, call)
    counted = looked_up(call)[1].unsqueeze(-1)
    if module.mode == "max":
        table = module.weight.detach()
        if module.max_norm is not None:
            table = within_norm(table, module.max_norm, module.norm_type)
        largest = table[tokens].masked_fill(~counted, float("-inf")).argmax(1, keepdim=True)
        return torch.zeros_like(counted * g.unsqueeze(1)).scatter(1, largest, g.unsqueeze(1)) * counted
    if module.mode == "mean":
        return counted * (g / counted.sum(1).clamp_min(1)).unsqueeze(1)
    return counted * g.unsqueeze(1) * (1 if weights is None else weights.unsqueeze(-1))


def _bags(module: nn.EmbeddingBag, call: CallRead) -> tuple[Tensor, Tensor | None, Tensor]:
    arguments = call.call.arguments("input", "offsets", "per_sample_weights")
    weights = arguments.get("per_sample_weights")
    weights = None if weights is None else weights.detach()
    tokens, weights, counted = bags(arguments["input"], arguments.get("offsets"), weights, module.include_last_offset)
    if tokens.dim() != 2 or len(tokens) != call.batch:
        raise UnsupportedLayerError(
            "the layer was called on another number of bags than there are examples",
            where=call.call.name,
            remedy="give one bag per example",
        )
    return tokens, weights, counted
