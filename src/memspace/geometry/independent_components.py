"""Independent components at a point of a curved space: a rival of frames and clouds that asks about the data's law.

In normal coordinates around x, geodesics through x are straight lines. A density p with respect to the volume of G has
there log p + ½ log det G, whose second derivatives at x are D = ∇² log p − ⅓ Ric. Components that are independent to
second order along geodesics are directions in which D is diagonal. Cunningham 2026 calls such a tensor, of the Hessian
of the log-likelihood and the Ricci curvature, the disentanglement tensor of Riemannian independent component analysis.
The constants here follow from the volume in normal coordinates; the paper's own may differ by convention.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import hessian, jacrev

from memspace.errors import ShapeError
from memspace.geometry.connection import christoffel, riemann
from memspace.geometry.manifold import Manifold

__all__ = ["IndependentComponents", "LogDensity", "independent_components", "volume_density"]

LogDensity = Callable[[Tensor], Tensor]  # point (d,) → log p, nats
NEGLIGIBLE = 1e-12  # of the largest eigenvalue of G: below, the space has fewer dimensions than coordinates


@dataclass(frozen=True)
class IndependentComponents:
    """The second derivatives of a log-density in normal coordinates, and the directions that make them diagonal.

    Args:
        tensor: (d, d) D = ∇² log p − ⅓ Ric, nats per squared unit of the coordinates.
        metric: (d, d) G at the point.
        ricci: (d, d) Ric at the point.
        values: (d,) eigenvalues of D under G, nats per squared length, ascending.
        directions: (d, d) the components as columns, orthonormal under G; where eigenvalues are equal they are any.
    """

    tensor: Tensor
    metric: Tensor
    ricci: Tensor
    values: Tensor
    directions: Tensor

    @property
    def mixing(self) -> float:
        """Share of D off the diagonal, in [0, 1], between the coordinates taken with unit length.

        √(Σ_{a≠b} D_ab² / Σ_ab D_ab²) with D_ab/√(G_aa G_bb) in place of D_ab. It is 0 where the coordinates are
        independent components, and NaN where D is nought.
        """
        length = self.metric.diagonal().sqrt()
        unit = self.tensor / length / length[:, None]
        whole = float(unit.square().sum())
        off = whole - float(unit.diagonal().square().sum())
        return math.sqrt(max(0.0, off) / whole) if whole > 0 else math.nan


def volume_density(manifold: Manifold, law: LogDensity) -> LogDensity:
    """Convert a density over the coordinates to one over the volume of the metric.

    Args:
        manifold: the metric.
        law: log-density over coordinates, for instance of independent factors.

    Returns:
        the log-density law(x) − ½ log det G(x).
    """

    def converted(x: Tensor) -> Tensor:
        return law(x) - 0.5 * torch.logdet(manifold.metric(x))

    return converted


def independent_components(manifold: Manifold, log_density: LogDensity, x: Tensor) -> IndependentComponents:
    """Compute D = ∇² log p − ⅓ Ric at a point, after Cunningham 2026.

    Args:
        manifold: the metric, for instance ``LatentManifold(lambda v: network(render(v)), factors)``.
        log_density: log p with respect to the metric's volume, differentiable twice; :func:`volume_density` makes it
            from one over coordinates.
        x: point (d,), float64.

    Returns:
        the tensor and its components; exact, by automatic differentiation.

    Raises:
        ShapeError: some direction moves nothing, so the metric has no inverse.
    """
    metric = manifold.metric(x).detach()
    eigenvalues = torch.linalg.eigvalsh(metric)
    if not bool(eigenvalues[0] > NEGLIGIBLE * eigenvalues[-1]):
        raise ShapeError(
            f"the metric of {len(x)} coordinates has a direction without length",
            where="independent_components",
            remedy="leave out factors that move nothing, or name a wider layer",
        )
    slope = jacrev(log_density)(x)
    bend = hessian(log_density)(x) - torch.einsum("kij,k->ij", christoffel(manifold, x), slope)
    ricci = torch.einsum("ikij->kj", riemann(manifold, x)).detach()
    tensor = bend.detach() - ricci / 3
    root = torch.linalg.cholesky(metric)
    half = torch.linalg.solve_triangular(root, tensor, upper=False)
    whole = torch.linalg.solve_triangular(root, half.mT, upper=False)
    values, vectors = torch.linalg.eigh((whole + whole.mT) / 2)
    directions = torch.linalg.solve_triangular(root.mT, vectors, upper=True)
    return IndependentComponents(tensor, metric, ricci, values, directions)
