"""Representations whose spectrum is at hand: dense, diagonal, and Kronecker blocks (KFAC and EKFAC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.metric.krylov import Eigenpairs
from memspace.metric.metric import Estimate, FisherMetric, SpectralFunction
from memspace.passes.forms.bases import Bases
from memspace.passes.layers.block import Block

__all__ = ["Dense", "Diagonal", "Kronecker", "KroneckerBlock"]


@dataclass(frozen=True)
class Dense(FisherMetric):
    """F by its eigendecomposition (float64): exact, for small networks or one block.

    Args:
        sampling: standard error of tr F from labels drawn, where measured (here and below).
    """

    vectors: Tensor
    values: Tensor
    kind: str = "exact"
    representation: str = "dense"
    sampling: float = 0.0

    @staticmethod
    def of(matrix: Tensor, kind: str = "exact", sampling: float = 0.0) -> Dense:
        """From F itself, (P, P)."""
        values, vectors = torch.linalg.eigh(matrix.double())
        return Dense(vectors, values.clamp_min(0), kind, sampling=sampling)

    @property
    def size(self) -> int:  # type: ignore[override]
        """Number of parameters P."""
        return len(self.values)

    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """Exact."""
        return ((v.double() @ self.vectors) * fn(self.values) @ self.vectors.t()).to(v.dtype)

    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """Exact for the matrix itself; without ``fn`` with the error of sampled labels."""
        return _trace(fn, [self.values], self.sampling)

    def eigenvalues(self) -> Tensor:
        """All P."""
        return self.values.flip(0)

    def eigh(self, k: int) -> Eigenpairs:
        """Exact."""
        return Eigenpairs.exact(self.values.flip(0)[:k], self.vectors.flip(1)[:, :k].t())


@dataclass(frozen=True)
class Diagonal(FisherMetric):
    """F without its off-diagonal: biased; exact for the diagonal itself."""

    values: Tensor
    kind: str = "exact"
    representation: str = "diagonal"
    sampling: float = 0.0

    @property
    def size(self) -> int:  # type: ignore[override]
        """Number of parameters P."""
        return len(self.values)

    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """Exact for the represented diagonal."""
        return (v * fn(self.values)).to(v.dtype)

    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """Exact for the represented diagonal; without ``fn`` with the error of sampled labels."""
        return _trace(fn, [self.values], self.sampling)

    def diagonal(self) -> Tensor:
        """Exact diagonal of F."""
        return self.values

    def eigenvalues(self) -> Tensor:
        """The diagonal, sorted."""
        return self.values.sort(descending=True).values

    def eigh(self, k: int) -> Eigenpairs:
        """Unit vectors."""
        values, at = self.values.double().topk(min(k, self.size))
        vectors = torch.zeros(len(at), self.size, dtype=torch.float64, device=at.device)
        vectors[torch.arange(len(at)), at] = 1
        return Eigenpairs.exact(values, vectors)


@dataclass(frozen=True)
class KroneckerBlock:
    """One block: eigenvalues (out, in) in Kronecker bases."""

    block: Block
    bases: Bases
    values: Tensor


@dataclass(frozen=True)
class Kronecker(FisherMetric):
    """Block-diagonal F in Kronecker eigenbases (biased: no correlations between blocks or outside the bases).

    Args:
        corrected: False: eigenvalues are products of the factors' (KFAC, Martens & Grosse 2015); True: second moments
            of the rotated gradients (EKFAC, George et al. 2018), which makes the trace exact.
    """

    blocks: tuple[KroneckerBlock, ...]
    corrected: bool
    kind: str = "exact"
    sampling: float = 0.0

    @property
    def representation(self) -> str:  # type: ignore[override]
        """Its usual name."""
        return "EKFAC" if self.corrected else "KFAC"

    @property
    def size(self) -> int:  # type: ignore[override]
        """Number of parameters P."""
        return self.blocks[-1].block.stop

    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """Exact for the represented matrix."""
        out = torch.empty_like(v)
        for part in self.blocks:
            matrix = part.block.view(v).to(part.values.dtype)
            rotated = part.bases.rotate(matrix) * fn(part.values)
            part.block.view(out).copy_(part.bases.back(rotated))
        return out

    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """Exact for the represented matrix; without ``fn`` with the error of sampled labels."""
        return _trace(fn, [b.values for b in self.blocks], self.sampling)

    def eigenvalues(self) -> Tensor:
        """All P."""
        return torch.cat([b.values.flatten() for b in self.blocks]).sort(descending=True).values

    def diagonal(self) -> Tensor:
        """Exact for the represented matrix: (U_g∘U_g) Λ (U_a∘U_a)ᵀ per block."""
        out = torch.empty(self.size, dtype=torch.float64, device=self.blocks[0].values.device)
        for part in self.blocks:
            out[part.block.start : part.block.stop] = part.bases.squared().back(part.values.double()).flatten()
        return out

    def eigh(self, k: int) -> Eigenpairs:
        """Exact for the represented matrix: outer products of the factors' eigenvectors."""
        values, at = torch.cat([b.values.double().flatten() for b in self.blocks]).topk(min(k, self.size))
        vectors = torch.zeros(len(at), self.size, dtype=torch.float64, device=at.device)
        for part in self.blocks:
            for row in ((at >= part.block.start) & (at < part.block.stop)).nonzero().flatten().tolist():
                i, j = divmod(int(at[row]) - part.block.start, part.block.shape[1])
                each = part.block.shape[0] // part.block.groups
                left, right = (
                    _column(_of_group(part.bases.g, i // each), i % each, each),
                    _column(_of_group(part.bases.a, i // each), j, part.block.shape[1]),
                )
                first = part.block.start + i // each * each * part.block.shape[1]
                vector = torch.outer(left.to(at.device), right.to(at.device)).flatten()
                vectors[row, first : first + len(vector)] = vector
        return Eigenpairs.exact(values, vectors)


def _trace(fn: SpectralFunction | None, values: Sequence[Tensor], sampling: float) -> Estimate:
    if fn is None:
        return Estimate(sum(float(v.sum()) for v in values), sampling)
    return Estimate(sum(float(fn(v).sum()) for v in values))


def _of_group(basis: Tensor | None, group: int) -> Tensor | None:
    return basis[group] if basis is not None and basis.dim() == 3 else basis


def _column(basis: Tensor | None, i: int, size: int) -> Tensor:
    """Column i of a basis, None standing for the identity; float64."""
    if basis is not None:
        return basis[:, i].double()
    unit = torch.zeros(size, dtype=torch.float64)
    unit[i] = 1
    return unit
