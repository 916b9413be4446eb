"""Per-example leverage and influence under EKFAC's metric, streamed: one pass, nothing of size N × P in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from memspace.passes.cotangent import View
from memspace.passes.forms.bases import Bases
from memspace.passes.layers.block import Block
from memspace.passes.statistics import TableStatistic

__all__ = ["KroneckerInfluence", "KroneckerLeverage", "QueryGradients"]


class KroneckerLeverage(TableStatistic):
    """V_i = J_i M⁻¹ J_iᵀ for plain outputs, M = N(F̂ + γI), for several dampings at once.

    Columns: ``leverage`` (n, D, C, C); ``parts`` (n, D, L), nats: self-influence r_iᵀ V_i r_i by block, r the residual
    of the training label. With ``kind="empirical"`` (sequences) only the residual's own direction is read and
    ``leverage`` is absent.

    Args:
        blocks: of the parameter space.
        bases: eigenbases by block name.
        inverse: 1/(N(Λ + γ)) in these bases by block name, (D, out, in).
        kind: ``jacobian`` or ``empirical``.
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
        """Store one batch."""
        self._bases = {k: b.converted(view.f.dtype) for k, b in self._bases.items()}
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


class QueryGradients(TableStatistic):
    """M⁻¹ ∇q of a few examples, one column per block (q, out, in); M has known eigenvalues in Kronecker bases.

    A block's queries stay in these bases (``rotated``) where rotating the n examples they are multiplied with is
    cheaper than rotating the queries back.

    Args:
        blocks: of the parameter space.
        bases: eigenbases by block name.
        inverse: inverse eigenvalues of M by block name, (out, in).
        count: number of queries.
        n: number of examples that they will be multiplied with.

    Attributes:
        rotated: names of the blocks whose queries stay in their bases.
    """

    kinds = ("empirical",)

    def __init__(
        self, blocks: Sequence[Block], bases: dict[str, Bases], inverse: dict[str, Tensor], count: int, n: int
    ) -> None:
        super().__init__()
        self._blocks, self._bases, self._inverse = tuple(blocks), bases, inverse
        self._count, self._n = count, n
        self._rotation: dict[str, int] = {}
        self.rotated: set[str] = set()

    def update(self, view: View) -> None:
        """Store one batch, in the bases."""
        self._bases = {k: b.converted(view.f.dtype) for k, b in self._bases.items()}
        for block in self._blocks:
            form = view.form("empirical", block)
            self._rotation[block.name] = max(self._rotation.get(block.name, 0), form.rotation())
            solved = form.rotate(self._bases[block.name]).gradients()[0]
            self._append(block.name, solved.mul_(self._inverse[block.name].to(view.f.dtype)))

    def finish(self) -> dict[str, Tensor]:
        """Return every block's queries, those of ``rotated`` in its bases, and drop them here, since they are large."""
        parts, self._parts = self._parts, {}
        columns = {}
        for block in self._blocks:
            column = torch.cat(parts.pop(block.name))
            if self._n * self._rotation[block.name] < self._count * sum(block.shape) * block.size:
                self.rotated.add(block.name)
            else:
                column = self._bases[block.name].back(column)
            columns[block.name] = column
        return columns


class KroneckerInfluence(TableStatistic):
    """Influence of every example on Q preconditioned queries, ``influence`` (n, Q), nats.

    Args:
        blocks: of the parameter space.
        queries: M⁻¹ ∇q by block name, (Q, out, in).
        bases: of the blocks whose queries are in their bases (``QueryGradients.rotated``).
    """

    kinds = ("empirical",)

    def __init__(self, blocks: Sequence[Block], queries: dict[str, Tensor], bases: dict[str, Bases]) -> None:
        super().__init__()
        self._blocks, self._queries, self._bases = tuple(blocks), queries, bases

    def update(self, view: View) -> None:
        """Store one batch."""
        self._bases = {k: b.converted(view.f.dtype) for k, b in self._bases.items()}
        total: Tensor | None = None
        for block in self._blocks:
            form = view.form("empirical", block)
            form = form.rotate(self._bases[block.name]) if block.name in self._bases else form
            scores = form.scores(self._queries[block.name].to(view.f.dtype))[0]
            total = scores if total is None else total + scores
        assert total is not None
        self._append("influence", total)
