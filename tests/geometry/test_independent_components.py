"""Independent components of curved spaces against closed forms, charts, and normal coordinates taken literally."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev

from memspace.errors import ShapeError
from memspace.geometry.independent_components import independent_components, volume_density
from memspace.geometry.latent import LatentManifold
from memspace.geometry.manifolds.gaussian import DiagonalNormal, Normal

AT = torch.tensor([0.7, 0.4], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)


def normal(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum()


def uniform(x: Tensor) -> Tensor:
    return 0 * x.sum()


def plane(z: Tensor) -> Tensor:
    return z


def sphere(z: Tensor) -> Tensor:
    """Colatitude and azimuth to the sphere of radius 2."""
    a, b = z[:, 0], z[:, 1]
    return 2 * torch.stack([a.sin() * b.cos(), a.sin() * b.sin(), a.cos()], 1)


def polar(z: Tensor) -> Tensor:
    """Logarithm of the radius, and the angle, to the plane."""
    return z[:, :1].exp() * torch.stack([z[:, 1].cos(), z[:, 1].sin()], 1)


def test_a_correlated_normal_law_has_its_partial_correlation() -> None:
    precision = torch.tensor([[2.0, -0.6], [-0.6, 1.0]], dtype=torch.float64)
    got = independent_components(LatentManifold(plane, 2), lambda x: -0.5 * x @ precision @ x, AT)
    assert torch.allclose(got.tensor, -precision, atol=1e-12)
    assert got.mixing == pytest.approx(math.sqrt(2 * 0.36 / (4 + 1 + 2 * 0.36)))
    eigenvalues, vectors = torch.linalg.eigh(-precision)
    assert torch.allclose(got.values, eigenvalues, atol=1e-12)
    assert torch.allclose((got.directions.mT @ vectors).abs(), EYE, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_a_product_of_curves_with_independent_factors_is_diagonal(seed: int) -> None:
    torch.manual_seed(seed)
    curves = [nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 3)).double() for _ in range(2)]

    def product(z: Tensor) -> Tensor:
        return torch.cat([curves[0](z[:, :1]), curves[1](z[:, 1:])], 1)

    manifold = LatentManifold(product, 2)
    got = independent_components(manifold, volume_density(manifold, normal), AT)
    assert got.mixing < 1e-10
    assert float(got.ricci.abs().max()) < 1e-9 * float(got.metric.max())


def test_a_sphere_has_no_directions_of_its_own() -> None:
    manifold = LatentManifold(sphere, 2)
    got = independent_components(manifold, uniform, AT)
    assert torch.allclose(got.ricci, got.metric / 4, atol=1e-12)  # (n − 1)/R²
    assert torch.allclose(got.values, torch.full((2,), -1 / 12, dtype=torch.float64), atol=1e-12)
    strength = 3.0  # of von Mises and Fisher, whose Hessian is −κ cos θ/R² in every direction
    got = independent_components(manifold, lambda x: strength * x[0].cos(), AT)
    want = -(strength * math.cos(0.7) + 1 / 3) / 4
    assert torch.allclose(got.values, torch.full((2,), want, dtype=torch.float64), atol=1e-12)


def test_uniform_factors_of_a_sphere_are_components_although_frames_turn() -> None:
    manifold = LatentManifold(sphere, 2)
    got = independent_components(manifold, volume_density(manifold, uniform), AT)
    assert got.mixing < 1e-10
    # −log sin θ: second derivative 1/sin² θ along θ, and −cos² θ/sin² θ along the azimuth, both over R².
    sine = math.sin(0.7) ** 2
    want = sorted([(1 / sine - 1 / 3) / 4, (-(1 - sine) / sine - 1 / 3) / 4])
    assert got.values.tolist() == pytest.approx(want, abs=1e-10)


def test_polar_factors_mix_on_a_flat_plane() -> None:
    """Normal factors a, b with r = eᵃ: D = [[1 + a, b], [b, −3 − a]], on a flat plane, with g diagonal."""
    manifold = LatentManifold(polar, 2)
    got = independent_components(manifold, volume_density(manifold, normal), AT)
    a, b = AT.tolist()
    assert torch.allclose(got.tensor, torch.tensor([[1 + a, b], [b, -3 - a]], dtype=torch.float64), atol=1e-10)
    assert float(got.ricci.abs().max()) < 1e-10
    assert got.mixing == pytest.approx(math.sqrt(2 * b**2 / ((1 + a) ** 2 + (3 + a) ** 2 + 2 * b**2)))


def test_another_chart_gives_the_same_values() -> None:
    precision = torch.tensor([[2.0, -0.6], [-0.6, 1.0]], dtype=torch.float64)
    place = polar(AT[None])[0]
    flat = independent_components(LatentManifold(plane, 2), lambda x: -0.5 * x @ precision @ x, place)

    def density(z: Tensor) -> Tensor:
        at = polar(z[None])[0]
        return -0.5 * at @ precision @ at

    bent = independent_components(LatentManifold(polar, 2), density, AT)
    assert torch.allclose(bent.values, flat.values, atol=1e-9)
    moved = jacrev(lambda z: polar(z[None])[0])(AT) @ bent.directions
    assert torch.allclose((moved.mT @ flat.directions).abs(), EYE, atol=1e-8)


@pytest.mark.parametrize("manifold", [Normal(), DiagonalNormal(2)], ids=["normal", "two normals"])
def test_it_is_the_hessian_in_normal_coordinates(manifold) -> None:
    """The density of exp_x(v), with the volume of the map itself: no constant of the theory goes in."""
    x = torch.tensor([0.3, 0.8, -0.4, 1.2], dtype=torch.float64)[: manifold.size]
    slant = torch.randn(manifold.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def law(y: Tensor) -> Tensor:
        return (slant * y).sin().sum() - y.square().sum() + 0.3 * y.prod()

    def in_normal_coordinates(v: Tensor) -> Tensor:
        slope = jacrev(lambda u: manifold.exp(x, u))(v)
        y = manifold.exp(x, v)
        return law(y) + 0.5 * torch.logdet(slope.mT @ manifold.metric(y) @ slope)

    # exp has no derivatives by machine at 0: second differences of size h along random ways, with errors of h²
    got = independent_components(manifold, law, x).tensor
    middle = law(x) + 0.5 * torch.logdet(manifold.metric(x))
    for way in torch.randn(6, manifold.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64):
        want = [
            float(in_normal_coordinates(h * way) + in_normal_coordinates(-h * way) - 2 * middle) / h**2
            for h in (0.02, 0.01)
        ]
        assert float(way @ got @ way) == pytest.approx((4 * want[1] - want[0]) / 3, abs=1e-5 * float(way @ way) ** 3)


def test_networks_and_their_density() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Linear(20, 8)).double()
    manifold = LatentManifold(network, 3)
    at = torch.tensor([0.2, -0.5, 0.1], dtype=torch.float64)
    got = independent_components(manifold, volume_density(manifold, normal), at)
    metric = got.directions.mT @ got.metric @ got.directions
    assert torch.allclose(metric, torch.eye(3, dtype=torch.float64), atol=1e-8)
    assert torch.allclose(got.directions.mT @ got.tensor @ got.directions, torch.diag(got.values), atol=1e-7)
    assert 0 < got.mixing < 1
    scaled = LatentManifold(lambda z: 7 * network(z), 3)  # lengths grow, mixing does not
    assert independent_components(scaled, volume_density(scaled, normal), at).mixing == pytest.approx(got.mixing)
    single = LatentManifold(nn.Sequential(network, nn.Dropout(0.5)).float().train(), 3)
    rough = independent_components(single, volume_density(single, normal), at)
    assert rough.mixing == pytest.approx(got.mixing, abs=1e-3)  # third derivatives of single precision
    assert network.training


def test_a_factor_that_moves_nothing_is_refused_and_nothing_to_see_is_no_number() -> None:
    flat = LatentManifold(lambda z: z[:, :1] * torch.ones(1, 3, dtype=torch.float64), 2)
    with pytest.raises(ShapeError, match="direction without length"):
        independent_components(flat, uniform, AT)
    assert math.isnan(independent_components(LatentManifold(plane, 2), uniform, AT).mixing)
