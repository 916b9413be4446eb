"""Gradients of outcomes, and inner products of every training example's gradient with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from memspace.passes.cotangent import View
from memspace.passes.layers.block import Block
from memspace.passes.statistics import TableStatistic

__all__ = ["Cotangents", "OutcomeGradients", "OwnFisher", "PairScores", "by_position"]

Cotangents = Callable[[Tensor, Tensor], Tensor]  # (f (B, ..., C), y) -> u (B, ..., C)


def by_position(u: Tensor) -> Tensor:
    """Separate cotangents by position.

    Args:
        u: (B, ..., C).

    Returns:
        (T, B, ..., C): the t-th is zero at all positions but t.
    """
    flat = u.reshape(len(u), -1, u.shape[-1])
    t = flat.shape[1]
    apart = torch.diag_embed(flat.permute(0, 2, 1)).permute(2, 0, 3, 1)  # (B, C, T, T) -> (T, B, T, C)
    return apart.reshape(t, *u.shape)


class OutcomeGradients(TableStatistic):
    """Gradients ∇q of outcomes, ``gradients`` (n, P) in the flat layout; with outputs ``f`` and labels ``y``.

    Args:
        blocks: of the parameter space.
        cotangents: (f, y) ↦ ∂q/∂f of every example's outcome.
        apart: whether every position of a sequence is a separate outcome: T consecutive gradients per example.
    """

    def __init__(self, blocks: Sequence[Block], cotangents: Cotangents, apart: bool = False) -> None:
        super().__init__()
        self._blocks, self._cotangents, self._apart = tuple(blocks), cotangents, apart

    def update(self, view: View) -> None:
        """Store one batch."""
        u = self._cotangents(view.f, view.y)
        view.give(by_position(u) if self._apart else u.unsqueeze(0))
        columns = [view.form("given", b).gradients().flatten(2) for b in self._blocks]
        self._append("gradients", torch.cat(columns, -1).transpose(0, 1).flatten(0, 1))
        self._append("f", view.f)
        self._append("y", view.y)


class PairScores(TableStatistic):
    """−⟨∇ℓ_i, x_q⟩ of every example i with Q vectors, ``scores`` (n, Q): positive where i's loss pulls along x_q.

    Args:
        blocks: of the parameter space.
        queries: x_q = M⁻¹∇q (Q, P).
        layers: whether to store ``parts`` (n, Q, L) too, the sum's terms by block.
        tokens: whether to store ``tokens`` (n, T, Q) too, the sum's terms by position of the training example.
    """

    def __init__(self, blocks: Sequence[Block], queries: Tensor, *, layers: bool = False, tokens: bool = False) -> None:
        super().__init__()
        self._blocks, self._layers, self._tokens = tuple(blocks), layers, tokens
        self._queries = {b.name: b.view(queries) for b in blocks}
        self.kinds = () if tokens else ("empirical",)

    def update(self, view: View) -> None:
        """Store one batch."""
        kind = "empirical"
        if self._tokens:
            kind = "given"
            view.give(by_position(view.output("empirical")[0]))
        parts: list[Tensor] = []
        for block in self._blocks:
            scores = -view.form(kind, block).scores(self._queries[block.name].to(view.f.dtype))  # (K, B, Q)
            if self._layers or not parts:
                parts.append(scores)
            else:
                parts[0] = parts[0] + scores
        if self._tokens:
            self._append("tokens", sum(parts[1:], parts[0]).transpose(0, 1))
        by_layer = [p.sum(0) for p in parts]
        self._append("scores", sum(by_layer[1:], by_layer[0]))
        if self._layers:
            self._append("parts", torch.stack(by_layer, -1))


class OwnFisher(TableStatistic):
    """Inner products among the rows of every example's Fisher root, ``own`` (n, K, K).

    Args:
        blocks: of the parameter space.
    """

    kinds = ("exact",)

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self._blocks = tuple(blocks)

    def update(self, view: View) -> None:
        """Store one batch."""
        total: Tensor | None = None
        for block in self._blocks:
            pairs = view.form("exact", block).pairs(view.f.new_ones(1, *block.shape))[0]
            total = pairs if total is None else total + pairs
        assert total is not None
        self._append("own", total)
