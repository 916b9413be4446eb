"""The dual representation: F through the Gram matrix of its rows, with an exact null space.

F = (1/N) Σ_r row_r row_rᵀ. With K = Q κ Qᵀ the Gram matrix of the rows, the eigenvectors of F are rowsᵀ Q κ^{-½} and
its eigenvalues κ/N; every other direction is in the null space. Exact where every row is held; where rows are drawn
(``metric.draw``) F̂ is unbiased, has the trace of F, and traces of functions carry a standard error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.metric.draw import TOLERANCE, draw_rows, spread_of_draw
from memspace.metric.krylov import Eigenpairs
from memspace.metric.metric import Estimate, FisherMetric, SpectralFunction
from memspace.metric.row_products import sum_of_squares, times, transposed_times
from memspace.passes.rows import Rows

__all__ = ["Dual", "Selection", "select_rows"]

_RELATIVE_ZERO = 1e-12  # eigenvalues of the Gram matrix below this share of the largest are rounding (float64)
STEP = 1e-4  # relative, of a central difference


@dataclass(frozen=True)
class Selection:
    """The principal Fisher rows of a set of examples, or a draw of them.

    Args:
        rows: R rows of the root of F (not divided by N), each over the root of its chance of being drawn.
        chance: (R,) those chances, float64; 1 where a row is held for certain.
        drawn: the share of the trace of N·F that lies in rows whose chance is below 1.
        missing: (n, C, C) Δ_i, what the rows held lack of the output curvature H_i of example i (or have too much of
            it): H_i − Ĥ_i, symmetric; None where next to nothing is drawn.
    """

    rows: Rows
    chance: Tensor
    drawn: float = 0.0
    missing: Tensor | None = None


def select_rows(jacobian: Rows, root: Tensor, limit: int, tolerance: float = TOLERANCE, seed: int = 0) -> Selection:
    """Rotate each example's Fisher rows to their principal axes; hold all that carry anything, or draw ``limit``.

    Args:
        jacobian: rows of J, C consecutive ones per example.
        root: S of every example, (n, C, K).
        limit: at most so many rows.
        tolerance: rows are dropped freely while their share of the trace stays below this.
        seed: of the draw.
    """
    c = root.shape[1]
    root = root.double()
    own = jacobian.own_blocks(c)
    moment = root.transpose(1, 2) @ own @ root
    values, vectors = torch.linalg.eigh(moment)  # (n, K): squared norms of the principal rows
    found = draw_rows(values.flatten(), limit, tolerance, seed)
    mixes = (root @ vectors).transpose(1, 2)  # (n, K, C)
    k = values.shape[1]
    scaled = mixes.reshape(-1, c)[found.index] / found.chance.sqrt().unsqueeze(1)
    rows = jacobian.combine(scaled, found.index // k)
    if not found.drawn:
        return Selection(rows, found.chance)
    held = torch.zeros_like(values.flatten())
    held[found.index] = 1 / found.chance
    lacking = (1 - held).view_as(values).unsqueeze(1)
    return Selection(rows, found.chance, found.drawn, (mixes.transpose(1, 2) * lacking) @ mixes)


@dataclass(frozen=True)
class Dual(FisherMetric):
    """F by the eigendecomposition of its rows' Gram matrix (float64).

    Args:
        rows: R rows; F = (1/n) Σ row rowᵀ.
        n: number of examples averaged over.
        values: κ, eigenvalues of the Gram matrix, ascending; ``vectors`` (R, R) their eigenvectors.
        drawn: share of tr F in rows of which only some were drawn (0 when exact).
        chance: (R,) the rows' chances of being drawn; None: every row is held.
        sampling: standard error of tr F from labels drawn, where measured.
    """

    rows: Rows
    n: int
    values: Tensor
    vectors: Tensor
    drawn: float = 0.0
    kind: str = "exact"
    representation: str = "dual"
    sampling: float = 0.0
    chance: Tensor | None = None

    @staticmethod
    def of(selection: Selection, n: int, kind: str = "exact") -> Dual:
        """From selected rows."""
        values, vectors = torch.linalg.eigh(selection.rows.dot(selection.rows))
        real = values > _RELATIVE_ZERO * values[-1].clamp_min(1e-300)
        chance = selection.chance if selection.drawn else None
        return Dual(selection.rows, n, values[real], vectors[:, real], selection.drawn, kind, chance=chance)

    @property
    def size(self) -> int:  # type: ignore[override]
        """Number of parameters P."""
        return self.rows.size

    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """Exact on the rows held; the null space gets fn(0)."""
        zero = fn(torch.zeros(1, dtype=torch.float64, device=v.device))
        batched = v.reshape(-1, self.size).double()
        gain = (fn(self.values / self.n) - zero) / self.values
        w = ((times(self.rows, batched) @ self.vectors) * gain) @ self.vectors.t()
        return (zero * batched + transposed_times(self.rows, w)).reshape(v.shape).to(v.dtype)

    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """Exact on the rows held; where they were drawn, with the standard error of the draw.

        The error is of first order: with fewer than about ten rows for each effective parameter it is too small, and a
        concave function comes out too low besides (by 2% at nine rows each, 7% at three: measured).
        """
        if fn is None:
            return Estimate(float(self.values.sum()) / self.n, self.sampling)
        zero = float(fn(torch.zeros(1, dtype=torch.float64, device=self.values.device)))
        value = float(fn(self.values / self.n).sum()) + zero * (self.size - len(self.values))
        return Estimate(value, 0.0 if self.chance is None else self._spread(fn, self.chance))

    def _spread(self, fn: SpectralFunction, chance: Tensor) -> float:
        """Standard error of a trace: a row adds Σ_j λ_j φ'(λ_j) Q_rj² to it, to first order."""
        at = self.values / self.n
        slope = (fn(at * (1 + STEP)) - fn(at * (1 - STEP))) / (2 * STEP)  # dφ/d log λ
        return spread_of_draw(self.vectors.square() @ slope, chance)

    def eigenvalues(self) -> Tensor:
        """The non-zero ones, of the rows held."""
        return (self.values / self.n).flip(0)

    def eigh(self, k: int) -> Eigenpairs:
        """Exact on the rows held: rowsᵀ Q κ^{-½}; at most as many as the rank."""
        values, vectors = self.values.flip(0)[:k], self.vectors.flip(1)[:, :k]
        found = transposed_times(self.rows, (vectors / values.sqrt()).t())
        return Eigenpairs.exact(values / self.n, found)

    def diagonal(self) -> Tensor:
        """Exact on the rows held: the mean of squared rows."""
        return sum_of_squares(self.rows) / self.n
