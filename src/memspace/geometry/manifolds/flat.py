"""Flat manifolds in curved or slanted charts: coordinates exist in which geodesics are straight lines."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.func import jacfwd

from memspace.geometry.manifold import KnownManifold

__all__ = ["Bernoullis", "Flat", "LinearGaussian"]


class Flat(KnownManifold):
    """Isometric to an open set of flat space by :meth:`straighten`."""

    @abstractmethod
    def straighten(self, x: Tensor) -> Tensor:
        """Give the flat coordinates of a point.

        Args:
            x: point (d,).

        Returns:
            (d,), differentiable in x.
        """

    @abstractmethod
    def bend(self, flat: Tensor) -> Tensor:
        """Invert :meth:`straighten`.

        Args:
            flat: flat coordinates (d,).

        Returns:
            x (d,).
        """

    def _frame(self, x: Tensor) -> Tensor:
        frame: Tensor = jacfwd(self.straighten)(x)
        return frame

    def metric(self, x: Tensor) -> Tensor:
        """AᵀA of the map's Jacobian A."""
        frame = self._frame(x)
        return frame.t() @ frame

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """‖straighten(x) − straighten(y)‖."""
        out: Tensor = (self.straighten(x) - self.straighten(y)).norm()
        return out

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """Straight on in flat coordinates."""
        return self.bend(self.straighten(x) + self._frame(x) @ v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """The difference of flat coordinates, in the chart."""
        out: Tensor = torch.linalg.solve(self._frame(x), self.straighten(y) - self.straighten(x))
        return out

    def transport(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """The same vector in flat coordinates, whatever the path."""
        out: Tensor = torch.linalg.solve(self._frame(self.exp(x, v)), self._frame(x) @ w)
        return out

    def sectional(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(x[0])

    def scalar(self, x: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(x[0])


class Bernoullis(Flat):
    """d independent binary variables, coordinates p: a cube of side π in 2·arcsin√p.

    Args:
        n: number of variables d.
    """

    def __init__(self, n: int) -> None:
        self.size = n

    def metric(self, x: Tensor) -> Tensor:
        """diag(1/(p(1−p)))."""
        return torch.diag(1 / (x * (1 - x)))

    def straighten(self, x: Tensor) -> Tensor:
        """2 arcsin √p."""
        return 2 * torch.asin(x.sqrt())

    def bend(self, flat: Tensor) -> Tensor:
        """sin² of the half; the cube's border reflects."""
        return torch.sin(flat / 2).square()


class LinearGaussian(Flat):
    """Means Xθ of n observations with noise σ, coordinates θ: F = XᵀX/(nσ²) everywhere.

    Args:
        inputs: X (n, d), of full rank.
        sigma: σ.
    """

    def __init__(self, inputs: Tensor, sigma: float = 1.0) -> None:
        self.size = inputs.shape[1]
        # The square root of F: X itself has n rows.
        self._fisher = inputs.t() @ inputs / (len(inputs) * sigma**2)
        values, vectors = torch.linalg.eigh(self._fisher)
        self._root = vectors * values.sqrt() @ vectors.t()

    def metric(self, x: Tensor) -> Tensor:
        """F, whatever the point (written so that its derivative exists)."""
        return self._fisher + 0 * x.sum()

    def straighten(self, x: Tensor) -> Tensor:
        """F^½ θ."""
        out: Tensor = self._root @ x
        return out

    def bend(self, flat: Tensor) -> Tensor:
        """F^{-½} of the flat coordinates."""
        out: Tensor = torch.linalg.solve(self._root, flat)
        return out
