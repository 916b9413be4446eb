"""Which rows an embedding looked up in one call, and what share of its output's cotangent each of them gets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memspace.errors import UnsupportedLayerError
from memspace.passes.layers.read import CallRead, PulledCall
from memspace.task.bounded import within_norm
from memspace.task.operations import bags

__all__ = ["by_row", "looked_up"]


def looked_up(call: CallRead) -> tuple[Tensor, Tensor]:
    """Find which rows of the table one call looked up.

    Args:
        call: of an embedding or a bag of embeddings.

    Returns:
        Token numbers (B, T), and which of them count: not padding, nor places beyond the end of a bag.

    Raises:
        UnsupportedLayerError: there is not one bag per example.
    """
    if isinstance(call.module, nn.EmbeddingBag):
        tokens, _, held = _bags(call.module, call)
    else:
        tokens = call.inputs[0].reshape(call.batch, -1)
        held = torch.ones_like(tokens, dtype=torch.bool)
    padding = getattr(call.module, "padding_idx", None)
    return tokens, held if padding is None else held & tokens.ne(padding)


def by_row(call: PulledCall, width: int) -> Tensor:
    """Give the cotangent of every row that one call looked up.

    Args:
        call: of an embedding or a bag of embeddings.
        width: numbers in a row.

    Returns:
        (B, T, width); a bag's cotangent is shared among its rows as its mode has it.

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
    held = looked_up(call)[1].unsqueeze(-1)
    if module.mode == "max":
        table = module.weight.detach()
        if module.max_norm is not None:
            table = within_norm(table, module.max_norm, module.norm_type)
        largest = table[tokens].masked_fill(~held, float("-inf")).argmax(1, keepdim=True)
        return torch.zeros_like(held * g.unsqueeze(1)).scatter(1, largest, g.unsqueeze(1)) * held
    if module.mode == "mean":
        return held * (g / held.sum(1).clamp_min(1)).unsqueeze(1)
    return held * g.unsqueeze(1) * (1 if weights is None else weights.unsqueeze(-1))


def _bags(module: nn.EmbeddingBag, call: CallRead) -> tuple[Tensor, Tensor | None, Tensor]:
    given = call.call.arguments("input", "offsets", "per_sample_weights")
    weights = given.get("per_sample_weights")
    weights = None if weights is None else weights.detach()
    tokens, weights, held = bags(given["input"], given.get("offsets"), weights, module.include_last_offset)
    if tokens.dim() != 2 or len(tokens) != call.batch:
        raise UnsupportedLayerError(
            "the layer was called on another number of bags than there are examples",
            where=call.call.name,
            remedy="give one bag per example",
        )
    return tokens, weights, held
