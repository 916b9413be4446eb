"""The quadratic model of a change of weights where some changes are prescribed: optimal brain surgery, jointly.

    m(δ) = gᵀδ + ½ δᵀ(F + γI)δ,   F = (1/n) GᵀG,   δ_S prescribed, δ_K free

is least at δ_K = −(F+γI)_KK⁻¹ (g_K + F_KS δ_S). By Woodbury's identity only R × R matrices are solved, with R the
number of rows of G, however many weights there are. For one weight q with δ_q = −θ_q and g = 0 this is optimal brain
surgery (Hassibi & Stork 1993): damage θ_q²/(2[(F+γI)⁻¹]_qq). It is exact for many weights at once too, unlike a sum
of single damages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Factored", "RowMetric"]

_COLUMNS = 4096  # weights whose part of the rows is multiplied at a time


@dataclass(frozen=True)
class RowMetric:
    """F = (1/n) GᵀG with its rows formed in memory.

    Args:
        rows: G (R, P).
        n: number of examples averaged over.
        parts: slices of the weights between which F is taken to be zero; one slice over all for the whole F.
    """

    rows: Tensor
    n: int
    parts: tuple[slice, ...]

    @staticmethod
    def joint(rows: Tensor, n: int) -> RowMetric:
        """Build the whole F, no part of it taken to be zero.

        Args:
            rows: G (R, P).
            n: number of examples averaged over.

        Returns:
            The metric.
        """
        return RowMetric(rows, n, (slice(0, rows.shape[1]),))

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return self.rows.shape[1]

    def matvec(self, v: Tensor) -> Tensor:
        """Multiply one vector by F.

        Args:
            v: (P,).

        Returns:
            F v (P,), float64.
        """
        out = torch.zeros(self.size, dtype=torch.float64, device=self.rows.device)
        for part in self.parts:
            out[part] = _pull(self.rows[:, part], _push(self.rows[:, part], v[part])) / self.n
        return out

    def damage(self, change: Tensor, gradient: Tensor, damping: float) -> float:
        """Evaluate the quadratic model m(δ) = gᵀδ + ½ δᵀ(F + γI)δ.

        Args:
            change: δ (P,).
            gradient: g (P,).
            damping: γ.

        Returns:
            m(δ), in the unit of the gradient's objective.
        """
        d = change.double()
        return float(gradient.double() @ d + 0.5 * (d @ self.matvec(d)) + 0.5 * damping * (d @ d))

    def factor(self, free: Tensor) -> Factored:
        """Decompose the part of F over the free weights, ready to be solved at any damping.

        Args:
            free: (P,) bool, True where a weight may change.

        Returns:
            The decomposition.
        """
        pieces = []
        for part in self.parts:
            columns = free[part].nonzero().squeeze(1) + part.start
            rows = self.rows if len(columns) == self.size else self.rows[:, columns]
            pieces.append(_Piece.of(part, columns, rows, _gram(rows)))
        return Factored(self, free, tuple(pieces))


@dataclass(frozen=True)
class _Piece:
    part: slice
    columns: Tensor
    rows: Tensor
    gram: Tensor
    values: Tensor
    vectors: Tensor

    @staticmethod
    def of(part: slice, columns: Tensor, rows: Tensor, gram: Tensor) -> _Piece:
        values, vectors = torch.linalg.eigh(gram)
        return _Piece(part, columns, rows, gram, values.clamp_min(0), vectors)

    def solve(self, right: Tensor, damping: float, n: int) -> Tensor:
        """(nγI + G_K G_Kᵀ)⁻¹ right."""
        solved: Tensor = self.vectors @ ((self.vectors.t() @ right) / (self.values + n * damping))
        return solved


@dataclass(frozen=True)
class Factored:
    """:class:`RowMetric` over free weights, with the eigenvectors of G_K G_Kᵀ of every part.

    Args:
        metric: F over all weights.
        free: (P,) bool, True where a weight may change.
        pieces: the decompositions, one a part.
    """

    metric: RowMetric
    free: Tensor
    pieces: tuple[_Piece, ...]

    def without(self, removed: Tensor) -> Factored:
        """Take weights from the free ones; costs only their columns where those are fewer than the others.

        Args:
            removed: (P,) bool, True where a weight is no longer free.

        Returns:
            The decomposition over the free weights that are left.
        """
        free, pieces = self.free & ~removed, []
        for p in self.pieces:
            gone = removed[p.columns]
            columns, rows = p.columns[~gone], p.rows[:, ~gone]
            gram = p.gram - _gram(p.rows[:, gone]) if 2 * int(gone.sum()) < len(gone) else _gram(rows)
            pieces.append(_Piece.of(p.part, columns, rows, gram))
        return Factored(self.metric, free, tuple(pieces))

    def change(self, prescribed: Tensor, gradient: Tensor, damping: float) -> Tensor:
        """Minimise m(δ) over the free weights, exactly.

        Args:
            prescribed: (P,) the changes of weights that are not free; entries at free weights are not read.
            gradient: g (P,).
            damping: γ > 0.

        Returns:
            δ (P,), float64: as prescribed where weights are not free, the optimum elsewhere.
        """
        n = self.metric.n
        out = torch.where(self.free, torch.zeros_like(prescribed), prescribed).double()
        for p in self.pieces:
            g = gradient[p.columns].double()
            pushed = _push(self.metric.rows[:, p.part], out[p.part])  # free entries are still zero
            row = p.solve(pushed - _push(p.rows, g) / damping, damping, n)
            out[p.columns] = -_pull(p.rows, row) - g / damping
        return out

    def inverse_diagonal(self, damping: float) -> Tensor:
        """Compute the diagonal of (F+γI)_KK⁻¹, exactly.

        Args:
            damping: γ > 0.

        Returns:
            (P,), float64; zero at weights that are not free.
        """
        n = self.metric.n
        out = torch.zeros(self.metric.size, dtype=torch.float64, device=self.free.device)
        for p in self.pieces:
            root = (p.vectors / (p.values + n * damping).sqrt()).to(p.rows.dtype)
            for s in _slices(len(p.columns)):
                taken = (root.t() @ p.rows[:, s]).double().square().sum(0)
                out[p.columns[s]] = (1 - taken).clamp_min(1e-12) / damping
        return out


def _gram(rows: Tensor) -> Tensor:
    """G Gᵀ: products in the rows' dtype, sums in float64."""
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for s in _slices(rows.shape[1]):
        piece = rows[:, s]
        gram += piece @ piece.t()
    return gram


def _push(rows: Tensor, v: Tensor) -> Tensor:
    """G v, float64."""
    out = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for s in _slices(rows.shape[1]):
        out += rows[:, s].double() @ v[s].double()
    return out


def _pull(rows: Tensor, w: Tensor) -> Tensor:
    """Gᵀ w, float64."""
    out = [w @ rows[:, s].double() for s in _slices(rows.shape[1])]
    return torch.cat(out) if out else torch.zeros(0, dtype=torch.float64, device=rows.device)


def _slices(count: int) -> Iterator[slice]:
    for start in range(0, count, _COLUMNS):
        yield slice(start, min(count, start + _COLUMNS))
