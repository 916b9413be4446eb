"""Representations with a stored spectrum: dense, diagonal, and Kronecker blocks (KFAC and EKFAC)."""

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
        vectors: (P, P) eigenvectors, in columns.
        values: (P,) eigenvalues, ascending.
        kind: of the cotangents (see ``memspace.passes.kinds``).
        representation: its name.
        sampling: standard error of tr F from labels drawn, where measured.
    """

    vectors: Tensor
    values: Tensor
    kind: str = "exact"
    representation: str = "dense"
    sampling: float = 0.0

    @staticmethod
    def of(matrix: Tensor, kind: str = "exact", sampling: float = 0.0) -> Dense:
        """Decompose a matrix.

        Args:
            matrix: F (P, P).
            kind: of the cotangents.
            sampling: standard error of tr F from labels drawn.

        Returns:
            The metric; eigenvalues below zero are rounding and set to 0.
        """
        values, vectors = torch.linalg.eigh(matrix.double())
        return Dense(vectors, values.clamp_min(0), kind, sampling=sampling)

    @property
    def size(self) -> int:  # type: ignore[override]
        """Number of parameters P."""
        return len(self.values)

    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """Apply a function of F, exactly."""
        return ((v.double() @ self.vectors) * fn(self.values) @ self.vectors.t()).to(v.dtype)

    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """Trace F, exactly; without ``fn`` with the error of sampled labels."""
        return _trace(fn, [self.values], self.sampling)

    def eigenvalues(self) -> Tensor:
        """Return all P eigenvalues, zeros among them."""
        return self.values.flip(0)

    def eigh(self, k: int) -> Eigenpairs:
        """Return eigenpairs, exact."""
        return Eigenpairs.exact(self.values.flip(0)[:k], self.vectors.flip(1)[:, :k].t())


@dataclass(frozen=True)
class Diagonal(FisherMetric):
    """The diagonal of F: exact there, zero elsewhere.

    Args:
        values: (P,).
        kind: of the cotangents (see ``memspace.passes.kinds``).
        representation: its name.
        sampling: standard error of tr F from labels drawn, where measured.
    """

    values: Tensor
    kind: str = "exact"
    representation: str = "diagonal"
    sampling: float = 0.0

    @property
    def size(self) -> int:  # type: ignore[override]
        """Number of parameters P."""
        return len(self.values)

    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """Apply a function of the diagonal, exactly."""
        return (v * fn(self.values)).to(v.dtype)

    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """Trace the diagonal, exactly; without ``fn`` with the error of sampled labels."""
        return _trace(fn, [self.values], self.sampling)

    def diagonal(self) -> Tensor:
        """Return the diagonal of F, exact."""
        return self.values

    def eigenvalues(self) -> Tensor:
        """Return the diagonal, sorted."""
        return self.values.sort(descending=True).values

    def eigh(self, k: int) -> Eigenpairs:
        """Return the largest entries with their unit vectors."""
        values, at = self.values.double().topk(min(k, self.size))
        vectors = torch.zeros(len(at), self.size, dtype=torch.float64, device=at.device)
        vectors[torch.arange(len(at)), at] = 1
        return Eigenpairs.exact(values, vectors)


@dataclass(frozen=True)
class KroneckerBlock:
    """One block: eigenvalues in Kronecker bases.

    Args:
        block: where its parameters lie.
        bases: eigenvectors of both factors.
        values: (out, in) eigenvalues.
    """

    block: Block
    bases: Bases
    values: Tensor


@dataclass(frozen=True)
class Kronecker(FisherMetric):
    """Block-diagonal F in Kronecker eigenbases (biased: no correlations between blocks or outside the bases).

    Args:
        blocks: in the order of the flat layout.
        corrected: False: eigenvalues are products of the factors' (KFAC, Martens & Grosse 2015); True: second moments
            of the rotated gradients (EKFAC, George et al. 2018), which makes the trace exact.
        kind: of the cotangents (see ``memspace.passes.kinds``).
        sampling: standard error of tr F from labels drawn, where measured.
    """

    blocks: tuple[KroneckerBlock, ...]
    corrected: bool
    kind: str = "exact"
    sampling: float = 0.0

    @property
    def representation(self) -> str:  # type: ignore[override]
        """``EKFAC`` or ``KFAC``."""
        return "EKFAC" if self.corrected else "KFAC"

    @property
    def size(self) -> int:  # type: ignore[override]
        """Number of parameters P."""
        return self.blocks[-1].block.stop

    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """Apply a function of the represented matrix, exactly."""
        out = torch.empty_like(v)
        for part in self.blocks:
            matrix = part.block.view(v).to(part.values.dtype)
            rotated = part.bases.rotate(matrix) * fn(part.values)
            part.block.view(out).copy_(part.bases.back(rotated))
        return out

    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """Trace the represented matrix, exactly; without ``fn`` with the error of sampled labels."""
        return _trace(fn, [b.values for b in self.blocks], self.sampling)

    def eigenvalues(self) -> Tensor:
        """Return all P eigenvalues, zeros among them."""
        return torch.cat([b.values.flatten() for b in self.blocks]).sort(descending=True).values

    def diagonal(self) -> Tensor:
        """Return the diagonal of the represented matrix, exact: (U_g∘U_g) Λ (U_a∘U_a)ᵀ per block."""
        out = torch.empty(self.size, dtype=torch.float64, device=self.blocks[0].values.device)
        for part in self.blocks:
            out[part.block.start : part.block.stop] = part.bases.squared().back(part.values.double()).flatten()
        return out

    def eigh(self, k: int) -> Eigenpairs:
        """Return eigenpairs of the represented matrix, exact: outer products of the factors' eigenvectors."""
        values, at = torch.cat([b.values.double().flatten() for b in self.blocks]).topk(min(k, self.size))
        vectors = torch.zeros(len(at), self.size, dtype=torch.float64, device=at.device)
        for part in self.blocks:
            for row in ((at >= part.block.start) & (at < part.block.stop)).nonzero().flatten().tolist():
                i, j = divmod(int(at[row]) - part.block.start, part.block.shape[1])
                height = part.block.shape[0] // part.block.groups  # rows of a group
                left, right = (
                    _column(_of_group(part.bases.g, i // height), i % height, height),
                    _column(_of_group(part.bases.a, i // height), j, part.block.shape[1]),
                )
                first = part.block.start + i // height * height * part.block.shape[1]
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
