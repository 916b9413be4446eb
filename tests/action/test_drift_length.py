"""The drift's length: equal to the closed form without noise, and free of the rate of recording with it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from memspace.action.drift import drift_along, readings_along
from memspace.action.lengths import lengths
from memspace.action.training import training_action
from memspace.action.windows import Drift, Readings
from memspace.geometry.distance import squared_distances
from memspace.geometry.path import walk
from memspace.progress import Silent
from memspace.task.likelihood import Gaussian
from memspace.task.task import Run, Task

LAW = Gaussian(1.0)
RATES = (4, 8, 16, 32)


def _arc(steps: int, dims: int, radius: float, angle: float, pace: float) -> tuple[Tensor, float]:
    """A circle's arc walked ever more slowly, (steps + 1, 1, dims), and its length."""
    t = torch.arange(steps + 1, dtype=torch.float64)
    at = angle * (1 - torch.exp(-pace * t / steps))
    path = torch.zeros(steps + 1, 1, dims, dtype=torch.float64)
    path[:, 0, 0], path[:, 0, 1] = radius * torch.sin(at), radius * torch.cos(at)
    return path, radius * float(at[-1])


def _noise(seed: int, steps: int, dims: int, size: float, memory: float, momentum: float = 0.0) -> Tensor:
    """Steps of independent (or momentum-averaged) noise, undone at the rate 1/memory."""
    g = torch.Generator().manual_seed(seed)
    x, b, out = torch.zeros(dims, dtype=torch.float64), torch.zeros(dims, dtype=torch.float64), []
    for _ in range(steps + 1):
        out.append(x)
        b = momentum * b + (1 - momentum) * size * torch.randn(dims, generator=g, dtype=torch.float64)
        x = x * (1 - 1 / memory) + b
    return torch.stack(out).unsqueeze(1)


def _at(path: Tensor, every: int) -> Drift:
    return drift_along(LAW, path[::every], list(range(0, len(path), every)))


def _readings(path: Tensor, every: int) -> Readings:
    return readings_along(LAW, path[::every], list(range(0, len(path), every)))


def _length(drift: Drift) -> float:
    return drift.length


@pytest.mark.parametrize("every", RATES)
def test_without_noise_it_is_the_length(every: int) -> None:
    path, length = _arc(1024, 3, 2.0, 2.0, 4.0)
    drift = _at(path, every)
    # A chord of angle a is short by a²/24; the fastest of these covers so much of the whole.
    widest = 2.0 * 4.0 * every / 1024
    assert length * (1 - widest**2 / 24 - 0.01) <= drift.length <= length * (1 + 1e-9)
    assert drift.noise_share < 0.01


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("memory", "momentum", "size"), [(30, 0.0, 0.004), (1e9, 0.0, 0.002), (100, 0.9, 0.01)])
def test_in_the_transient_it_does_not_depend_on_the_rate(
    seed: int, memory: float, momentum: float, size: float
) -> None:
    path, length = _arc(1024, 40, 3.0, 2.0, 4.0)
    noisy = path + _noise(seed, 1024, 40, size, memory, momentum)
    found = {every: _at(noisy, every) for every in RATES}
    plain = {every: float(torch.diff(noisy[::every, 0], dim=0).norm(dim=1).sum()) for every in RATES}
    for every in RATES:
        readings = _readings(noisy, every)
        below, above = readings.doubt(_length)
        assert readings.best.length - below <= length <= readings.best.length + above
        for other in found.values():  # whatever rate it is recorded at
            assert readings.best.length - below <= other.length <= readings.best.length + above
    if momentum == 0:
        assert plain[RATES[0]] > 1.25 * plain[RATES[-1]]  # what a length by checkpoints would say
        assert found[RATES[0]].noise_share > found[RATES[-1]].noise_share


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_at_stationarity_there_is_next_to_none(seed: int) -> None:
    dims, size, memory = 40, 0.01, 30.0
    noise = _noise(seed, 2048, dims, size, memory)[256:]
    # The structure function of the noise ends at twice its variance in all dimensions.
    amplitude = math.sqrt(2 * dims * size**2 * memory / 2)
    for every in RATES:
        drift = _at(noise, every)
        assert drift.length <= 2 * amplitude
        assert float(torch.diff(noise[::every, 0], dim=0).norm(dim=1).sum()) > 20 * amplitude
        assert drift.noise_share > 0.95


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("every", [4, 160])
def test_no_length_is_below_the_distance_of_the_ends(noisy: bool, every: int) -> None:
    """Ends of mere noise lie apart, which no drift has walked; still no path between them is shorter."""
    path = (_noise(6, 2048, 40, 0.01, 30.0)[256:] if noisy else _arc(1024, 3, 2.0, 2.0, 4.0)[0])[::every]
    path = torch.cat([path, path + 0.01 * torch.randn(path.shape, generator=torch.Generator().manual_seed(0))], 1)
    ends = squared_distances(LAW, path[0], path[-1])
    readings = readings_along(LAW, path, list(range(0, every * len(path), every)))
    measured, _ = lengths(walk(LAW, path), None, ends, len(path), readings)
    found = {m.name: m for m in measured}
    apart, length = found["action.ambient_distance"], found["action.drift_length"]
    assert length.value >= apart.value
    assert length.interval is not None
    assert apart.interval is not None
    assert length.interval[0] >= apart.interval[0] - 1e-12
    assert found["action.inefficiency"].value >= 1
    assert found["action.inefficiency"].interval is not None
    assert found["action.inefficiency"].interval[0] >= 1 - 1e-12
    assert ("the least possible" in length.note) == (readings.best.length < apart.value)
    assert not noisy or every > 4 or "the least possible" in length.note


