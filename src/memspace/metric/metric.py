"""The Fisher metric at one point: apply a function of F to a vector, take the trace of a function of F."""

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
    """A number with its standard error.

    Args:
        value: the number.
        standard_error: of it; 0 where it is exact for this representation.
        n: sample size.
        df: degrees of freedom behind the standard error, probes less one; None for many.
    """

    value: float
    standard_error: float = 0.0
    n: int = 1
    df: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval by Student's t; None where the number is exact, or where one probe gives no error."""
        if self.standard_error == 0 or not math.isfinite(self.standard_error):
            return None
        return around(self.value, self.standard_error, self.df)


@dataclass(frozen=True)
class Fidelity:
    """Distance of a representation from the exact F, measured on random probes.

    Args:
        relative_error: √(Σ‖(F̂−F)v‖² / Σ‖Fv‖²), an estimate of the relative Frobenius error.
        standard_error: of that, over probes.
        trace_ratio: tr F̂ / tr F.
        probes: number of probes.
    """

    relative_error: float
    standard_error: float
    trace_ratio: float
    probes: int


class FisherMetric(ABC):
    """F = (1/N) Σ Jᵀ H J at one point, immutable. Vectors are flat (P,) or batched (..., P).

    ``damping`` γ always means exactly (F + γI)⁻¹. Solves and log-determinants are computed in float64; vectors come
    back in the dtype they were given in.

    Attributes:
        size: number of parameters P.
        kind: ``exact``, ``mc``, ``topk`` or ``empirical`` (see ``memspace.passes.kinds``): which F it is.
        representation: its name.
        coverage: share of the parameters that was read, and how; None where it was not built from a network.
    """

    coverage: Coverage | None = None

    size: int
    kind: str
    representation: str

    @abstractmethod
    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """Apply a function of F to vectors.

        Args:
            fn: elementwise function of eigenvalues ≥ 0.
            v: (..., P).

        Returns:
            fn(F) v (..., P), in the dtype of ``v``.
        """

    @abstractmethod
    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """Take the trace of a function of F over all P eigenvalues, zeros included.

        Args:
            fn: elementwise function of eigenvalues ≥ 0; None: tr F, nats.

        Returns:
            tr fn(F) with its standard error.
        """

    def matvec(self, v: Tensor) -> Tensor:
        """Multiply vectors by F.

        Args:
            v: (..., P).

        Returns:
            F v (..., P).
        """
        return self.apply(lambda x: x, v)

    def solve(self, v: Tensor, damping: float) -> Tensor:
        """Solve (F + γI) x = v.

        Args:
            v: (..., P).
            damping: γ > 0.

        Returns:
            X (..., P).

        Raises:
            SettingsError: the damping is not a positive finite number.
        """
        self._positive(damping)
        return self.apply(lambda x: 1 / (x + damping), v)

    def inner(self, u: Tensor, v: Tensor) -> Tensor:
        """Compute inner products uᵀ F v.

        Args:
            u: (..., P).
            v: (..., P).

        Returns:
            (...,), nats.
        """
        return (u * self.matvec(v)).sum(-1)

    def norm(self, v: Tensor) -> Tensor:
        """Compute lengths √(vᵀ F v).

        Args:
            v: (..., P).

        Returns:
            (...,), nats^½.
        """
        return self.inner(v, v).clamp_min(0).sqrt()

    def logdet(self, damping: float) -> Estimate:
        """Compute log det(F + γI).

        Args:
            damping: γ > 0.

        Returns:
            Nats, with the standard error.

        Raises:
            SettingsError: the damping is not a positive finite number.
        """
        self._positive(damping)
        return self.trace(lambda x: torch.log(x + damping))

    def effective_dimension(self, damping: float) -> Estimate:
        """Compute tr F(F + γI)⁻¹, the number of directions that the data determine (MacKay 1992).

        Args:
            damping: γ > 0.

        Returns:
            A number of directions between 0 and P, with the standard error.

        Raises:
            SettingsError: the damping is not a positive finite number.
        """
        self._positive(damping)
        return self.trace(lambda x: x / (x + damping))

    def sample(self, damping: float, generator: torch.Generator, count: int = 1) -> Tensor:
        """Draw from N(0, (F + γI)⁻¹).

        Args:
            damping: γ > 0.
            generator: of random numbers.
            count: number of draws.

        Returns:
            (count, P), float64.

        Raises:
            SettingsError: the damping is not a positive finite number.
        """
        self._positive(damping)
        z = torch.randn(count, self.size, generator=generator, dtype=torch.float64)
        return self.apply(lambda x: torch.rsqrt(x + damping), z)

    def to_dense(self) -> Tensor:
        """Return F as a matrix, for checks on small networks.

        Returns:
            (P, P), float64.
        """
        return self.matvec(torch.eye(self.size, dtype=torch.float64))

    def diagonal(self) -> Tensor:
        """Return the diagonal of F.

        Returns:
            (P,), nats.
        """
        return self.to_dense().diagonal()

    @abstractmethod
    def eigenvalues(self) -> Tensor:
        """Return the representation's eigenvalues.

        Returns:
            Largest first; zeros of an exact null space are left out.
        """

    @abstractmethod
    def eigh(self, k: int) -> Eigenpairs:
        """Return the largest eigenpairs.

        Args:
            k: how many.

        Returns:
            K pairs; fewer where the rest is an exact null space.
        """

    @staticmethod
    def _positive(damping: float) -> None:
        if not (damping > 0 and math.isfinite(damping)):
            raise SettingsError(
                f"damping must be a positive finite number, got {damping}",
                where="damping",
                remedy="give a number above 0",
            )
