"""The latent space of a decoder with the metric of its outputs: shortest paths of many pairs at once.

G(z) = Jᵀ H J pulls the output law's Fisher metric back to latents. The action of a path is its energy under G. Where
the law has isometric coordinates φ (2√p, f/σ, 2 arcsin √p), a step costs the squared distance between φ(f(z)) at its
ends. So no Jacobian is formed, and all pairs are relaxed as one string in their joint space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.errors import ShapeError
from memspace.geometry.embedding import embed
from memspace.geometry.manifold import Manifold
from memspace.geometry.string import midpoints, shortest
from memspace.task.checks import evaluating
from memspace.task.likelihood import Gaussian, Likelihood
from memspace.value import Value

__all__ = ["Decoder", "LatentManifold", "LatentPaths", "latent_geodesics"]

Decoder = Callable[[Tensor], Tensor]  # latents (B, d) → outputs (B, ...)

LEVELS = (9, 17, 33)
HALVINGS = 2  # of every side, where lengths are measured
UNIT = Gaussian(1.0)


class LatentManifold(Manifold):
    """Latents with the metric pulled back from a decoder's outputs, for ``christoffel``, curvature and ``flow``.

    Args:
        decoder: latents (B, d) ↦ outputs (B, ...).
        size: d.
        law: of the outputs; a Gaussian of σ = 1 gives the Euclidean metric of the outputs.
    """

    def __init__(self, decoder: Decoder, size: int, law: Likelihood = UNIT) -> None:
        self.decoder, self.size, self.law = decoder, size, law

    def metric(self, x: Tensor) -> Tensor:
        """Compute G(z) = Jᵀ H J by forward derivatives, exact in the decoder's precision; a module is in evaluation."""
        like = _floats(self.decoder, x)

        def coordinates(z: Tensor) -> Tensor:
            return embed(self.law, self.decoder(z.unsqueeze(0).to(like)).flatten(1).to(z))[0]

        with evaluating(self.decoder) if isinstance(self.decoder, nn.Module) else nullcontext():
            jacobian: Tensor = torch.func.jacfwd(coordinates)(x)
        return jacobian.mT @ jacobian


@dataclass(frozen=True)
class LatentPaths:
    """Paths of least action between pairs of latents, next to straight lines.

    Args:
        points: (P, S, d) of the paths, ends included.
        straight: (P, S, d) of the straight lines.
        length: (P,) of the paths, in nats^½ of the law (units of the outputs for σ = 1).
        straight_length: (P,) likewise.
        energy: (P,) (S−1) Σ d² of the paths: at least length², equal at constant speed.
        straight_energy: (P,) likewise.
        converged: the energy stopped falling before the limit of evaluations was reached.
        remaining: share of the energy that another Newton step is expected to gain.
    """

    points: Tensor
    straight: Tensor
    length: Tensor
    straight_length: Tensor
    energy: Tensor
    straight_energy: Tensor
    converged: bool
    remaining: float

    def detour(self) -> Value:
        """Average how much longer straight lines are than the paths: mean of straight over shortest length, less 1.

        Returns:
            A pure number with its interval over pairs; not reliable where the search did not converge.
        """
        ratio = self.straight_length / self.length - 1
        value = Value.mean(ratio[torch.isfinite(ratio)])
        note = value.note if self.converged else "the search ended at its limit of evaluations"
        return Value(value.value, value.n, value.interval, reliable=value.reliable and self.converged, note=note)

    @torch.no_grad()
    def pictures(self, decoder: Decoder, count: int = 9) -> tuple[Tensor, Tensor]:
        """Render traversals along the paths and along the straight lines.

        Args:
            decoder: latents ↦ outputs.
            count: pictures of each traversal, evenly spaced along its points.

        Returns:
            Two tensors (P, count, ...) of outputs: along the paths, and along the straight lines.
        """
        at = torch.linspace(0, self.points.shape[1] - 1, count).round().long()
        chosen = torch.stack([self.points[:, at], self.straight[:, at]])
        with _evaluated(decoder):
            decoded = decoder(chosen.flatten(0, 2).to(_floats(decoder, chosen)))
        least, straight = decoded.reshape(*chosen.shape[:3], *decoded.shape[1:])
        return least, straight


