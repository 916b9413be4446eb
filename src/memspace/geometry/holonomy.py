"""Frames carried around a closed loop: the rotation that is left over measures how far transport depends on the path.

A frame V(x) (d, r) is an orthonormal basis of r directions in which a representation moves at x. It is carried from x
to x' by the rotation nearest to V(x')ᵀ V(x), its polar factor. For tangent frames of a surface this is Levi-Civita
transport, with an error of second order in the step. The product around a loop is an element of O(r). Another choice
of bases conjugates it, so its eigenphases are free of that choice. All is in float64.

Frames that span the whole space have no holonomy: their transports V(x')ᵀ V(x) multiply to the identity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.errors import ShapeError
from memspace.value import Value

__all__ = [
    "Holonomy",
    "area_exponent",
    "frames_of",
    "holonomy",
    "loop_area",
    "rotation_phases",
    "transport",
    "transport_vector",
    "within_noise",
]

OVERLAP = 0.5  # cosine of the largest angle between neighbouring frames below which a loop has too few steps
DRAWS = 199  # of the null: the 95% point of 199 draws is the tenth largest
NEGLIGIBLE = 1e-9  # of the longest direction: what is shorter spans nothing


@dataclass(frozen=True)
class Holonomy:
    """What is left of a frame after a loop.

    Args:
        matrix: (r, r) orthogonal, from the frame at the first point to itself, in that frame's basis.
        phases: (r,) angles of its eigenvalues in (−π, π], the largest magnitude first; a rotation by φ in a plane
            gives φ and −φ.
        overlap: least cosine between neighbouring frames along the loop, in [0, 1].
        steps: number of steps.
    """

    matrix: Tensor
    phases: Tensor
    overlap: float
    steps: int

    @property
    def angle(self) -> float:
        """‖log Hol‖_F = √Σ φ², radians; √2 φ for a single plane that turns by φ."""
        return float(self.phases.square().sum().sqrt())

    @property
    def turn(self) -> float:
        """Largest eigenphase, radians in [0, π]: the angle between paths that is seen best."""
        return float(self.phases.abs().max())

    @property
    def resolved(self) -> bool:
        """Whether neighbouring frames are near enough for the transport to mean anything."""
        return self.overlap >= OVERLAP

    def value(self) -> Value:
        """Return :attr:`angle` as a value without an interval: a number of one loop, exact for the frames given.

        Returns:
            Radians; not reliable where the loop has too few steps or the angle is near the fold at π.
        """
        doubts = []
        if not self.resolved:
            doubts.append(f"neighbouring frames overlap by {self.overlap:.2g} only: take more steps")
        if self.turn > 0.9 * math.pi:
            doubts.append("a plane turned by nearly π, beyond which angles fold back")
        return Value(self.angle, self.steps, reliable=not doubts, note="; ".join(doubts))


def frames_of(tangents: Tensor, rank: int | None = None) -> Tensor:
    """Compute orthonormal bases of the spans of given directions, by the left singular vectors of each matrix.

    Args:
        tangents: (S, d, k) directions at S points, as columns; the columns of a Jacobian for instance.
        rank: number r of leading singular directions; None: all k.

    Returns:
        (S, d, r) float64, orthonormal columns.

    Raises:
        ShapeError: there are fewer than r independent directions at some point.
    """
    tangents = tangents.double()
    count = min(tangents.shape[-2:]) if rank is None else rank
    u, s, _ = torch.linalg.svd(tangents, full_matrices=False)
    wanted = tangents.shape[-1] if rank is None else rank
    lacking = wanted > u.shape[-1] or not bool((s[..., count - 1] > NEGLIGIBLE * s[..., 0]).all())
    if lacking or not wanted:
        raise ShapeError(
            f"there are fewer than {wanted} independent directions at some point of the loop",
            where="memspace.geometry.holonomy",
            remedy="give a smaller rank, or factors that all move the representation",
        )
    out: Tensor = u[..., :count]
    return out


def transport(start: Tensor, end: Tensor) -> Tensor:
    """Compute the rotation that carries coordinates in one frame to the next: the polar factor of V_endᵀ V_start.

    It is the orthogonal matrix nearest to V_endᵀ V_start, and its transpose carries back.

    Args:
        start: (..., d, r) orthonormal columns.
        end: (..., d, r) likewise.

    Returns:
        (..., r, r) orthogonal.
    """
    u, _, vh = torch.linalg.svd(end.mT @ start)
    out: Tensor = u @ vh
    return out


def holonomy(frames: Tensor) -> Holonomy:
    """Carry the frame at the first point around a closed loop: Hol = R_S ⋯ R_2 R_1, from the last point to the first.

    Args:
        frames: (S, d, r) orthonormal bases at the points of the loop; the first point isn't repeated.

    Returns:
        the holonomy; for smooth frames its error is of order S⁻².
    """
    total, cosines = _around(frames.double())
    return Holonomy(total, rotation_phases(total), float(cosines.min().clamp(0, 1)), len(frames))


def _around(frames: Tensor) -> tuple[Tensor, Tensor]:
    """The product of transports around loops (..., S, d, r), and cosines of the angles between neighbours."""
    u, cosines, vh = torch.linalg.svd(frames.roll(-1, -3).mT @ frames)
    total, *steps = (u @ vh).unbind(-3)
    for rotation in steps:
        total = rotation @ total
    return total, cosines


def rotation_phases(matrix: Tensor) -> Tensor:
    """Compute the angles of an orthogonal matrix's eigenvalues.

    Args:
        matrix: (..., r, r) orthogonal.

    Returns:
        (..., r) in (−π, π], the largest magnitude first. A reflection has an eigenvalue −1 without
        partner: a phase of π.
    """
    # A complex eigenproblem keeps all digits of small angles; the arccos of a trace loses half of them.
    phases = torch.angle(torch.linalg.eigvals(matrix.double().to(torch.complex128)))
    return phases.gather(-1, phases.abs().argsort(descending=True))


def transport_vector(tangents: Tensor, coordinates: Tensor) -> Tensor:
    """Carry a tangent vector of an embedded surface along a path by Levi-Civita transport.

    The vector w = T c is projected on the next tangent space and brought back to its length, in coordinates c along
    the factors: the same polar factor, between the frames T L⁻ᵀ with L Lᵀ = Tᵀ T.

    Args:
        tangents: (S, d, k) derivatives T of the representation by k factors at the points of the path.
        coordinates: (k,) components c of the vector along the factors at the first point.

    Returns:
        (S, k) components at every point; error of second order in the step.
    """
    tangents = tangents.double()
    roots = torch.linalg.cholesky(tangents.mT @ tangents)
    frames = torch.linalg.solve_triangular(roots, tangents.mT, upper=False).mT
    local = roots[0].mT @ coordinates.double()
    out = [coordinates.double()]
    for k in range(1, len(frames)):
        local = transport(frames[k - 1], frames[k]) @ local
        out.append(torch.linalg.solve_triangular(roots[k].mT, local[:, None], upper=True)[:, 0])
    return torch.stack(out)


def loop_area(points: Tensor) -> float:
    """Compute the area that a closed polygon encloses: the length of ½ Σ z_k ∧ z_{k+1}.

    In a plane it is the plain area; of a loop in space it is that of its shadow on the plane where it is largest.

    Args:
        points: (S, d) corners in order; the first isn't repeated.

    Returns:
        The area, in squared units of the points; exact for the polygon.
    """
    centred = points.double() - points.double().mean(0)
    if centred.shape[1] > len(centred):  # corners span at most S dimensions
        centred = torch.linalg.qr(centred.mT, mode="r")[1].mT
    product = centred.mT @ centred.roll(-1, 0)
    return float((product - product.mT).norm()) / (2 * math.sqrt(2))


def area_exponent(angles: Sequence[float], areas: Sequence[float]) -> tuple[float, float]:
    """Fit angle = curvature · area^p to loops that shrink to a point: least squares on logarithms.

    Small loops have p = 1 where transport depends on the path smoothly.

    Args:
        angles: of the loops, radians.
        areas: of the loops, in any unit.

    Returns:
        p, and the ratio angle/area of the smallest loop: the curvature there, up to the factor √2 of ‖·‖_F.
        NaN where fewer than two loops have angle and area above 0.
    """
    pairs = [(area, angle) for angle, area in zip(angles, areas, strict=True) if angle > 0 and area > 0]
    if len(pairs) < 2:
        return math.nan, math.nan
    x = torch.tensor([math.log(a) for a, _ in pairs], dtype=torch.float64)
    y = torch.tensor([math.log(b) for _, b in pairs], dtype=torch.float64)
    x = x - x.mean()
    area, angle = min(pairs)
    return float((x @ y) / (x @ x)), angle / area


def within_noise(
    tangents: Tensor, error: Tensor | float, *, rank: int | None = None, draws: int = DRAWS, seed: int = 0
) -> Tensor:
    """Draw angles that noise alone gives: the first half of the loop out and the same way back, with noisy directions.

    A path that is retraced has no holonomy whatever the geometry, so every angle is due to noise. The number of steps
    is that of the loop.

    Args:
        tangents: (S, d, k) directions around the loop.
        error: standard deviation of every entry, one for all or of a shape that fits ``tangents``.
        rank: as in :func:`frames_of`.
        draws: of the noise.
        seed: random seed of the noise.

    Returns:
        (draws,) angles ‖log Hol‖_F, radians, exactly distributed as those of a retraced loop.
    """
    tangents = tangents.double()
    half = len(tangents) // 2
    way = [*range(half + 1), *range(half - 1, 0, -1)]
    spread = torch.as_tensor(error, dtype=torch.float64).expand_as(tangents)[way]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(draws, *tangents[way].shape, generator=generator, dtype=torch.float64)
    total, _ = _around(frames_of(tangents[way] + spread * noise, rank))
    return rotation_phases(total).square().sum(-1).sqrt()
