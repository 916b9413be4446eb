"""F by its products with a few random vectors: a low-rank matrix below F, with a bound on the difference.

F̂ = Y (Ωᵀ Y)⁺ Yᵀ with Y = F Ω: the projection of F^½ on the span of F^½ Ω. So 0 ⪯ F̂ ⪯ F, and no eigenvalue is above
that of F. Ω are the orthonormalised products of a Gaussian block (one step of subspace iteration), since a trained
network's eigenvalues decay slowly behind a few large ones (Halko et al. 2011, alg. 4.3, 5.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.metric.krylov import Eigenpairs, Operator
from memspace.metric.metric import Estimate, FisherMetric, SpectralFunction

__all__ = ["LowRank", "nystroem"]

PROBES = 6  # the bound fails with probability 10^-PROBES


@dataclass(frozen=True)
class LowRank(FisherMetric):
    """F̂ = Uᵀ diag(values) U ⪯ F.

    Args:
        vectors: U (r, P), orthonormal rows, float64.
        values: (r,), largest first.
        bound: on ‖F − F̂‖, the largest eigenvalue of the difference.
        missed: estimate of tr(F − F̂), from the same probes.
        products: number of products F v computed.
        chance: probability that the bound fails.
        kind: of the cotangents (see ``memspace.passes.kinds``).
        representation: its name.
    """

    vectors: Tensor
    values: Tensor
    bound: float
    missed: Estimate
    products: int
    chance: float = 10.0**-PROBES
    kind: str = "exact"
    representation: str = "nystroem"

    @property
    def size(self) -> int:  # type: ignore[override]
        """Number of parameters P."""
        return self.vectors.shape[1]

    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """Apply a function of the represented matrix, exactly; its null space gets fn(0)."""
        zero = fn(self.values.new_zeros(1))
        out = zero * v.double() + ((v.double() @ self.vectors.t()) * (fn(self.values) - zero)) @ self.vectors
        return out.to(v.dtype)

    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """Trace the represented matrix, exactly."""
        if fn is None:
            return Estimate(float(self.values.sum()))
        zero = float(fn(self.values.new_zeros(1)))
        return Estimate(float(fn(self.values).sum()) + zero * (self.size - len(self.values)))

    def diagonal(self) -> Tensor:
        """Return the diagonal of the represented matrix, exact."""
        return self.values @ self.vectors.square()

    def eigenvalues(self) -> Tensor:
        """Return the non-zero eigenvalues: below those of F, by ``bound`` at most (Weyl)."""
        return self.values

    def eigh(self, k: int) -> Eigenpairs:
        """Return eigenpairs of the represented matrix, exact; at most as many as its rank."""
        return Eigenpairs.exact(self.values[:k], self.vectors[:k])


def nystroem(
    operator: Operator, size: int, rank: int, *, seed: int, kind: str = "exact", rounding: float = 2.2e-16
) -> LowRank:
    """Build the Nyström representation from 2·rank products, and its bound from six more.

    For a fixed matrix E and r Gaussian vectors z, ‖E‖ ≤ 10 √(2/π) max ‖E z‖ with a probability of 1 − 10^-r (Halko et
    al. 2011, lemma 4.1), here with E = F − F̂ and vectors independent of F̂.

    Args:
        operator: v ↦ F v on stacks (k, P).
        size: P.
        rank: of F̂, at most.
        seed: of the random vectors.
        kind: of the cotangents.
        rounding: relative error of the products (the machine epsilon of the model's dtype); directions in which F is
            of that size are left out.

    Returns:
        F̂ with its bound.
    """
    generator = torch.Generator().manual_seed(seed)
    omega = torch.randn(rank, size, generator=generator, dtype=torch.float64)
    omega = torch.linalg.qr(operator(omega).double().t()).Q.t()  # (rank, P)
    y = operator(omega.contiguous()).double()
    core = omega @ y.t()
    d, turn = torch.linalg.eigh((core + core.t()) / 2)
    keep = d > max(rank * rounding, 1e-13) * float(d[-1].clamp_min(1e-300))
    half = (turn[:, keep] / d[keep].sqrt()).t() @ y  # F̂ = halfᵀ half
    _, singular, vectors = torch.linalg.svd(half, full_matrices=False)
    z = torch.randn(PROBES, size, generator=generator, dtype=torch.float64)
    rest = operator(z).double() - ((z @ vectors.t()) * singular.square()) @ vectors
    bound = 10 * math.sqrt(2 / math.pi) * float(rest.norm(dim=1).max())
    squares = (z * rest).sum(1)
    missed = Estimate(float(squares.mean()), float(squares.std() / math.sqrt(PROBES)), PROBES, PROBES - 1)
    return LowRank(vectors, singular.square(), bound, missed, 2 * rank + PROBES, kind=kind)
