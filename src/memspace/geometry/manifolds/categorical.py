"""Class probabilities: an octant of the sphere of radius 2, curvature ¼ (Rao 1945)."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.geometry.manifolds.constant import ConstantCurvature

__all__ = ["Simplex"]


class Simplex(ConstantCurvature):
    """Probabilities of K = d + 1 classes; coordinates are the first d. d(p, q) = 2 arccos Σ√(p q) ≤ π.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        self.size, self.curvature = classes - 1, 0.25

    def embed(self, x: Tensor) -> Tensor:
        """2√p."""
        return 2 * torch.cat([x, 1 - x.sum().unsqueeze(0)]).sqrt()

    def metric(self, x: Tensor) -> Tensor:
        """diag(1/p) over the first d classes, plus 1/p of the last everywhere."""
        return torch.diag(1 / x) + 1 / (1 - x.sum())

    def unembed(self, point: Tensor) -> Tensor:
        """p = (X/2)²; the octant's border reflects."""
        return (point / 2).square()[:-1]
