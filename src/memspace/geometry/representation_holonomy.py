"""Representation holonomy of clouds of features around a loop of inputs: a rival of frames of known factors.

Features are whitened by all of a pool of inputs. Along every step of the loop the features of the pool nearest to the
step's midpoint make two clouds, one for each end. A rotation inside their shared leading directions aligns the first
with the second; outside it does nothing. The product around the loop is compared with the identity.

Two ways to make the clouds. ``pooled`` takes the same features for both ends and centres them softly near each, as the
authors' code does. The clouds then differ by a shift alone, so a linear layer scores nought only where the pool is
even around the loop. ``moved`` moves neighbouring inputs along with the loop. Then an affine layer scores nought
whatever the pool, and what is left is due to the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.errors import SettingsError, ShapeError
from memspace.geometry.factor_loop import Network, read_at
from memspace.geometry.holonomy import rotation_phases

__all__ = ["CLOUDS", "RepresentationHolonomy", "representation_holonomy"]

CLOUDS = ("pooled", "moved")
NEGLIGIBLE = 1e-9  # of the largest variance: what is smaller is no direction of the features


@dataclass(frozen=True)
class RepresentationHolonomy:
    """What the alignments around a loop leave of whitened features.

    Args:
        matrix: (p, p) rotation, the product around the loop.
        phases: (p,) angles of its eigenvalues in (−π, π], the largest magnitude first.
        width: p, directions in which the pool's features vary.
        rank: q of the shared subspaces.
    """

    matrix: Tensor
    phases: Tensor
    width: int
    rank: int

    @property
    def score(self) -> float:
        """‖Hol − I‖_F / 2√p, in [0, 1]: a pure number."""
        gap = self.matrix - torch.eye(self.width, dtype=self.matrix.dtype)
        return float(gap.norm()) / (2 * math.sqrt(self.width))

    @property
    def angle(self) -> float:
        """‖log Hol‖_F = √Σ φ², radians: comparable with frames of known factors."""
        return float(self.phases.square().sum().sqrt())


def representation_holonomy(
    network: Network,
    loop: Tensor,
    pool: Tensor,
    *,
    neighbours: int = 96,
    rank: int | None = None,
    clouds: str = "moved",
) -> RepresentationHolonomy:
    """Measure the holonomy of a representation around a loop of inputs, after Sevetlidis & Pavlidis 2026.

    Orthogonal maps of the representation leave the score as it is, and so do invertible affine ones, by whitening.
    It goes to nought with the loop's radius.

    Args:
        network: inputs ↦ (B, ...) representation.
        loop: (S, ...) inputs in order, the first not repeated.
        pool: (N, ...) inputs that fix the whitening and make the clouds.
        neighbours: of the pool in a cloud.
        rank: q of the shared subspaces; None: as many as half the neighbours or the features allow.
        clouds: ``"moved"`` or ``"pooled"``, see above.

    Returns:
        the rotation left; exact for these inputs, in float64.

    Raises:
        SettingsError: another kind of clouds.
        ShapeError: the pool is smaller than a cloud, or has no variance.
    """
    if clouds not in CLOUDS:
        remedy = f"give one of {', '.join(CLOUDS)}"
        raise SettingsError(f"there are no clouds {clouds!r}", where="representation_holonomy", remedy=remedy)
    if not 2 <= neighbours <= len(pool):
        what = f"{neighbours} neighbours of a pool of {len(pool)} inputs"
        raise ShapeError(what, where="representation_holonomy", remedy="give two neighbours or more, and a larger pool")

    def read(x: Tensor) -> Tensor:
        return read_at(network, lambda at: at, x)

    features, points = read(pool), read(loop)
    centre, whiten = _whitening(features)
    features, points = (features - centre) @ whiten, (points - centre) @ whiten
    width = features.shape[1]
    most = min(width, neighbours - 1)
    q = min(most, max(1, neighbours // 2) if rank is None else rank)
    total = torch.eye(width, dtype=torch.float64)
    for k in range(len(loop)):
        j = (k + 1) % len(loop)
        middle = (points[k] + points[j]) / 2
        near = (features - middle).norm(dim=1).argsort(stable=True)[:neighbours]
        if clouds == "pooled":
            source, target = (features[near] - _soft_centre(features[near], points[e]) for e in (k, j))
        else:
            shifted = pool[near] - (loop[k] + loop[j]) / 2
            read_here = ((read(loop[e] + shifted) - centre) @ whiten for e in (k, j))
            source, target = (cloud - cloud.mean(0) for cloud in read_here)
        total = _aligned(source, target, q) @ total
    return RepresentationHolonomy(total, rotation_phases(total), width, q)


def _whitening(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and map (d, p) to unit variance in the p directions that vary."""
    centre = features.mean(0)
    _, s, vh = torch.linalg.svd(features - centre, full_matrices=False)
    alive = s.square() > NEGLIGIBLE * s[0].square() if len(s) else s > 0
    if not bool(alive.any()) or float(s[0]) == 0:
        raise ShapeError(
            "the representation is the same for every input of the pool",
            where="representation_holonomy",
            remedy="give a pool of different inputs, or another layer",
        )
    return centre, vh[alive].mT / s[alive] * math.sqrt(len(features))


def _soft_centre(cloud: Tensor, point: Tensor) -> Tensor:
    """Mean with weights that fall off exponentially with the distance, on the scale of its median."""
    distance = (cloud - point).norm(dim=1)
    return torch.softmax(-distance / distance.median().clamp_min(1e-300), 0) @ cloud


def _aligned(source: Tensor, target: Tensor, rank: int) -> Tensor:
    """The rotation within the clouds' shared leading directions that maps source nearest to target, (p, p)."""
    both = torch.cat([source, target])
    basis = torch.linalg.svd(both - both.mean(0), full_matrices=False).Vh[:rank].mT
    u, _, vh = torch.linalg.svd((target @ basis).mT @ (source @ basis))
    sign = torch.ones(u.shape[1], dtype=torch.float64)
    sign[-1] = torch.linalg.det(u @ vh).sign()
    inner = (u * sign) @ vh
    identity = torch.eye(len(basis), dtype=torch.float64)
    out: Tensor = identity + basis @ (inner @ basis.mT - basis.mT)
    return out