def latent_geodesics(
    decoder: Decoder,
    starts: Tensor,
    ends: Tensor,
    *,
    law: Likelihood = UNIT,
    levels: Sequence[int] = LEVELS,
    limit: int = 200,
    tolerance: float = 1e-5,
    report: Callable[[float], None] | None = None,
) -> LatentPaths:
    """Find paths of least action between pairs of latents, all at once, from the straight lines.

    The sum of the pairs' energies is the energy of one string in their joint space, so the string solver serves
    unchanged. From the straight line it finds a geodesic, which beyond the cut locus need not be the shortest.

    Args:
        decoder: latents (B, d) ↦ outputs (B, ...), differentiable; a module is read in evaluation mode.
        starts: (P, d).
        ends: (P, d).
        law: of the outputs; a Gaussian of σ = 1 measures outputs as they are.
        levels: numbers of points of a path, coarse to fine.
        limit: evaluations at most, per level.
        tolerance: relative fall of the energy by a chunk of evaluations at which a level ends.
        report: called with the energy after every chunk.

    Returns:
        the paths in float64; lengths are measured with every side cut in four, and are short by second order in it.

    Raises:
        ShapeError: starts and ends are not pairs.
    """
    if starts.dim() != 2 or starts.shape != ends.shape or not len(starts):
        what = f"starts are of shape {tuple(starts.shape)}, ends of {tuple(ends.shape)}"
        raise ShapeError(what, where="latent_geodesics", remedy="give two tensors (pairs, latents)")
    pairs, size = starts.shape
    like = _floats(decoder, starts)

    def squared(points: Tensor) -> Tensor:
        """(S, P, d) → (S−1, P)."""
        flat = decoder(points.reshape(-1, size).to(like)).flatten(1).double()
        phi = embed(law, flat).reshape(*points.shape[:2], -1)
        return law.squared_arc((phi[1:] - phi[:-1]).square().sum(-1))

    def steps(joint: Tensor) -> Tensor:
        return squared(joint.reshape(-1, pairs, size)).sum(1)

    line = torch.stack([starts, ends]).double()
    with _evaluated(decoder):
        best = shortest([line.flatten(1)], steps, levels=levels, limit=limit, tolerance=tolerance, report=report)
        points = best.points.reshape(-1, pairs, size)
        share = torch.linspace(0, 1, len(points), dtype=torch.float64)[:, None, None]
        straight = torch.lerp(line[:1], line[1:], share.to(line))
        with torch.no_grad():
            both = [squared(p) for p in (points, straight)]
            length, straight_length = (squared(midpoints(p, HALVINGS)).sqrt().sum(0) for p in (points, straight))
    energy, straight_energy = ((len(points) - 1) * s.sum(0) for s in both)
    return LatentPaths(
        points.transpose(0, 1),
        straight.transpose(0, 1),
        length,
        straight_length,
        energy,
        straight_energy,
        best.converged,
        best.remaining,
    )


def _floats(decoder: Decoder, latents: Tensor) -> Tensor:
    """A tensor of the type and on the device that the decoder reads."""
    if isinstance(decoder, nn.Module):
        for parameter in decoder.parameters():
            return torch.empty(0, dtype=parameter.dtype, device=parameter.device)
    return torch.empty(0, dtype=latents.dtype, device=latents.device)


@contextmanager
def _evaluated(decoder: Decoder) -> Iterator[None]:
    """A decoder in evaluation mode, without gradients of its weights; left as it was."""
    if not isinstance(decoder, nn.Module):
        yield
        return
    trained = [p for p in decoder.parameters() if p.requires_grad]
    with evaluating(decoder):
        try:
            for p in trained:
                p.requires_grad_(False)
            yield
        finally:
            for p in trained:
                p.requires_grad_(True)
