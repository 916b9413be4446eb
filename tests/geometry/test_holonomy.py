"""Frames around loops with known answers: spheres, flat spaces, products, and changes of basis."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memspace.errors import ShapeError
from memspace.geometry.holonomy import (
    area_exponent,
    frames_of,
    holonomy,
    loop_area,
    rotation_phases,
    transport,
    transport_vector,
    within_noise,
)


def latitude(polar: float, steps: int) -> Tensor:
    """Directions of polar angle and azimuth on the unit sphere along a circle of latitude, (S, 3, 2)."""
    azimuth = torch.arange(steps, dtype=torch.float64) * 2 * math.pi / steps
    c, s = math.cos(polar), math.sin(polar)
    zero = torch.zeros_like(azimuth)
    south = torch.stack([c * azimuth.cos(), c * azimuth.sin(), zero - s], 1)
    east = s * torch.stack([-azimuth.sin(), azimuth.cos(), zero], 1)
    return torch.stack([south, east], 2)


def rotations(count: int, r: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(count, r, r, generator=g, dtype=torch.float64))
    return q


@pytest.mark.parametrize("polar", [0.3, 0.7, 1.0])
def test_a_circle_of_latitude_turns_by_the_solid_angle_to_second_order(polar: float) -> None:
    want = 2 * math.pi * (1 - math.cos(polar))
    errors = [abs(holonomy(frames_of(latitude(polar, n))).turn - want) for n in (32, 64, 128, 256)]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders == pytest.approx([2, 2, 2], abs=0.01)
    assert errors[-1] < 2e-4


def test_the_published_angle_of_a_latitude() -> None:
    one, two = (holonomy(frames_of(latitude(0.7, n))) for n in (256, 512))
    assert two.turn + (two.turn - one.turn) / 3 == pytest.approx(1.47754, abs=5e-6)  # Richardson
    assert two.angle == pytest.approx(math.sqrt(2) * two.turn, rel=1e-12)
    assert two.phases.sum().item() == pytest.approx(0, abs=1e-12)
    assert two.value().reliable


@pytest.mark.parametrize("seed", range(3))
def test_a_flat_frame_comes_back_as_it_was(seed: int) -> None:
    """Directions of a linear map are the same everywhere, whatever bases are taken of their span."""
    g = torch.Generator().manual_seed(seed)
    plane = torch.randn(7, 3, generator=g, dtype=torch.float64)
    mixed = plane @ torch.randn(40, 3, 3, generator=g, dtype=torch.float64)
    hol = holonomy(frames_of(mixed))
    assert torch.allclose(hol.matrix, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert hol.angle < 1e-7
    assert hol.overlap == pytest.approx(1, abs=1e-12)


def test_a_product_of_curves_is_flat() -> None:
    """A torus in four dimensions: both circles curve, their product has no curvature."""
    t = torch.arange(64, dtype=torch.float64) * 2 * math.pi / 64
    u, v = t, 0.8 * t.sin()
    zero = torch.zeros_like(t)
    first = torch.stack([-u.sin(), u.cos(), zero, zero], 1)
    second = torch.stack([zero, zero, -v.sin(), v.cos()], 1)
    hol = holonomy(frames_of(torch.stack([first, second], 2)))
    assert hol.angle < 1e-12


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_other_bases_change_no_phase(seed: int, r: int) -> None:
    g = torch.Generator().manual_seed(seed)
    t = torch.arange(24, dtype=torch.float64)[:, None, None] * 2 * math.pi / 24
    a, b, c = torch.randn(3, 6, r, generator=g, dtype=torch.float64)
    frames = frames_of(a + 0.3 * b * t.cos() + 0.3 * c * t.sin())
    plain, turned = holonomy(frames), holonomy(frames @ rotations(24, r, seed + 1))
    assert torch.allclose(plain.phases.abs(), turned.phases.abs(), atol=1e-7)
    assert plain.angle == pytest.approx(turned.angle, abs=1e-7)
    assert plain.overlap == pytest.approx(turned.overlap, abs=1e-12)
    far = rotations(1, 6, seed + 2)[0]
    assert holonomy(far @ frames).angle == pytest.approx(plain.angle, abs=1e-7)


def test_the_way_back_undoes_the_loop() -> None:
    frames = frames_of(latitude(0.9, 50))
    there, back = holonomy(frames), holonomy(torch.cat([frames[:1], frames[1:].flip(0)]))
    assert torch.allclose(there.matrix @ back.matrix, torch.eye(2, dtype=torch.float64), atol=1e-12)


def test_a_reflection_has_a_phase_of_half_a_turn() -> None:
    """The tangent line along a Möbius strip's middle: its normal comes back upside down."""
    t = torch.arange(60, dtype=torch.float64) * 2 * math.pi / 60
    normal = torch.stack([(t / 2).cos() * t.cos(), (t / 2).cos() * t.sin(), (t / 2).sin()], 1)
    hol = holonomy(frames_of(normal.unsqueeze(2)))
    assert hol.matrix.item() == pytest.approx(-1)
    assert hol.turn == pytest.approx(math.pi)
    assert not hol.value().reliable
    assert rotation_phases(torch.diag(torch.tensor([1.0, -1.0]))).tolist() == pytest.approx([math.pi, 0])


