"""Loops of factors through representations whose curvature is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from memspace import Factors
from memspace.errors import SettingsError, ShapeError
from memspace.geometry.factor_loop import (
    differences,
    full_turn,
    jacobian_frames,
    local_frames,
    loop_holonomy,
    read_at,
    rectangle,
    turn_holonomy,
)
from memspace.geometry.holonomy import area_exponent, holonomy
from memspace.value import Absent, Value


def plain(levels: Tensor) -> Tensor:
    return levels.double()


def sphere(x: Tensor) -> Tensor:
    """Colatitude and azimuth to the unit sphere."""
    a, b = x[:, 0], x[:, 1]
    return torch.stack([a.sin() * b.cos(), a.sin() * b.sin(), a.cos()], 1)


def torus(x: Tensor) -> Tensor:
    """Each factor on a circle of its own."""
    a, b = x[:, 0], x[:, 1]
    return torch.stack([a.cos(), a.sin(), 2 * b.cos(), 2 * b.sin()], 1)


def value(got: Value | Absent) -> Value:
    assert isinstance(got, Value)
    return got


BASE = torch.tensor([1.0, 0.3, 5.0], dtype=torch.float64)


@pytest.mark.parametrize("size", [(0.6, 0.8), (0.3, 1.1), (1.0, 1.0)])
def test_a_rectangle_on_the_sphere_turns_by_its_solid_angle(size) -> None:
    """Area between two latitudes over an azimuth: Δφ (cos θ₁ − cos θ₂)."""
    want = size[1] * (math.cos(1 - size[0] / 2) - math.cos(1 + size[0] / 2))
    errors = []
    for steps in (8, 16, 32):
        levels = rectangle(BASE, 0, 1, size, steps)
        got = loop_holonomy(sphere, plain, levels, (0, 1), step=1e-3)
        errors.append(abs(got.loop.turn - want))
        measured = value(got.value())
        low, high = measured.interval
        assert low <= math.sqrt(2) * want <= high
        assert measured.reliable
    # Corners don't matter: frames depend on the place alone. The differences' own error of 1e-6/6 remains.
    assert errors[1] / errors[0] == pytest.approx(1 / 4, abs=0.03)
    assert errors[2] / errors[1] == pytest.approx(1 / 4, abs=0.03)


def test_a_product_and_a_linear_encoder_have_none() -> None:
    levels = rectangle(BASE, 0, 1, 1.0, 12)
    assert loop_holonomy(torus, plain, levels, (0, 1), step=1e-3).angle < 1e-9
    torch.manual_seed(0)
    linear = nn.Linear(3, 6).double()
    got = loop_holonomy(linear, plain, levels, (0, 1, 2))
    assert got.angle < 1e-7
    assert got.area > 0


def test_the_angle_shrinks_as_the_area() -> None:
    torch.manual_seed(1)
    curved = nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Linear(20, 8)).double()
    loops = [loop_holonomy(curved, plain, rectangle(BASE, 0, 1, s, 16), (0, 1)) for s in (0.4, 0.2, 0.1, 0.05)]
    exponent, _ = area_exponent([h.angle for h in loops], [h.area for h in loops])
    assert exponent == pytest.approx(1, abs=0.03)


def test_frames_that_fill_the_representation_are_no_measurement() -> None:
    torch.manual_seed(1)
    narrow = nn.Sequential(nn.Linear(3, 9), nn.Tanh(), nn.Linear(9, 2)).double()
    got = loop_holonomy(narrow, plain, rectangle(BASE, 0, 1, 1.0, 8), (0, 1))
    assert got.angle < 1e-7
    absent = got.value()
    assert isinstance(absent, Absent)
    assert "spans the whole representation" in absent.reason


def test_factors_are_rendered_and_the_network_left_as_it_was() -> None:
    torch.manual_seed(0)
    values = torch.randint(0, 5, (40, 3))
    factors = Factors(("a", "b", "c"), values, values.double(), (5, 5, 5), plain)
    network = nn.Sequential(nn.Linear(3, 7), nn.Dropout(0.5), nn.Tanh()).double().train()
    assert factors.render is not None
    levels = rectangle(factors.values[0].double(), 1, 2, 2.0, 6)
    one, two = (loop_holonomy(network, factors.render, levels, (1, 2)) for _ in range(2))
    assert one.angle == two.angle
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert read_at(network, plain, levels).shape == (24, 7)


def test_levels_of_loops() -> None:
    levels = rectangle(BASE, 2, 0, (2.0, 1.0), 4)
    assert levels.shape == (16, 3)
    assert torch.equal(
        levels[[0, 4, 8, 12]][:, [2, 0]], torch.tensor([[4, 0.5], [6, 0.5], [6, 1.5], [4, 1.5]]).double()
    )
    assert torch.allclose(levels.mean(0), BASE)
    assert bool((levels[:, 1] == 0.3).all())
    turn = full_turn(BASE, 1, 40, 8)
    assert turn[:, 1].tolist() == pytest.approx([0.3 + 5 * k for k in range(8)])
    for first, second, steps in ((0, 0, 4), (0, 1, 1)):
        with pytest.raises(SettingsError, match="encloses nothing"):
            rectangle(BASE, first, second, 1.0, steps)


def test_derivatives_by_factors() -> None:
    levels = torch.rand(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = differences(sphere, plain, levels, (1, 0), step=1e-4)
    (a, b, _), zero = levels.T, torch.zeros(20, dtype=torch.float64)
    second = torch.stack([-a.sin() * b.sin(), a.sin() * b.cos(), zero], 1)
    first = torch.stack([a.cos() * b.cos(), a.cos() * b.sin(), -a.sin()], 1)
    want = torch.stack([second, first], 2)
    assert torch.allclose(got, want, atol=1e-8)


def test_a_full_turn_on_a_latitude() -> None:
    """Factor 1 turns through its period of 2π; the frame of both directions comes back turned by the solid angle."""
    levels = full_turn(torch.tensor([0.7, 0.0]), 1, 2 * math.pi, 128)
    got = loop_holonomy(sphere, plain, levels, (0, 1), step=1e-3)
    assert got.loop.turn == pytest.approx(2 * math.pi * (1 - math.cos(0.7)), abs=5e-4)
    null = got.null(1e-3, draws=60)
    assert null.interval is not None
    assert null.interval[1] < got.angle
    assert got.area == pytest.approx(math.pi * math.sin(0.7) ** 2, rel=2e-3)


def test_frames_of_a_jacobian() -> None:
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 6)).double()
    x = torch.randn(7, 5, dtype=torch.float64)
    with torch.no_grad():
        slope = 1 - network[0](x).tanh().square()
        jacobian = network[2].weight @ (slope.unsqueeze(2) * network[0].weight)
    frames = jacobian_frames(network, x, 2)
    u = torch.linalg.svd(jacobian).U
    assert torch.allclose(frames @ frames.mT, u[:, :, :2] @ u[:, :, :2].mT, atol=1e-9)
    assert not x.requires_grad
    linear = nn.Linear(5, 6).double()
    assert holonomy(jacobian_frames(linear, x, 2)).angle < 1e-7


def test_a_flat_curve_has_no_turn_and_a_curve_through_space_has_one() -> None:
    t = torch.arange(72, dtype=torch.float64) * 2 * math.pi / 72
    flat = torch.stack([2 * t.cos(), t.sin(), 0 * t + 1], 1)
    assert value(turn_holonomy(lambda at: local_frames(flat[at]), 72)).value < 1e-7
    wavy = torch.randn(10, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bent = torch.stack([t.cos(), t.sin(), 0.4 * (2 * t).cos()], 1)
    assert value(turn_holonomy(lambda at: local_frames(bent[at]), 72)).value > 0.1
    assert isinstance(turn_holonomy(lambda at: local_frames(flat[at, :2]), 72), Absent)
    with pytest.raises(ShapeError, match="give no 3 directions"):
        local_frames(bent, 3)
    crude = value(turn_holonomy(lambda at: local_frames(wavy[at]), 10))
    assert not crude.reliable
    assert "take more steps" in crude.note


def test_the_interval_of_a_turn_holds_the_continuous_angle() -> None:
    """Random smooth closed curves seen at 72 poses, against the same at 720: all but a few inside."""
    g = torch.Generator().manual_seed(5)
    inside, reliable = 0, 0
    for _ in range(30):
        waves = torch.randn(2, 3, 5, generator=g, dtype=torch.float64) / torch.arange(1, 4)[:, None]

        def curve(count: int, waves: Tensor = waves) -> Tensor:
            t = torch.arange(count, dtype=torch.float64)[:, None] * 2 * math.pi / count
            k = torch.arange(1, 4)
            return (t * k).cos() @ waves[0] + (t * k).sin() @ waves[1]

        fine, seen = curve(720), curve(72)
        want = holonomy(local_frames(fine)).angle
        got = value(turn_holonomy(lambda at, seen=seen: local_frames(seen[at]), 72))
        if got.reliable:
            reliable += 1
            inside += got.interval[0] <= want <= got.interval[1]
    assert reliable >= 15
    assert inside >= 0.95 * reliable - 2 * math.sqrt(0.95 * 0.05 * reliable)
