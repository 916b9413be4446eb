"""Relative curvature of predictions: circles, parabolas, affine models, and differences of real networks."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from memspace.measures.predictors.curvature import (
    Bends,
    bends_along,
    curvature_at_random,
    curvature_of_stiff,
    relative_curvature,
)
from memspace.passes.linearise import function_of_parameters
from memspace.passes.verify import checked_space
from memspace.task.data import Data
from memspace.task.likelihood import Categorical, Gaussian
from memspace.task.task import Task
from memspace.testing import check_measure
from tests.zoo.measured_networks import FAMILIES, perceptron_task


class Curve(nn.Module):
    """Outputs that follow a curve of one parameter, alike for every example."""

    def __init__(self, at: float, curve: Callable[[Tensor], list[Tensor]]) -> None:
        super().__init__()
        self.t, self.curve = nn.Parameter(torch.tensor([at], dtype=torch.float64)), curve

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.curve(self.t)) + 0 * x


def _curve_task(at: float, curve: Callable[[Tensor], list[Tensor]], sigma: float = 1.0) -> Task:
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(6, 2)
    return Task(Curve(at, curve), Data((x, torch.zeros(6, 2, dtype=torch.float64))), Gaussian(sigma))


def _bend(task: Task, directions: Tensor) -> Tensor:
    return bends_along(task, checked_space(task), directions, torch.arange(len(task.train)))


@pytest.mark.parametrize("radius", [0.2, 1.0, 7.0])
@pytest.mark.parametrize("sigma", [1.0, 0.5])
def test_a_circle_has_the_inverse_of_its_radius(radius: float, sigma: float) -> None:
    task = _curve_task(0.7, lambda t: [radius * t.cos(), radius * t.sin()], sigma)
    found = _bend(task, torch.tensor([[1.0], [-30.0]]))
    assert found.tolist() == pytest.approx([sigma / radius] * 2, rel=1e-9)


@pytest.mark.parametrize("at", [-1.0, 0.0, 0.4])
def test_a_parabola(at: float) -> None:
    found = _bend(_curve_task(at, lambda t: [t, t.square()]), torch.ones(1, 1))
    assert float(found) == pytest.approx(2 / (1 + 4 * at**2) ** 1.5, rel=1e-9)


def test_a_line_taken_at_any_speed_is_straight() -> None:
    assert float(_bend(_curve_task(0.5, lambda t: [t.exp(), 3 * t.exp()]), torch.ones(1, 1))) < 1e-7


@pytest.mark.parametrize("law", [Categorical(), Gaussian(1.0)])
def test_outputs_affine_in_the_weights_are_straight(law: Categorical | Gaussian) -> None:
    torch.manual_seed(0)
    x = torch.randn(30, 4, dtype=torch.float64)
    y = torch.randint(3, (30,)) if isinstance(law, Categorical) else torch.randn(30, 3, dtype=torch.float64)
    task = Task(nn.Linear(4, 3).double(), Data((x, y)), law)
    assert _bend(task, torch.randn(3, 15)).tolist() == [0.0] * 3


def test_the_inner_product_is_the_output_law_s() -> None:
    generator = torch.Generator().manual_seed(1)
    f, v, a = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    p = torch.softmax(f, -1)
    h = torch.block_diag(*(torch.diag(q) - torch.outer(q, q) for q in p)) / 5

    def dot(left: Tensor, right: Tensor) -> float:
        return float(left.flatten() @ h @ right.flatten())

    across = a - v * dot(a, v) / dot(v, v)
    found, squared = relative_curvature(Categorical(), f, torch.zeros(5, dtype=torch.long), v[None], a[None])
    assert float(found) == pytest.approx(math.sqrt(dot(across, across)) / dot(v, v), rel=1e-10)
    assert float(squared) == pytest.approx(dot(v, v), rel=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_velocity_and_acceleration_are_those_of_differences(name: str) -> None:
    task = FAMILIES[name](n=12, width=5, steps=10, dtype=torch.float64)
    space = checked_space(task)
    direction = torch.randn(space.size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    batch = task.train.batch(range(12))
    f, h = function_of_parameters(task, batch.x), 1e-5  # error h² of the third derivative, rounding 1e-16/h²
    theta = space.flat(task.model)
    before, here, after = (f(space.unpack(theta + s * direction)).detach() for s in (-h, 0.0, h))
    velocity, acceleration = (after - before) / (2 * h), (after - 2 * here + before) / h**2
    expected, _ = relative_curvature(task.likelihood, here, batch.y, velocity[None], acceleration[None])
    found = bends_along(task, space, direction.unsqueeze(0), torch.arange(12))
    assert float(found) == pytest.approx(float(expected), rel=1e-3)


def test_a_line_that_moves_nothing_has_no_curvature() -> None:
    task = _curve_task(0.3, lambda t: [0 * t, 0 * t + 1])
    assert torch.isnan(_bend(task, torch.ones(1, 1))).all()


def test_the_measures_state_their_lines() -> None:
    assert curvature_of_stiff(Bends((1.0, 3.0), (2.0, 4.0, 6.0), 50)).value == 2.0
    random = curvature_at_random(Bends((1.0, 3.0), (2.0, 4.0, 6.0), 50))
    assert (random.value, random.n) == (4.0, 50)
    assert random.note == "2 to 6 over 3 lines"


@pytest.mark.parametrize("function", [curvature_of_stiff, curvature_at_random])
def test_the_contract(function: object) -> None:
    check_measure(function, perceptron_task(n=40, width=5, steps=10))  # type: ignore[arg-type]
