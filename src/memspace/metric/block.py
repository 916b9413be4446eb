"""F without the entries between blocks: a dense matrix per block of the parameter space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.metric.krylov import Eigenpairs
from memspace.metric.metric import Estimate, FisherMetric, SpectralFunction
from memspace.metric.spectral import Dense
from memspace.passes.layers.block import Block

__all__ = ["BlockDiagonal", "DenseBlock"]


@dataclass(frozen=True)
class DenseBlock:
    """One block of the parameter space with its matrix.

    Args:
        block: where its parameters lie.
        metric: F of the block alone.
    """

    block: Block
    metric: Dense


@dataclass(frozen=True)
class BlockDiagonal(FisherMetric):
    """Block-diagonal F, dense within blocks (float64): exact inside every block and in the trace, zero between blocks.

    Args:
        blocks: in the order of the flat layout.
        kind: of the cotangents (see ``memspace.passes.kinds``).
        representation: its name.
        sampling: standard error of tr F from labels drawn, where measured.
    """

    blocks: tuple[DenseBlock, ...]
    kind: str = "exact"
    representation: str = "block"
    sampling: float = 0.0

    @property
    def size(self) -> int:  # type: ignore[override]
        """Number of parameters P."""
        return self.blocks[-1].block.stop

    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """Apply a function of the represented matrix, exactly."""
        return torch.cat([b.metric.apply(fn, v[..., b.block.start : b.block.stop]) for b in self.blocks], -1)

    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """Trace the represented matrix, exactly; without ``fn`` with the error of sampled labels."""
        value = sum(b.metric.trace(fn).value for b in self.blocks)
        return Estimate(value, 0.0 if fn else self.sampling)

    def diagonal(self) -> Tensor:
        """Return the diagonal of F, exact."""
        return torch.cat([b.metric.vectors.square() @ b.metric.values for b in self.blocks])

    def eigenvalues(self) -> Tensor:
        """Return all P eigenvalues, zeros among them."""
        return torch.cat([b.metric.values for b in self.blocks]).sort(descending=True).values

    def eigh(self, k: int) -> Eigenpairs:
        """Return eigenpairs of the represented matrix, exact; every vector is zero outside one block."""
        pairs = [b.metric.eigh(k) for b in self.blocks]
        values, order = torch.cat([p.values for p in pairs]).topk(min(k, self.size))
        vectors = torch.block_diag(*[p.vectors for p in pairs])[order]  # type: ignore[no-untyped-call]
        return Eigenpairs.exact(values, vectors)
