"""Leverage: how much each training example holds its own prediction in place, V_i = J_i M⁻¹ J_iᵀ, M = N(F + γI).

Exact for the whole network by Woodbury's identity on the dual. ``memspace.passes.leverage`` has the same quantities for
EKFAC's block-diagonal F, streamed at a cost linear in N. γ is the damping of the mean Fisher matrix; α = Nγ.

Where the dual's rows were drawn, M lacks some of an example's own curvature J_iᵀH_iJ_i or has too much of it, while
whatever leaves the example out takes exactly that back: its leverage could come out above one. So every example's own
rows are put right in M (a change of rank C, exact by Woodbury); those of the others are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.metric.dual import Dual
from memspace.passes.rows import Rows

__all__ = ["DualLeverage"]


@dataclass(frozen=True)
class DualLeverage:
    """Exact leverage from the dual.

    Args:
        jacobian: rows of J of n examples, C each.
        dual: the metric of the training set.
        own: (n, C, C) J_i J_iᵀ.
        cross: (n·C, R) inner products of the rows of J with the dual's eigen-rows.
        missing: (n, C, C) Δ_i, what the dual's rows lack of example i's output curvature; None: nothing.
    """

    jacobian: Rows
    dual: Dual
    own: Tensor
    cross: Tensor
    missing: Tensor | None = None

    @staticmethod
    def of(jacobian: Rows, dual: Dual, classes: int, missing: Tensor | None = None) -> DualLeverage:
        """Inner products once; every damping afterwards is cheap. ``missing`` is that of the dual's selection."""
        cross = jacobian.dot(dual.rows) @ dual.vectors
        return DualLeverage(jacobian, dual, jacobian.own_blocks(classes), cross, missing)

    def _shrink(self, damping: float) -> Tensor:
        return 1 / (self.dual.values + self.dual.n * damping)

    def matrices(self, damping: float) -> Tensor:
        """V (n, C, C): (own − cross (κ+α)⁻¹ crossᵀ)/α, with the example's own rows whole."""
        v = self._kept(damping)
        return v if self.missing is None else v @ self._whole(v)

    def gram(self, damping: float) -> Tensor:
        """J M⁻¹ Jᵀ between all outputs of all examples, (nC, nC), of the rows held."""
        inner = self.jacobian.dot(self.jacobian)
        return (inner - (self.cross * self._shrink(damping)) @ self.cross.t()) / (self.dual.n * damping)

    def _kept(self, damping: float) -> Tensor:
        """V of the rows held."""
        c = self.own.shape[1]
        grouped = self.cross.reshape(len(self.own), c, self.cross.shape[1])
        held = (grouped * self._shrink(damping)) @ grouped.transpose(1, 2)
        return (self.own - held) / (self.dual.n * damping)

    def _whole(self, v: Tensor) -> Tensor:
        """W_i = (I + Δ_i V_i)⁻¹: (M + J_iᵀΔ_iJ_i)⁻¹ J_iᵀ = M⁻¹ J_iᵀ W_i."""
        assert self.missing is not None
        eye = torch.eye(v.shape[1], dtype=v.dtype, device=v.device)
        found: Tensor = torch.linalg.inv(eye + self.missing @ v)
        return found

    def _carried(self, left: Tensor, damping: float) -> Tensor:
        """Output cotangents u' (n, C) with M⁻¹J_iᵀu' = (M with the example's own rows whole)⁻¹ J_iᵀu."""
        if self.missing is None:
            return left
        return torch.einsum("ncd,nd->nc", self._whole(self._kept(damping)), left.to(self.own))

    def influence(self, left: Tensor, right: Rows, u: Tensor, damping: float) -> Tensor:
        """Query · M⁻¹ · train gradients.

        Args:
            left: (n, C) output cotangents of the training examples (their residuals).
            right: rows of J of Q query examples, C each; ``u``: (Q, C) their output cotangents.

        Returns:
            (Q, n), nats: to first order the change of the query's loss when the training example is removed.
        """
        left = self._carried(left, damping)
        train = self.gradients(left)
        q = torch.arange(len(u), device=u.device)
        query = right.combine(u, q)
        alpha = self.dual.n * damping
        direct = query.dot(train)
        c = self.own.shape[1]
        mine = torch.einsum("ncr,nc->nr", self.cross.reshape(len(self.own), c, self.cross.shape[1]), left.double())
        theirs = query.dot(self.dual.rows) @ self.dual.vectors
        return (direct - (theirs * self._shrink(damping)) @ mine.t()) / alpha

    def gradients(self, r: Tensor) -> Rows:
        """The rows Σ_c r_ic J_ic: per-example gradients of the loss, in factored form."""
        return self.jacobian.combine(r, torch.arange(len(r), device=r.device))

    def self_parts(self, r: Tensor, damping: float) -> Tensor:
        """Self-influence r_iᵀ V_i r_i split by block, (n, L): parts sum to the whole."""
        if self.missing is None:
            return self._self_parts(r, damping)
        other = self._carried(r, damping)  # r and V r no longer share one quadratic form: polarised
        return self._self_parts((r + other) / 2, damping) - self._self_parts((r - other) / 2, damping)

    def _self_parts(self, r: Tensor, damping: float) -> Tensor:
        gradients = self.gradients(r)
        c = self.own.shape[1]
        mine = torch.einsum("ncr,nc->nr", self.cross.reshape(len(self.own), c, self.cross.shape[1]), r.double())
        coefficient = self.dual.vectors @ (mine * self._shrink(damping)).t()  # (R, n)
        alpha = self.dual.n * damping
        columns = []
        for b in self.jacobian.blocks:
            norm = gradients.norms(b)
            held = (gradients.dot(self.dual.rows, b) * coefficient.t()).sum(1)
            columns.append((norm - held) / alpha)
        return torch.stack(columns, 1)
