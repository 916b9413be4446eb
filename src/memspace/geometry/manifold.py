"""Riemannian manifolds in one chart: a metric, and closed forms where there are any.

A point is a vector x (d,) of coordinates, a tangent vector v (d,) has the same coordinates. What holds for every
metric is numeric (``connection``, ``flow``, ``string``); what is known in closed form is :class:`KnownManifold`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

__all__ = ["KnownManifold", "Manifold"]


class Manifold(ABC):
    """A chart with a metric. ``size``: the dimension d."""

    size: int

    @abstractmethod
    def metric(self, x: Tensor) -> Tensor:
        """G(x), (d, d), differentiable in x (d,)."""

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Uᵀ G(x) v."""
        return u @ self.metric(x) @ v

    def norm(self, x: Tensor, v: Tensor) -> Tensor:
        """√(vᵀ G(x) v)."""
        return self.inner(x, v, v).clamp_min(0).sqrt()


class KnownManifold(Manifold):
    """One whose geodesics are known. All exact, in float64 to rounding."""

    @abstractmethod
    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """The length of the shortest path."""

    @abstractmethod
    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """Where the geodesic from x with velocity v is after unit time."""

    @abstractmethod
    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """The velocity at x of the shortest geodesic that reaches y in unit time."""

    @abstractmethod
    def transport(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """W carried parallel along the geodesic t ↦ exp(x, t v) from t = 0 to 1."""

    @abstractmethod
    def sectional(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Sectional curvature of the plane of u and v."""

    @abstractmethod
    def scalar(self, x: Tensor) -> Tensor:
        """Scalar curvature: twice the sum of the sectional curvatures over pairs of an orthonormal frame."""

    def geodesic(self, x: Tensor, y: Tensor, t: float) -> Tensor:
        """The point at share t of the shortest geodesic."""
        return self.exp(x, t * self.log(x, y))
