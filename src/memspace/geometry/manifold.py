"""Riemannian manifolds in one chart: a metric, and closed forms where there are any.

A point is a vector x (d,) of coordinates, a tangent vector v (d,) has the same coordinates. What holds for every
metric is numeric (``connection``, ``flow``, ``string``); what is known in closed form is :class:`KnownManifold`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

__all__ = ["KnownManifold", "Manifold"]


class Manifold(ABC):
    """A chart with a metric; ``size`` is its dimension d."""

    size: int

    @abstractmethod
    def metric(self, x: Tensor) -> Tensor:
        """Compute G(x), differentiable in x.

        Args:
            x: point (d,).

        Returns:
            (d, d), positive definite.
        """

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Compute uᵀ G(x) v.

        Args:
            x: point (d,).
            u: tangent vector (d,).
            v: tangent vector (d,).

        Returns:
            A scalar.
        """
        return u @ self.metric(x) @ v

    def norm(self, x: Tensor, v: Tensor) -> Tensor:
        """Compute √(vᵀ G(x) v).

        Args:
            x: point (d,).
            v: tangent vector (d,).

        Returns:
            A scalar.
        """
        return self.inner(x, v, v).clamp_min(0).sqrt()


class KnownManifold(Manifold):
    """A manifold whose geodesics are known: all is exact, in float64 to rounding."""

    @abstractmethod
    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Measure the shortest path.

        Args:
            x: point (d,).
            y: point (d,).

        Returns:
            Its length, a scalar.
        """

    @abstractmethod
    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """Follow the geodesic from x with velocity v for unit time.

        Args:
            x: point (d,).
            v: tangent vector (d,).

        Returns:
            The point reached, (d,).
        """

    @abstractmethod
    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """Find the velocity at x of the shortest geodesic that reaches y in unit time.

        Args:
            x: point (d,).
            y: point (d,).

        Returns:
            Tangent vector at x, (d,).
        """

    @abstractmethod
    def transport(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """Carry a vector parallel along the geodesic t ↦ exp(x, t v) from t = 0 to 1.

        Args:
            x: point (d,).
            v: velocity of the geodesic (d,).
            w: tangent vector at x, (d,).

        Returns:
            The vector at the end, (d,).
        """

    @abstractmethod
    def sectional(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Give the sectional curvature of the plane of u and v.

        Args:
            x: point (d,).
            u: tangent vector (d,).
            v: another, not parallel to u.

        Returns:
            A scalar.
        """

    @abstractmethod
    def scalar(self, x: Tensor) -> Tensor:
        """Give the scalar curvature: twice the sum of sectional curvatures over pairs of an orthonormal frame.

        Args:
            x: point (d,).

        Returns:
            A scalar.
        """

    def geodesic(self, x: Tensor, y: Tensor, t: float) -> Tensor:
        """Place a point at share t of the shortest geodesic from x to y.

        Args:
            x: point (d,).
            y: point (d,).
            t: 0 at x, 1 at y.

        Returns:
            Point (d,).
        """
        return self.exp(x, t * self.log(x, y))
