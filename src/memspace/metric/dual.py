"""The dual representation: F through the Gram matrix of its rows, exact on the rows it keeps, with an exact null space.

F = (1/N) Σ_r row_r row_rᵀ. With K = Q κ Qᵀ the Gram matrix of the rows, the eigenvectors of F are rowsᵀ Q κ^{-½} and
its eigenvalues κ/N; every other direction is in the null space. Rows that carry next to nothing may be left out:
F_kept ⪯ F, and no eigenvalue moves by more than the left-out trace (Weyl).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.metric.krylov import Eigenpairs
from memspace.metric.metric import Estimate, FisherMetric, SpectralFunction
from memspace.metric.row_products import sum_of_squares, times, transposed_times
from memspace.passes.rows import Rows

__all__ = ["Dual", "Selection", "select_rows"]

_RELATIVE_ZERO = 1e-12  # eigenvalues of the Gram matrix below this share of the largest are rounding (float64)


@dataclass(frozen=True)
class Selection:
    """The principal Fisher rows of a set of examples, largest first.

    Args:
        rows: R rows of the root of F (not divided by N).
        left_out: the share of the trace of N·F that rows not kept would have carried.
        total: the trace of N·F.
    """

    rows: Rows
    left_out: float
    total: float


def select_rows(jacobian: Rows, root: Tensor, limit: int, tolerance: float = 1e-8) -> Selection:
    """Rotate each example's Fisher rows to their principal axes and keep the largest over all examples.

    Args:
        jacobian: rows of J, C consecutive ones per example.
        root: S of every example, (n, C, K).
        limit: at most so many rows.
        tolerance: rows are dropped freely while their share of the trace stays below this.
    """
    c = root.shape[1]
    root = root.double()
    own = jacobian.own_blocks(c)
    moment = root.transpose(1, 2) @ own @ root
    values, vectors = torch.linalg.eigh(moment)  # (n, K): squared norms of the principal rows
    weights = (root @ vectors).transpose(1, 2)  # (n, K, C)
    flat = values.clamp_min(0).flatten()
    order = flat.argsort(descending=True)
    total = float(flat.sum())
    tail = total - flat[order].cumsum(0)
    needed = int((tail > tolerance * total).sum()) + 1
    keep = order[: min(limit, needed, len(order))]
    keep = keep[flat[keep] > 0]
    k = values.shape[1]
    rows = jacobian.combine(weights.reshape(-1, c)[keep], keep // k)
    left = max(0.0, 1.0 - float(flat[keep].sum()) / total) if total > 0 else 0.0
    return Selection(rows, left, total)


@dataclass(frozen=True)
class Dual(FisherMetric):
    """F by the eigendecomposition of its rows' Gram matrix (float64).

    Args:
        rows: R rows; F = (1/n) Σ row rowᵀ.
        n: number of examples averaged over.
        values: κ, eigenvalues of the Gram matrix, ascending; ``vectors`` (R, R) their eigenvectors.
        left_out: share of tr F not represented (0 when exact).
        sampling: standard error of tr F from labels drawn, where measured.
    """

    rows: Rows
    n: int
    values: Tensor
    vectors: Tensor
    left_out: float = 0.0
    kind: str = "exact"
    representation: str = "dual"
    sampling: float = 0.0

    @staticmethod
    def of(selection: Selection, n: int, kind: str = "exact") -> Dual:
        """From selected rows."""
        values, vectors = torch.linalg.eigh(selection.rows.dot(selection.rows))
        real = values > _RELATIVE_ZERO * values[-1].clamp_min(1e-300)
        return Dual(selection.rows, n, values[real], vectors[:, real], selection.left_out, kind)

    @property
    def size(self) -> int:  # type: ignore[override]
        """P."""
        return self.rows.size

    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """Exact on the rows kept; the null space gets fn(0)."""
        zero = fn(torch.zeros(1, dtype=torch.float64, device=v.device))
        batched = v.reshape(-1, self.size).double()
        gain = (fn(self.values / self.n) - zero) / self.values
        w = ((times(self.rows, batched) @ self.vectors) * gain) @ self.vectors.t()
        return (zero * batched + transposed_times(self.rows, w)).reshape(v.shape).to(v.dtype)

    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """Exact on the rows kept."""
        if fn is None:
            return Estimate(float(self.values.sum()) / self.n, self.sampling)
        zero = float(fn(torch.zeros(1, dtype=torch.float64, device=self.values.device)))
        return Estimate(float(fn(self.values / self.n).sum()) + zero * (self.size - len(self.values)))

    def eigenvalues(self) -> Tensor:
        """The non-zero ones."""
        return (self.values / self.n).flip(0)

    def eigh(self, k: int) -> Eigenpairs:
        """Exact on the rows kept: rowsᵀ Q κ^{-½}; at most as many as the rank."""
        values, vectors = self.values.flip(0)[:k], self.vectors.flip(1)[:, :k]
        found = transposed_times(self.rows, (vectors / values.sqrt()).t())
        return Eigenpairs.exact(values / self.n, found)

    def diagonal(self) -> Tensor:
        """Exact on the rows kept: the mean of squared rows."""
        return sum_of_squares(self.rows) / self.n
