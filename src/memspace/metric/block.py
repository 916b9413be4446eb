"""F without what joins its blocks: a dense matrix per block of the parameter space."""

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
    """One block of the parameter space with its own matrix."""

    block: Block
    metric: Dense


@dataclass(frozen=True)
class BlockDiagonal(FisherMetric):
    """Block-diagonal F, dense within blocks (float64): biased between blocks, exact inside each and in the trace."""

    blocks: tuple[DenseBlock, ...]
    kind: str = "exact"
    representation: str = "block"
    sampling: float = 0.0

    @property
    def size(self) -> int:  # type: ignore[override]
        """Number of parameters P."""
        return self.blocks[-1].block.stop

    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """Exact for the represented matrix."""
        return torch.cat([b.metric.apply(fn, v[..., b.block.start : b.block.stop]) for b in self.blocks], -1)

    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """Exact for the represented matrix; without ``fn`` with the error of sampled labels."""
        value = sum(b.metric.trace(fn).value for b in self.blocks)
        return Estimate(value, 0.0 if fn else self.sampling)

    def diagonal(self) -> Tensor:
        """Exact diagonal of F."""
        return torch.cat([b.metric.vectors.square() @ b.metric.values for b in self.blocks])

    def eigenvalues(self) -> Tensor:
        """All P."""
        return torch.cat([b.metric.values for b in self.blocks]).sort(descending=True).values

    def eigh(self, k: int) -> Eigenpairs:
        """Exact for the represented matrix; each vector lives in one block."""
        found = [b.metric.eigh(k) for b in self.blocks]
        values, order = torch.cat([f.values for f in found]).topk(min(k, self.size))
        vectors = torch.block_diag(*[f.vectors for f in found])[order]  # type: ignore[no-untyped-call]
        return Eigenpairs.exact(values, vectors)
