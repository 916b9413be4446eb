"""Constant curvature, by an isometric embedding into flat space: spheres and hyperboloids share one set of formulas.

With X the embedded point, ⟨X, X⟩ = 1/κ in the flat form η (signs (+,…,+) for κ > 0, (−,+,…,+) for κ < 0):
exp(X, V) = c(r) X + s(r) V with r = √|κ|·‖V‖, c = cos or cosh, s = sin(r)/r or sinh(r)/r.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.func import jacfwd

from memspace.geometry.manifold import KnownManifold

__all__ = ["ConstantCurvature"]


class ConstantCurvature(KnownManifold):
    """A chart on a sphere (κ > 0) or a hyperboloid (κ < 0) of dimension ``size`` ≥ 2."""

    curvature: float

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Embed a point; for κ < 0 the first coordinate is the timelike one.

        Args:
            x: point (d,).

        Returns:
            X (D,), differentiable in x.
        """

    @abstractmethod
    def unembed(self, point: Tensor) -> Tensor:
        """Give the coordinates of an embedded point.

        Args:
            point: X (D,).

        Returns:
            x (d,).
        """

    def _form(self, a: Tensor, b: Tensor) -> Tensor:
        product = a * b
        return product.sum() if self.curvature > 0 else product[1:].sum() - product[0]

    def _frame(self, x: Tensor) -> Tensor:
        frame: Tensor = jacfwd(self.embed)(x)
        return frame

    def metric(self, x: Tensor) -> Tensor:
        """The flat form on the chart's frame."""
        frame = self._frame(x)
        signs = torch.ones_like(frame[:, :1])
        if self.curvature < 0:
            signs = torch.cat([-signs[:1], signs[1:]])
        return frame.t() @ (signs * frame)

    def _coordinates(self, x: Tensor, tangent: Tensor) -> Tensor:
        """Chart coordinates of an embedded tangent vector at x."""
        solution: Tensor = torch.linalg.lstsq(self._frame(x), tangent.unsqueeze(1)).solution
        return solution.squeeze(1)

    def _angle(self, a: Tensor, b: Tensor) -> Tensor:
        """√|κ| times the distance of two embedded points, accurate also for near ones."""
        half = (self._form(a - b, a - b) * abs(self.curvature)).clamp_min(0).sqrt() / 2
        return 2 * (torch.asin(half.clamp(max=1)) if self.curvature > 0 else torch.asinh(half))

    def _turn(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """(c(r), s(r)) with s(0) = 1."""
        safe = torch.where(r == 0, torch.ones_like(r), r)
        if self.curvature > 0:
            return torch.cos(r), torch.where(r == 0, torch.ones_like(r), torch.sin(safe) / safe)
        return torch.cosh(r), torch.where(r == 0, torch.ones_like(r), torch.sinh(safe) / safe)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Angle/√|κ|."""
        out: Tensor = self._angle(self.embed(x), self.embed(y)) / abs(self.curvature) ** 0.5
        return out

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """Along the great circle (or hyperbola)."""
        point, tangent = self.embed(x), self._frame(x) @ v
        c, s = self._turn(abs(self.curvature) ** 0.5 * self._form(tangent, tangent).clamp_min(0).sqrt())
        return self.unembed(c * point + s * tangent)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """The part of Y − c·X along the tangent space at X, over s."""
        a, b = self.embed(x), self.embed(y)
        c, s = self._turn(self._angle(a, b))
        return self._coordinates(x, (b - c * a) / s)

    def transport(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """The part along the geodesic turns with it, the rest stays as it is in the embedding."""
        point, frame = self.embed(x), self._frame(x)
        tangent, carried = frame @ v, frame @ w
        squared = self._form(tangent, tangent)
        r = abs(self.curvature) ** 0.5 * squared.clamp_min(0).sqrt()
        c, s = self._turn(r)
        along = self._form(carried, tangent) / squared
        sign = 1.0 if self.curvature > 0 else -1.0
        moved = c * tangent - sign * s * r.square() * point  # the geodesic's own velocity at the end
        return self._coordinates(self.exp(x, v), carried + along * (moved - tangent))

    def sectional(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """κ."""
        return torch.full_like(x[0], self.curvature)

    def scalar(self, x: Tensor) -> Tensor:
        """κ·d(d−1)."""
        return torch.full_like(x[0], self.curvature * self.size * (self.size - 1))
