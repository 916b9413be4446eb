"""Decoders whose latent geometry is known: flat ones, the sphere, and laws with coordinates of their own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from memspace.errors import ShapeError
from memspace.geometry.connection import scalar_curvature
from memspace.geometry.latent import LatentManifold, latent_geodesics
from memspace.task.likelihood import Bernoulli


def sphere(z: Tensor) -> Tensor:
    """Colatitude and azimuth to the sphere of radius 2."""
    a, b = z[:, 0], z[:, 1]
    return 2 * torch.stack([a.sin() * b.cos(), a.sin() * b.sin(), a.cos()], 1)


STARTS = torch.tensor([[0.9, 0.0], [1.2, 0.5], [0.6, -1.0]], dtype=torch.float64)
ENDS = torch.tensor([[0.9, 1.8], [0.7, -0.6], [1.9, 0.4]], dtype=torch.float64)


def test_geodesics_of_a_sphere_are_great_circles() -> None:
    paths = latent_geodesics(sphere, STARTS, ENDS, limit=400, tolerance=1e-9)
    a, b = sphere(STARTS) / 2, sphere(ENDS) / 2
    want = 2 * torch.acos((a * b).sum(1))
    assert paths.converged
    assert torch.allclose(paths.length, want, rtol=1e-3)
    assert bool((paths.length >= want - 2e-4).all())  # polygons are short by second order in a side
    assert bool((paths.straight_length > paths.length).all())
    on = sphere(paths.points.flatten(0, 1)).unflatten(0, paths.points.shape[:2]) / 2
    normal = torch.linalg.cross(a, b)
    off = (on * normal[:, None]).sum(2) / normal.norm(dim=1)[:, None]
    assert float(off.abs().max()) < 5e-3
    assert torch.allclose(paths.energy, want.square(), rtol=5e-3)  # constant speed
    # Along a latitude of colatitude 0.9 the straight line has the length 2 · 1.8 · sin 0.9.
    assert float(paths.straight_length[0]) == pytest.approx(3.6 * math.sin(0.9), rel=1e-4)
    detour = paths.detour()
    assert detour.value == pytest.approx(float((paths.straight_length / want - 1).mean()), rel=0.02)


def test_many_pairs_at_once_are_what_single_ones_are() -> None:
    together = latent_geodesics(sphere, STARTS, ENDS, limit=400, tolerance=1e-9)
    for k in range(2):
        alone = latent_geodesics(sphere, STARTS[k : k + 1], ENDS[k : k + 1], limit=400, tolerance=1e-9)
        assert float(alone.length) == pytest.approx(float(together.length[k]), rel=3e-4)


def test_a_linear_decoder_is_flat() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(3, 7).double()
    g = torch.Generator().manual_seed(1)
    starts, ends = torch.randn(2, 4, 3, generator=g, dtype=torch.float64)
    paths = latent_geodesics(linear, starts, ends)
    want = ((ends - starts) @ linear.weight.detach().T).norm(dim=1)
    assert torch.allclose(paths.length, want, rtol=1e-9)
    assert torch.allclose(paths.points, paths.straight, atol=1e-6)
    assert torch.allclose(paths.energy, want.square(), rtol=1e-9)
    assert paths.detour().value == pytest.approx(0, abs=1e-9)


def test_the_law_is_the_ruler() -> None:
    """One probability from 0.1 to 0.9: 2 (arcsin √0.9 − arcsin √0.1), however the decoder bends the latent."""
    logit = math.log(9)
    ends = torch.tensor([[1.0]], dtype=torch.float64)
    paths = latent_geodesics(lambda z: logit * z**3, -ends, ends, law=Bernoulli(), limit=300, tolerance=1e-9)
    want = 2 * (math.asin(math.sqrt(0.9)) - math.asin(math.sqrt(0.1)))
    assert float(paths.length) == pytest.approx(want, rel=1e-4)
    assert float(paths.straight_length) == pytest.approx(want, rel=1e-4)
    assert float(paths.straight_energy) > 1.05 * float(paths.energy)


def test_the_metric_pulled_back() -> None:
    manifold = LatentManifold(sphere, 2)
    at = torch.tensor([0.8, 0.3], dtype=torch.float64)
    want = torch.diag(torch.tensor([4.0, 4 * math.sin(0.8) ** 2], dtype=torch.float64))
    assert torch.allclose(manifold.metric(at), want, atol=1e-12)
    assert float(scalar_curvature(manifold, at)) == pytest.approx(2 / 4)  # 2/R²
    bits = LatentManifold(lambda z: z, 1, Bernoulli())
    assert float(bits.metric(torch.tensor([0.7], dtype=torch.float64))) == pytest.approx(
        float(torch.sigmoid(torch.tensor(0.7)) * torch.sigmoid(torch.tensor(-0.7))), rel=1e-6
    )


def test_pictures_and_the_decoder_as_it_was() -> None:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 12), nn.Unflatten(1, (1, 3, 4)))
    before = [p.clone() for p in decoder.parameters()]
    paths = latent_geodesics(decoder, STARTS.float(), ENDS.float(), levels=(5, 9), limit=60)
    least, straight = paths.pictures(decoder.eval(), 5)
    assert least.shape == straight.shape == (3, 5, 1, 3, 4)
    assert torch.equal(least[:, 0], straight[:, 0])
    assert torch.allclose(least[:, -1], straight[:, -1], atol=1e-6)
    assert all(torch.equal(a, b) and a.requires_grad for a, b in zip(decoder.parameters(), before, strict=True))
    assert bool((paths.energy <= paths.straight_energy * (1 + 1e-6)).all()) or paths.energy.sum() <= (
        paths.straight_energy.sum() * (1 + 1e-6)
    )
    with pytest.raises(ShapeError, match="starts are of shape"):
        latent_geodesics(decoder, STARTS, ENDS[:2])
