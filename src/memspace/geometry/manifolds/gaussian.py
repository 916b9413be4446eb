"""Normal laws: of one variable (hyperbolic plane, curvature −½) and of independent ones (a product of such planes)."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.geometry.manifolds.constant import ConstantCurvature
from memspace.geometry.manifolds.product import Product

__all__ = ["DiagonalNormal", "Normal"]


class Normal(ConstantCurvature):
    """N(μ, σ²), coordinates (μ, σ): ds² = (dμ² + 2 dσ²)/σ² (Rao 1945; Atkinson & Mitchell 1981).

    With m = μ/√2 it is twice the half-plane's metric; on the hyperboloid of ⟨X, X⟩ = −2 the point is
    √2·((1 + m² + σ²)/2σ, (m² + σ² − 1)/2σ, m/σ).
    """

    def __init__(self) -> None:
        self.size, self.curvature = 2, -0.5

    def embed(self, x: Tensor) -> Tensor:
        """Timelike coordinate first."""
        m, s = x[0] / 2**0.5, x[1]
        squared = m * m + s * s
        return 2**0.5 * torch.stack([(squared + 1) / (2 * s), (squared - 1) / (2 * s), m / s])

    def metric(self, x: Tensor) -> Tensor:
        """diag(1, 2)/σ²."""
        return torch.diag(torch.tensor([1.0, 2.0]).to(x)) / x[1].square()

    def unembed(self, point: Tensor) -> Tensor:
        """1/σ = (X₀ − X₁)/√2, μ = X₂·σ."""
        s = 2**0.5 / (point[0] - point[1])
        return torch.stack([point[2] * s, s])


class DiagonalNormal(Product):
    """n independent normals, coordinates (μ₁, σ₁, …, μ_n, σ_n).

    Args:
        n: number of variables.
    """

    def __init__(self, n: int) -> None:
        super().__init__(tuple(Normal() for _ in range(n)))
