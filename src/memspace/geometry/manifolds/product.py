"""A product of manifolds: geodesics run in every factor at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from memspace.geometry.manifold import KnownManifold

__all__ = ["Product"]


class Product(KnownManifold):
    """A product: coordinates are those of the factors one after another; squared lengths add.

    Args:
        factors: manifolds with known geodesics.
    """

    def __init__(self, factors: tuple[KnownManifold, ...]) -> None:
        self.factors = factors
        self._sizes = [f.size for f in factors]
        self.size = sum(self._sizes)

    def _each(self, call: Callable[..., Tensor], *vectors: Tensor) -> list[Tensor]:
        parts = zip(*(torch.split(v, self._sizes) for v in vectors), strict=True)
        return [call(f, *p) for f, p in zip(self.factors, parts, strict=True)]

    def metric(self, x: Tensor) -> Tensor:
        """Block diagonal."""
        whole: Tensor = torch.block_diag(*self._each(lambda f, a: f.metric(a), x))  # type: ignore[no-untyped-call]
        return whole

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """√Σ d²."""
        return torch.stack(self._each(lambda f, a, b: f.distance(a, b), x, y)).square().sum().sqrt()

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """Factor by factor."""
        return torch.cat(self._each(lambda f, a, b: f.exp(a, b), x, v))

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """Factor by factor."""
        return torch.cat(self._each(lambda f, a, b: f.log(a, b), x, y))

    def transport(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """Factor by factor."""
        return torch.cat(self._each(lambda f, a, b, c: f.transport(a, b, c), x, v, w))

    def sectional(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Σ K_f · (area of the plane's shadow in factor f)² over the plane's area²; a line's shadow has none."""

        def numerator(f: KnownManifold, a: Tensor, p: Tensor, q: Tensor) -> Tensor:
            area = f.inner(a, p, p) * f.inner(a, q, q) - f.inner(a, p, q) ** 2
            return f.sectional(a, p, q) * area

        bent = torch.stack(self._each(numerator, x, u, v)).sum()
        return bent / (self.inner(x, u, u) * self.inner(x, v, v) - self.inner(x, u, v) ** 2)

    def scalar(self, x: Tensor) -> Tensor:
        """Σ of the factors' own."""
        return torch.stack(self._each(lambda f, a: f.scalar(a), x)).sum()
