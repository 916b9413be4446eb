"""The Fisher metric at one point: something that applies a function of F to a vector and takes its trace."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.errors import SettingsError
from memspace.intervals import around
from memspace.metric.krylov import Eigenpairs
from memspace.passes.coverage import Coverage

__all__ = ["Estimate", "Fidelity", "FisherMetric", "SpectralFunction"]

SpectralFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error (0 where exact for this representation) and sample size.

    ``df``: degrees of freedom behind the standard error, probes less one; None for many.
    """

    value: float
    standard_error: float = 0.0
    n: int = 1
    df: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval by Student's t, or None where exact, or where one probe gives no error."""
        if self.standard_error == 0 or not math.isfinite(self.standard_error):
            return None
        return around(self.value, self.standard_error, self.df)


@dataclass(frozen=True)
class Fidelity:
    """How far a representation is from the exact F, measured on random probes.

    Args:
        relative_error: √(Σ‖(F̂−F)v‖² / Σ‖Fv‖²), an estimate of the relative Frobenius error.
        standard_error: of that, over probes.
        trace_ratio: tr F̂ / tr F.
        probes: how many.
    """

    relative_error: float
    standard_error: float
    trace_ratio: float
    probes: int


class FisherMetric(ABC):
    """F = (1/N) Σ Jᵀ H J at one point, immutable. Vectors are flat (P,) or batched (..., P).

    ``damping`` always means exactly (F + λI)⁻¹. Results have the dtype float64 where a solve or a log-determinant
    needs it; the vector's dtype is given back.

    Args:
        size: P.
        kind: ``exact``, ``mc``, ``topk`` or ``empirical`` (see ``memspace.passes.kinds``): which F it is.
        coverage: what share of the parameters was read, and how, where it was built from a network.
    """

    coverage: Coverage | None = None

    size: int
    kind: str
    representation: str

    @abstractmethod
    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """fn(F) v, fn acting on eigenvalues (elementwise, for tensors of eigenvalues ≥ 0)."""

    @abstractmethod
    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """tr fn(F) over all P eigenvalues (zero ones included); tr F without ``fn``."""

    def matvec(self, v: Tensor) -> Tensor:
        """F v."""
        return self.apply(lambda x: x, v)

    def solve(self, v: Tensor, damping: float) -> Tensor:
        """(F + λI)⁻¹ v, λ > 0."""
        self._positive(damping)
        return self.apply(lambda x: 1 / (x + damping), v)

    def inner(self, u: Tensor, v: Tensor) -> Tensor:
        """uᵀ F v over the last axis."""
        return (u * self.matvec(v)).sum(-1)

    def norm(self, v: Tensor) -> Tensor:
        """√(vᵀ F v): the length of v in nats^½."""
        return self.inner(v, v).clamp_min(0).sqrt()

    def logdet(self, damping: float) -> Estimate:
        """Log det(F + λI), nats."""
        self._positive(damping)
        return self.trace(lambda x: torch.log(x + damping))

    def effective_dimension(self, damping: float) -> Estimate:
        """tr F(F+λI)⁻¹: the number of directions the data determine (MacKay 1992)."""
        self._positive(damping)
        return self.trace(lambda x: x / (x + damping))

    def sample(self, damping: float, generator: torch.Generator, count: int = 1) -> Tensor:
        """Draws from N(0, (F + λI)⁻¹), (count, P)."""
        self._positive(damping)
        z = torch.randn(count, self.size, generator=generator, dtype=torch.float64)
        return self.apply(lambda x: torch.rsqrt(x + damping), z)

    def to_dense(self) -> Tensor:
        """F as a (P, P) float64 matrix: for checks on small networks."""
        return self.matvec(torch.eye(self.size, dtype=torch.float64))

    def diagonal(self) -> Tensor:
        """Diag F, (P,)."""
        return self.to_dense().diagonal()

    @abstractmethod
    def eigenvalues(self) -> Tensor:
        """The representation's eigenvalues, largest first; zeros of an exact null space are left out."""

    @abstractmethod
    def eigh(self, k: int) -> Eigenpairs:
        """The k largest eigenpairs; fewer where the rest is an exact null space."""

    @staticmethod
    def _positive(damping: float) -> None:
        if not (damping > 0 and math.isfinite(damping)):
            raise SettingsError(
                f"damping must be a positive finite number, got {damping}", where="damping", remedy="give such a one"
            )
