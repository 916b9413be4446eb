"""The rival's stated properties: what it is invariant to, where it is nought, and how it shrinks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from memspace.errors import SettingsError, ShapeError
from memspace.geometry.representation_holonomy import CLOUDS, representation_holonomy


def network(seed: int = 0, width: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, width)).double()


def circle(radius: float, steps: int = 12) -> Tensor:
    t = torch.arange(steps, dtype=torch.float64)[:, None] * 2 * math.pi / steps
    plane = torch.eye(4, dtype=torch.float64)
    return radius * (t.cos() * plane[0] + t.sin() * plane[1])


POOL = torch.randn(300, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SKEWED = POOL.exp()  # denser on one side


@pytest.mark.parametrize("clouds", CLOUDS)
def test_affine_maps_of_the_representation_change_nothing(clouds) -> None:
    net = network()
    g = torch.Generator().manual_seed(3)
    slant = torch.randn(6, 6, generator=g, dtype=torch.float64) + 3 * torch.eye(6)
    plain = representation_holonomy(net, circle(1.0), POOL, neighbours=40, clouds=clouds)
    moved = representation_holonomy(lambda x: net(x) @ slant + 5, circle(1.0), POOL, neighbours=40, clouds=clouds)
    assert plain.score > 1e-4
    assert moved.score == pytest.approx(plain.score, rel=1e-6)
    assert torch.allclose(moved.phases.abs(), plain.phases.abs(), atol=1e-7)


@pytest.mark.parametrize("pool", [POOL, SKEWED], ids=["even", "skewed"])
def test_an_affine_layer_scores_nought_with_moved_clouds_only(pool) -> None:
    layer = nn.Linear(4, 6).double()
    moved = representation_holonomy(layer, circle(1.0), pool, neighbours=40)
    assert moved.score < 1e-9
    assert moved.width == 4
    pooled = representation_holonomy(layer, circle(1.0), pool, neighbours=40, clouds="pooled")
    assert pooled.score > 1e-4  # the pool's own unevenness


@pytest.mark.parametrize("clouds", CLOUDS)
def test_small_loops_score_next_to_nothing(clouds) -> None:
    scores = [
        representation_holonomy(network(1), circle(r), POOL, neighbours=60, clouds=clouds).score
        for r in (1.0, 0.1, 0.01, 0.001)
    ]
    assert scores[-1] < 1e-3
    assert scores[-1] < 0.1 * scores[0]


def test_what_is_left_is_a_rotation() -> None:
    got = representation_holonomy(network(), circle(1.0), POOL, neighbours=30, rank=3)
    assert torch.allclose(got.matrix @ got.matrix.T, torch.eye(6, dtype=torch.float64), atol=1e-10)
    assert float(torch.linalg.det(got.matrix)) == pytest.approx(1)
    assert got.rank == 3
    assert 0 <= got.score <= 1
    small = got.angle**2 - float((got.matrix - torch.eye(6)).square().sum())
    assert small == pytest.approx(0, abs=got.angle**4)  # ‖log R‖ = ‖R − I‖ to third order


def test_wrong_settings() -> None:
    with pytest.raises(SettingsError, match="no clouds 'fog'"):
        representation_holonomy(network(), circle(1.0), POOL, clouds="fog")
    with pytest.raises(ShapeError, match="400 neighbours of a pool of 300"):
        representation_holonomy(network(), circle(1.0), POOL, neighbours=400)
    with pytest.raises(ShapeError, match="the same for every input"):
        representation_holonomy(lambda x: 0 * x, circle(1.0), POOL)
