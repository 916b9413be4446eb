"""The implicit representation: exact products F v only; functions of F by Lanczos, traces by random probes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from memspace.metric.conjugate import solve_damped
from memspace.metric.density import Density, spectral_density
from memspace.metric.krylov import (
    Eigenpairs,
    Operator,
    lanczos,
    mean_and_error,
    rademacher,
    top_eigenpairs,
)
from memspace.metric.metric import Estimate, FisherMetric, SpectralFunction
from memspace.metric.trace import hutchinson
from memspace.metric.trust import SOLUTION, beyond

__all__ = ["Density", "Implicit", "spectral_density"]

BASES = 2**27  # numbers of Lanczos bases held at a time (1 GiB)


@dataclass(frozen=True)
class Implicit(FisherMetric):
    """F known by products alone.

    Args:
        operator: v ↦ F v on stacks (k, P), float64.
        size: P.
        probes: Rademacher probes of a trace.
        steps: Lanczos steps of a function of F.
        seed: of the probes.
        kind: of the cotangents (see ``memspace.passes.kinds``).
        representation: its name.
    """

    operator: Operator = field(repr=False)
    size: int
    probes: int = 16
    steps: int = 64
    seed: int = 0
    kind: str = "exact"
    representation: str = "implicit"

    def matvec(self, v: Tensor) -> Tensor:
        """Multiply by F, exactly."""
        return self.operator(v.reshape(-1, self.size)).reshape(v.shape).to(v.dtype)

    def solve(self, v: Tensor, damping: float) -> Tensor:
        """Solve by conjugate gradients until the estimated error, relative in the norm of F, is 1e-6 (float64).

        A warning names an error that stays too large for scores (``trust.SOLUTION``).
        """
        self._positive(damping)
        flat = v.reshape(-1, self.size)
        solution = solve_damped(self.operator, flat, damping, basis=BASES // 4)
        worst = float(solution.error.max()) if len(flat) else 0.0
        if worst > SOLUTION:
            sentence = beyond(worst, SOLUTION, f"the relative error of a solve at the damping {damping:.2g}")
            warnings.warn(f"{sentence}: use the representation dual, or more damping", RuntimeWarning, stacklevel=2)
        return solution.x.reshape(v.shape).to(v.dtype)

    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """Apply a function of F by Lanczos from v; exact when the Krylov space closes within ``steps``."""
        out = []
        for part in self._parts(v.reshape(-1, self.size)):
            for x, t in zip(part, lanczos(self.operator, part, min(self.steps, self.size)), strict=True):
                out.append(x.double().norm() * (t.basis.t() @ (t.vectors @ (fn(t.nodes) * t.vectors[0]))))
        return torch.stack(out).reshape(v.shape).to(v.dtype)

    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """Estimate a trace over Rademacher probes (Hutchinson 1989, Ubaru et al. 2017), unbiased but for quadrature."""
        generator = torch.Generator().manual_seed(self.seed)
        if fn is None:
            return hutchinson(self.operator, self.size, self.probes, generator)
        values = []
        for part in self._parts(rademacher(self.probes, self.size, generator)):
            for t in lanczos(self.operator, part, min(self.steps, self.size)):
                values.append(self.size * float((t.weights * fn(t.nodes)).sum()))
        mean, error = mean_and_error(values)
        return Estimate(mean, error, self.probes, self.probes - 1)

    def eigenvalues(self) -> Tensor:
        """Return the leading Ritz values of one Lanczos run; the largest converge first."""
        generator = torch.Generator().manual_seed(self.seed)
        z = torch.randn(1, self.size, generator=generator, dtype=torch.float64)
        return lanczos(self.operator, z, min(self.steps, self.size))[0].nodes.flip(0)

    def eigh(self, k: int, *, tolerance: float = 1e-2, limit: int = 500) -> Eigenpairs:
        """Find eigenpairs by block Lanczos from a random block; see ``top_eigenpairs``.

        The block is narrow: that takes fewer products in all, at little more time per product.

        Args:
            k: how many.
            tolerance: on ‖F v − λ v‖/λ of every pair.
            limit: products at most.

        Returns:
            The pairs, with their residuals.
        """
        generator = torch.Generator().manual_seed(self.seed)
        start = torch.randn(min(self.size, max(4, k // 5)), self.size, generator=generator, dtype=torch.float64)
        return top_eigenpairs(self.operator, start, k, tolerance=tolerance, limit=limit)

    def _parts(self, stack: Tensor) -> Iterator[Tensor]:
        """Groups of vectors whose Lanczos bases fit into memory together."""
        return iter(torch.split(stack, max(1, BASES // (min(self.steps, self.size) * self.size))))
