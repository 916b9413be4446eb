"""Leverage: how strongly a training example determines its own prediction, V_i = J_i M⁻¹ J_iᵀ, M = N(F + γI).

Exact for the whole network by Woodbury's identity on the dual. ``memspace.passes.leverage`` has the same quantities for
EKFAC's block-diagonal F, streamed at a cost linear in N. γ is the damping of the mean Fisher matrix; α = Nγ.

Where the dual's rows were drawn, M has too little or too much of an example's own curvature J_iᵀH_iJ_i. Leaving the
example out subtracts exactly that curvature, so its leverage could come out above one. Every example's own curvature
is therefore corrected in M (a change of rank C, exact by Woodbury); that of the others stays as drawn.
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
        jacobian: rows of J of n examples, C per example.
        dual: the metric of the training set.
        own: (n, C, C) J_i J_iᵀ.
        cross: (n·C, R) inner products of the rows of J with the dual's eigen-rows.
        missing: (n, C, C) Δ_i, output curvature of example i less that of the dual's rows; None: no difference.
    """

    jacobian: Rows
    dual: Dual
    own: Tensor
    cross: Tensor
    missing: Tensor | None = None

    @staticmethod
    def of(jacobian: Rows, dual: Dual, classes: int, missing: Tensor | None = None) -> DualLeverage:
        """Compute the inner products once, after which every damping is cheap.

        Args:
            jacobian: rows of J of n examples, C per example.
            dual: the metric of the training set.
            classes: C.
            missing: Δ (n, C, C) of the dual's selection; None: no difference.

        Returns:
            Leverage at any damping.
        """
        cross = jacobian.dot(dual.rows) @ dual.vectors
        return DualLeverage(jacobian, dual, jacobian.own_blocks(classes), cross, missing)

    def _shrink(self, damping: float) -> Tensor:
        return 1 / (self.dual.values + self.dual.n * damping)

    def matrices(self, damping: float) -> Tensor:
        """Compute leverage matrices V = (own − cross (κ+α)⁻¹ crossᵀ)/α, every example's own curvature corrected.

        Args:
            damping: γ > 0; α = nγ.

        Returns:
            (n, C, C), float64.
        """
        v = self._uncorrected(damping)
        return v if self.missing is None else v @ self._correction(v)

    def gram(self, damping: float) -> Tensor:
        """Compute J M⁻¹ Jᵀ between all outputs of all examples, on the rows held.

        Args:
            damping: γ > 0.

        Returns:
            (nC, nC), float64.
        """
        inner = self.jacobian.dot(self.jacobian)
        return (inner - (self.cross * self._shrink(damping)) @ self.cross.t()) / (self.dual.n * damping)

    def _uncorrected(self, damping: float) -> Tensor:
        """V on the rows held."""
        c = self.own.shape[1]
        grouped = self.cross.reshape(len(self.own), c, self.cross.shape[1])
        determined = (grouped * self._shrink(damping)) @ grouped.transpose(1, 2)
        return (self.own - determined) / (self.dual.n * damping)

    def _correction(self, v: Tensor) -> Tensor:
        """W_i = (I + Δ_i V_i)⁻¹: (M + J_iᵀΔ_iJ_i)⁻¹ J_iᵀ = M⁻¹ J_iᵀ W_i."""
        assert self.missing is not None
        eye = torch.eye(v.shape[1], dtype=v.dtype, device=v.device)
        correction: Tensor = torch.linalg.inv(eye + self.missing @ v)
        return correction

    def _corrected(self, left: Tensor, damping: float) -> Tensor:
        """Output cotangents u' (n, C) with M⁻¹J_iᵀu' = (M + J_iᵀΔ_iJ_i)⁻¹ J_iᵀu."""
        if self.missing is None:
            return left
        return torch.einsum("ncd,nd->nc", self._correction(self._uncorrected(damping)), left.to(self.own))

    def influence(self, left: Tensor, right: Rows, u: Tensor, damping: float) -> Tensor:
        """Compute influences, gradient of the query · M⁻¹ · gradient of the training example.

        Args:
            left: (n, C) output cotangents of the training examples (their residuals).
            right: rows of J of Q query examples, C per example.
            u: (Q, C) output cotangents of the queries.
            damping: γ > 0.

        Returns:
            (Q, n), nats: to first order the change of the query's loss when the training example is removed.
        """
        left = self._corrected(left, damping)
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
        """Combine the Jacobian's rows to per-example gradients Σ_c r_ic J_ic.

        Args:
            r: (n, C) output cotangents (residuals for gradients of the loss).

        Returns:
            N rows, in factored form.
        """
        return self.jacobian.combine(r, torch.arange(len(r), device=r.device))

    def self_parts(self, r: Tensor, damping: float) -> Tensor:
        """Split self-influence r_iᵀ V_i r_i by block.

        Args:
            r: (n, C) residuals.
            damping: γ > 0.

        Returns:
            (n, L), nats: an example's parts sum to its self-influence.
        """
        if self.missing is None:
            return self._self_parts(r, damping)
        other = self._corrected(r, damping)  # no quadratic form in r any more: polarised
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
            determined = (gradients.dot(self.dual.rows, b) * coefficient.t()).sum(1)
            columns.append((norm - determined) / alpha)
        return torch.stack(columns, 1)
