"""Intervals of lengths and what is made of them cover over new draws of examples, and are no wider than that takes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from memspace.action.drift import readings_along
from memspace.action.lengths import bought, clocked_action, lengths
from memspace.geometry.distance import squared_distances
from memspace.geometry.path import walk
from memspace.measurement import Measurement
from memspace.task.likelihood import Gaussian

LAW = Gaussian(1.0)
STEPS, N, DRAWS = 13, 60, 250
T = torch.linspace(0, 1, STEPS, dtype=torch.float64)


def _measured(pace: Tensor, seed: int) -> dict[str, Measurement]:
    """Examples of different pace along a straight line: nothing but their choice is uncertain."""
    g = torch.Generator().manual_seed(seed)
    each = pace[torch.randint(len(pace), (N,), generator=g)]
    f = (T[:, None] * each).unsqueeze(-1)
    readings = readings_along(LAW, f, list(range(STEPS)))
    path = walk(LAW, f)
    made, absent = lengths(path, path, squared_distances(LAW, f[0], f[-1]), STEPS, readings)
    assert not absent
    made += [clocked_action(path, readings, T.tolist(), STEPS), bought(torch.stack([each, 0 * each]))]
    return {m.name.removeprefix("action."): m for m in made}


def test_over_new_examples_every_interval_covers_as_often_as_it_says() -> None:
    torch.manual_seed(5)
    pace = torch.distributions.Gamma(4.0, 4.0).sample((20_000,)).double()
    length = float(pace.square().mean().sqrt())
    truth = {
        "length": length,
        "drift_length": length,
        "constant_speed": length**2 / 2,
        "ambient_distance": length,
        "straight_line_length": length,
        "learning_rate_time": length**2 / 2,
        "loss_bought": float(pace.mean()),
    }
    found = [_measured(pace, seed) for seed in range(DRAWS)]
    for name, true in truth.items():
        intervals = [m[name].interval for m in found]
        inside = sum(i[0] <= true <= i[1] for i in intervals if i is not None) / DRAWS
        # Four standard errors of a share of 0.95 among 250 are 0.055; an interval half as wide covers 0.67.
        assert 0.895 <= inside <= 0.992, name
        spread = float(torch.tensor([m[name].value for m in found]).std())
        width = sum(i[1] - i[0] for i in intervals if i is not None) / DRAWS
        assert width == pytest.approx(4 * spread, rel=0.25), name  # squares are skewed, which widens
        assert sum(m[name].value for m in found) / DRAWS == pytest.approx(true, abs=4 * spread / math.sqrt(DRAWS)), name
    for m in found:
        assert m["inefficiency"].value == pytest.approx(1)
        assert m["over_straight_line"].value == pytest.approx(1)


@pytest.mark.parametrize("every", [4, 16])
def test_the_least_action_is_half_the_squared_length_with_its_interval(every: int) -> None:
    g = torch.Generator().manual_seed(1)
    angle = torch.linspace(0, 2, 513, dtype=torch.float64)
    f = torch.stack([angle.cos(), angle.sin()], 1).unsqueeze(1) * (0.5 + torch.rand(1, 30, 1, generator=g).double())
    f = (f + 0.003 * torch.randn(f.shape, generator=g, dtype=torch.float64).cumsum(0))[::every]
    readings = readings_along(LAW, f, list(range(0, 513, every)))
    made, _ = lengths(walk(LAW, f), None, squared_distances(LAW, f[0], f[-1]), len(f), readings)
    found = {m.name: m for m in made}
    length, least = found["action.drift_length"], found["action.constant_speed"]
    assert length.interval is not None
    assert least.interval is not None
    assert least.value == pytest.approx(length.value**2 / 2)
    assert least.interval == pytest.approx(tuple(v**2 / 2 for v in length.interval), rel=1e-9)
    below, above = readings.doubt(lambda d: max(d.length, found["action.ambient_distance"].value))
    assert length.interval[0] <= max(length.value - below, found["action.ambient_distance"].value)
    assert length.interval[1] >= length.value + above
    ratio = found["action.inefficiency"]
    assert ratio.value == pytest.approx(length.value / found["action.ambient_distance"].value)