def test_recorded_single_steps_keep_bends_from_passing_for_noise() -> None:
    """A zigzag between checkpoints is noise to them; that its single steps are short says that it is not."""
    t = torch.arange(2049, dtype=torch.float64)
    path = torch.stack([t / 512, 0.35 * torch.sin(2 * math.pi * t / 500)], 1).unsqueeze(1)
    steps = torch.diff(path[:, 0], dim=0).square().sum(1)
    recorded = [(k + 1, float(steps[k])) for k in range(0, 2048, 16)]
    blind = drift_along(LAW, path[::128], list(range(0, 2049, 128)))
    told = drift_along(LAW, path[::128], list(range(0, 2049, 128)), one_step=recorded)
    plain = float(torch.diff(path[::128, 0], dim=0).norm(dim=1).sum())
    assert blind.length < 0.8 * plain
    # 128 steps of noise that lasts for 19 of them are at most 19/128 of a straight window's squared distance.
    assert 0.8 * plain < told.length <= plain


def _sgd(seed: int, steps: int, batch: int) -> tuple[nn.Module, Tensor, Tensor, list[dict[str, Tensor]]]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(400, 10, generator=g, dtype=torch.float64)
    y = torch.multinomial(torch.softmax(1.5 * x[:, :4], 1), 1, generator=g).squeeze(1)
    model = nn.Linear(10, 4).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    states = []
    for _ in range(steps + 1):
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        index = torch.randint(0, 400, (batch,), generator=g) if batch < 400 else torch.arange(400)
        model.zero_grad()
        nn.functional.cross_entropy(model(x[index]), y[index]).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.03 * p.grad if p.grad is not None else 0
    return model, x, y, states


def _measured(model: nn.Module, x: Tensor, y: Tensor, states: list[dict[str, Tensor]], every: int) -> dict[str, float]:
    kept = states[::every]
    steps = tuple(range(0, len(states), every))
    model.load_state_dict(kept[-1])
    run = Run(tuple(kept), tuple(0.03 * s for s in steps), steps)
    task = Task(model=model, train=(x, y), run=run)
    action = training_action(task, progress=Silent(), probe=200, slope_probe=8)
    found = {m.name: m for m in action.measurements}
    drift = found["action.drift_length"]
    assert drift.interval is not None
    assert drift.interval[0] <= drift.value <= drift.interval[1]
    return {"drift": drift.value, "plain": found["action.length"].value, "width": drift.interval[1] - drift.interval[0]}


def test_stochastic_gradient_descent_recorded_at_three_rates() -> None:
    """Beside the full gradient's path from the same start: the mean path is the same to the first order of the rate."""
    noisy, whole = _sgd(1, 768, 8), _sgd(1, 768, 400)
    found = [_measured(*noisy, every) for every in (16, 32, 64)]
    smooth = _measured(*whole, 16)
    lengths = [r["drift"] for r in found]
    assert found[0]["plain"] > 1.2 * found[2]["plain"]
    assert max(lengths) - min(lengths) < 0.1 * lengths[0]
    assert lengths[0] == pytest.approx(smooth["drift"], rel=0.15)
    assert smooth["drift"] == pytest.approx(smooth["plain"], rel=0.02)
