"""Per-example leverage and influence under EKFAC's metric, streamed: one pass, nothing of size N × P kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from memspace.passes.cotangent import View
from memspace.passes.forms import Bases
from memspace.passes.statistics import _Table
from memspace.task.space import Block

__all__ = ["KroneckerInfluence", "KroneckerLeverage", "QueryGradients"]


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
        residual = view.output("empirical")[0] if kind == "jacobian" else None
        total: Tensor | None = None
        parts = []
        for block in self._blocks:
            weights = self._inverse[block.name].to(view.f.dtype)
            pairs = view.form(kind, block).rotate(self._bases[block.name]).pairs(weights)
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
        for block in self._blocks:
            self._append(block.name, view.form("empirical", block).gradients()[0].flatten(1))


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
        total: Tensor | None = None
        for block in self._blocks:
            scores = view.form("empirical", block).scores(self._queries[block.name].to(view.f.dtype))[0]
            total = scores if total is None else total + scores
        assert total is not None
        self._append("influence", total)