def test_small_angles_keep_their_digits() -> None:
    for angle in (1e-9, 1e-5, 0.1, 3.0):
        c, s = math.cos(angle), math.sin(angle)
        phases = rotation_phases(torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64))
        assert phases.abs().tolist() == pytest.approx([angle, angle, 0], rel=1e-6, abs=1e-15)


def test_a_frame_of_all_directions_has_no_holonomy() -> None:
    g = torch.Generator().manual_seed(0)
    assert holonomy(frames_of(torch.randn(12, 3, 3, generator=g, dtype=torch.float64))).angle < 1e-7


@pytest.mark.parametrize("seed", range(3))
def test_transport_is_the_nearest_rotation(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    a, b = frames_of(torch.randn(2, 5, 2, generator=g, dtype=torch.float64))
    best = transport(a, b)
    assert torch.allclose(transport(b, a), best.T, atol=1e-12)
    for other in rotations(200, 2, seed):
        assert float((b @ best - a).norm()) <= float((b @ other - a).norm()) + 1e-12


def test_levi_civita_transport_on_a_sphere() -> None:
    """A vector along a latitude turns by 2π cos(polar) against the meridian; its length stays."""
    polar, steps = 0.7, 400
    tangents = torch.cat([latitude(polar, steps), latitude(polar, steps)[:1]])
    carried = transport_vector(tangents, torch.tensor([1.0, 0.0]))
    lengths = (tangents @ carried.unsqueeze(2)).norm(dim=(1, 2))
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-12)
    azimuth = torch.arange(steps + 1, dtype=torch.float64) * 2 * math.pi / steps
    east = carried[:, 1] * math.sin(polar)
    want = torch.stack([(azimuth * math.cos(polar)).cos(), -(azimuth * math.cos(polar)).sin()], 1)
    assert torch.allclose(torch.stack([carried[:, 0], east], 1), want, atol=2e-4)


def test_the_area_of_polygons() -> None:
    square = torch.tensor([[0.0, 0], [2, 0], [2, 3], [0, 3]], dtype=torch.float64)
    assert loop_area(square) == pytest.approx(6)
    far = torch.cat([square, torch.full((4, 40), 7.0, dtype=torch.float64)], 1) @ rotations(1, 42, 0)[0]
    assert loop_area(far) == pytest.approx(6)
    assert loop_area(torch.cat([square, square.flip(0)])) == pytest.approx(0, abs=1e-12)


def test_small_loops_turn_by_curvature_times_area() -> None:
    radius, angles, areas = 2.0, [], []
    for polar in (0.2, 0.1, 0.05, 0.025):
        angles.append(holonomy(frames_of(latitude(polar, 200))).angle)
        t = torch.arange(200, dtype=torch.float64) * 2 * math.pi / 200
        circle = torch.stack([math.sin(polar) * t.cos(), math.sin(polar) * t.sin(), 0 * t + math.cos(polar)], 1)
        areas.append(loop_area(radius * circle))
    exponent, curvature = area_exponent(angles, areas)
    assert exponent == pytest.approx(1, abs=5e-3)
    assert curvature / math.sqrt(2) == pytest.approx(1 / radius**2, rel=2e-3)
    assert math.isnan(area_exponent([0.0, 1.0], [1.0, 2.0])[0])


def test_a_path_retraced_has_no_holonomy_but_noise() -> None:
    tangents = latitude(0.7, 24)
    assert float(within_noise(tangents, 0.0, draws=2).max()) < 1e-12
    small, large = (within_noise(tangents, e, draws=40, seed=1) for e in (1e-3, 1e-2))
    assert float(large.mean() / small.mean()) == pytest.approx(10, rel=0.1)
    assert float(large.max()) < holonomy(frames_of(tangents)).angle
    assert torch.equal(small, within_noise(tangents, 1e-3, draws=40, seed=1))


def test_the_null_holds_what_noise_does_to_a_flat_frame() -> None:
    """Angles of noisy copies of one frame: a tenth of them lies above the null's ninth decile, as it must."""
    g = torch.Generator().manual_seed(2)
    flat = torch.randn(5, 2, generator=g, dtype=torch.float64).expand(16, 5, 2)
    null = within_noise(flat, 0.05, draws=300, seed=3).sort().values
    noisy = [
        holonomy(frames_of(flat + 0.05 * torch.randn(flat.shape, generator=g, dtype=torch.float64))).angle
        for _ in range(300)
    ]
    above = sum(a > float(null[270]) for a in noisy) / 300
    assert above == pytest.approx(0.1, abs=4 * math.sqrt(2 * 0.09 / 300))


def test_too_few_directions_are_refused() -> None:
    still = torch.zeros(4, 3, 2, dtype=torch.float64)
    still[:, 0] = 1
    with pytest.raises(ShapeError, match="fewer than 2 independent directions"):
        frames_of(still)
    with pytest.raises(ShapeError, match="fewer than 3 independent directions"):
        frames_of(latitude(0.7, 5), rank=3)
    assert frames_of(still, rank=1).shape == (4, 3, 1)
    coarse = holonomy(frames_of(latitude(1.5, 3)))
    assert not coarse.resolved
    assert "take more steps" in coarse.value().note
