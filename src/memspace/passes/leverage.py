"""Per-example leverage and influence under EKFAC's metric, streamed: one pass, nothing of size N × P kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from memspace.passes.capture import Signals
from memspace.passes.cotangent import View
from memspace.passes.products import gradients, has_product_form, pieces
from memspace.passes.statistics import Bases, _Table
from memspace.task.space import Block

__all__ = ["KroneckerInfluence", "KroneckerLeverage", "QueryGradients"]


def _rotated_pairs(signals: Signals, block: Block, g: Tensor, bases: Bases, weights: Tensor) -> Tensor:
    """Σ_oi w_doi G̃_koi G̃_loi per example, (D, B, K, K): gradients G̃ in the bases, D weightings (D, out, in)."""
    if not has_product_form(block):
        rows = (g if bases.a is None else g @ bases.a.to(g.dtype)).transpose(0, 1)  # (B, K, p)
        return torch.stack([(rows * w[0]) @ rows.transpose(1, 2) for w in weights])
    a = signals.rows(block)
    if a.shape[1] == 1:
        ra = a[:, 0] if bases.a is None else a[:, 0] @ bases.a.to(a.dtype)
        rg = (g[:, :, 0] if bases.g is None else g[:, :, 0] @ bases.g.to(g.dtype)).transpose(0, 1)  # (B, K, out)
        squared = ra.square()
        return torch.stack([(rg * (squared @ w.t()).unsqueeze(1)) @ rg.transpose(1, 2) for w in weights])
    early = a.shape[1] < len(g) * block.shape[0]
    if early and bases.a is not None:
        a = a @ bases.a.to(a.dtype)
    late = Bases(None if early else bases.a, bases.g)
    out = g.new_empty(len(weights), g.shape[1], len(g), len(g))
    for s in pieces(block, g):
        rotated = late.rotate(torch.matmul(g[:, s].transpose(-1, -2), a[s])).flatten(2).transpose(0, 1)
        for d, w in enumerate(weights):
            out[d, s] = (rotated * w.flatten()) @ rotated.transpose(1, 2)
    return out


class KroneckerLeverage(_Table):
    """V_i = J_i M⁻¹ J_iᵀ for plain outputs, M = N(F̂ + γI), for several dampings at once.

    Columns: ``leverage`` (n, D, C, C); ``parts`` (n, D, L): self-influence r_iᵀ V_i r_i by block, r the residual of
    the training label. With ``kind="empirical"`` (sequences) only the residual's own direction is read and
    ``leverage`` is absent.

    Args:
        inverse: block name → (D, out, in): 1/(N(Λ + γ)) in the block's bases.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        bases: dict[str, Bases],
        inverse: dict[str, Tensor],
        kind: str = "jacobian",
    ) -> None:
        super().__init__()
        self._blocks, self._bases, self._inverse, self.kinds = tuple(blocks), bases, inverse, (kind,)

    def update(self, view: View) -> None:
        """Keep one batch."""
        kind = self.kinds[0]
        pulled = view.cotangents(kind)
        residual = view.output("empirical")[0] if kind == "jacobian" else None
        total: Tensor | None = None
        parts = []
        for block in self._blocks:
            weights = self._inverse[block.name].to(view.f.dtype)
            pairs = _rotated_pairs(view.signals, block, pulled[block.name], self._bases[block.name], weights)
            if residual is None:
                parts.append(pairs[..., 0, 0])
            else:
                parts.append(torch.einsum("bk,dbkl,bl->db", residual, pairs, residual))
                total = pairs if total is None else total + pairs
        self._append("parts", torch.stack(parts, -1).transpose(0, 1).contiguous())
        if total is not None:
            self._append("leverage", total.transpose(0, 1).contiguous())


class QueryGradients(_Table):
    """The gradients of the residual's loss, formed: one column per block (n, out·in). For a few examples only."""

    kinds = ("empirical",)

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self._blocks = tuple(blocks)

    def update(self, view: View) -> None:
        """Keep one batch."""
        pulled = view.cotangents("empirical")
        for block in self._blocks:
            self._append(block.name, gradients(view.signals, block, pulled[block.name])[0].flatten(1))


class KroneckerInfluence(_Table):
    """Influence of every example on Q preconditioned queries, ``influence`` (n, Q).

    Args:
        queries: block name → (Q, out, in): M⁻¹ ∇q.
    """

    kinds = ("empirical",)

    def __init__(self, blocks: Sequence[Block], queries: dict[str, Tensor]) -> None:
        super().__init__()
        self._blocks, self._queries = tuple(blocks), queries

    def update(self, view: View) -> None:
        """Keep one batch."""
        pulled = view.cotangents("empirical")
        total: Tensor | None = None
        for block in self._blocks:
            formed = gradients(view.signals, block, pulled[block.name])[0].flatten(1)
            scores = formed @ self._queries[block.name].to(formed.dtype).flatten(1).t()
            total = scores if total is None else total + scores
        assert total is not None
        self._append("influence", total)
