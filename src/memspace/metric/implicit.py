"""The implicit representation: exact products F v only; every function of F by Lanczos, every trace by probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from memspace.metric.krylov import conjugate_gradients, lanczos, mean_and_error, rademacher
from memspace.metric.metric import Estimate, FisherMetric, SpectralFunction

__all__ = ["Density", "Implicit", "spectral_density"]


@dataclass(frozen=True)
class Implicit(FisherMetric):
    """F known by products alone.

    Args:
        operator: v (P,) → F v (P,), float64.
        size: P.
        probes: Rademacher probes of a trace; ``steps``: Lanczos steps of a function of F.
        seed: of the probes.
    """

    operator: Callable[[Tensor], Tensor] = field(repr=False)
    size: int
    probes: int = 16
    steps: int = 64
    seed: int = 0
    kind: str = "exact"
    representation: str = "implicit"

    def matvec(self, v: Tensor) -> Tensor:
        """Exact."""
        flat = v.reshape(-1, self.size)
        return torch.stack([self.operator(x) for x in flat]).reshape(v.shape).to(v.dtype)

    def solve(self, v: Tensor, damping: float) -> Tensor:
        """By conjugate gradients to 1e-8 relative residual (float64)."""
        self._positive(damping)
        out = []
        for x in v.reshape(-1, self.size):
            solution = conjugate_gradients(lambda p: self.operator(p) + damping * p, x, tolerance=1e-8)
            out.append(solution.x)
        return torch.stack(out).reshape(v.shape).to(v.dtype)

    def apply(self, fn: SpectralFunction, v: Tensor) -> Tensor:
        """By Lanczos from v; exact when the Krylov space closes within ``steps``."""
        out = []
        for x in v.reshape(-1, self.size):
            t = lanczos(self.operator, x, min(self.steps, self.size))
            weights = t.vectors @ (fn(t.nodes) * t.vectors[0])
            out.append(x.double().norm() * (t.basis.t() @ weights))
        return torch.stack(out).reshape(v.shape).to(v.dtype)

    def trace(self, fn: SpectralFunction | None = None) -> Estimate:
        """Unbiased up to the quadrature; standard error over Rademacher probes (Hutchinson 1989; Ubaru et al. 2017)."""
        generator = torch.Generator().manual_seed(self.seed)
        values = []
        for z in rademacher(self.probes, self.size, generator):
            if fn is None:
                values.append(float(z @ self.operator(z)))
            else:
                t = lanczos(self.operator, z, min(self.steps, self.size))
                values.append(self.size * float((t.weights * fn(t.nodes)).sum()))
        mean, error = mean_and_error(values)
        return Estimate(mean, error, self.probes)

    def eigenvalues(self) -> Tensor:
        """Leading Ritz values of one Lanczos run (the largest converge first)."""
        generator = torch.Generator().manual_seed(self.seed)
        z = torch.randn(self.size, generator=generator, dtype=torch.float64)
        return lanczos(self.operator, z, min(self.steps, self.size)).nodes.flip(0)


@dataclass(frozen=True)
class Density:
    """Quadratures of several probes: the spectrum as weighted nodes, with spread over probes as its error."""

    nodes: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    size: int

    def integrate(self, fn: SpectralFunction) -> Estimate:
        """Tr fn(F) with its standard error over probes."""
        values = [self.size * float((w * fn(x)).sum()) for x, w in zip(self.nodes, self.weights, strict=True)]
        mean, error = mean_and_error(values)
        return Estimate(mean, error, len(values))


def spectral_density(operator: Callable[[Tensor], Tensor], size: int, *, probes: int, steps: int, seed: int) -> Density:
    """Stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017)."""
    generator = torch.Generator().manual_seed(seed)
    nodes, weights = [], []
    for z in rademacher(probes, size, generator):
        t = lanczos(operator, z, min(steps, size))
        nodes.append(t.nodes)
        weights.append(t.weights)
    return Density(tuple(nodes), tuple(weights), size)
