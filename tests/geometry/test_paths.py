"""Distances and lengths whose answer is known, and the chain distance ≤ any path."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memspace.geometry.distance import output_distance, squared_distances
from memspace.geometry.path import every_second, outputs_along, straight_line, walk
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Likelihood, Poisson
from memspace.task.task import Task

P, Q = (torch.tensor(v, dtype=torch.float64) for v in ([0.7, 0.2, 0.1], [0.05, 0.15, 0.8]))
ANGLE = math.acos(float((P * Q).sqrt().sum()))


def _great_circle(steps: int) -> Tensor:
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:, None]
    root = (torch.sin((1 - t) * ANGLE) * P.sqrt() + torch.sin(t * ANGLE) * Q.sqrt()) / math.sin(ANGLE)
    return root.square().log().unsqueeze(1)


def _mixture(steps: int) -> Tensor:
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:, None]
    return ((1 - t) * P + t * Q).log().unsqueeze(1)


@pytest.mark.parametrize("steps", [1, 5, 50, 500])
def test_a_great_circle_has_its_length_at_every_stride(steps: int) -> None:
    """The closed-form step has no bias, unlike √(2 KL) or √(8 JSD)."""
    path = walk(Categorical(), _great_circle(steps))
    assert path.length == pytest.approx(2 * ANGLE, rel=1e-11)
    assert abs(path.error) < 1e-10


def test_a_smooth_path_converges_to_second_order_from_below() -> None:
    lengths = [walk(Categorical(), _mixture(k)).length for k in (10, 20, 40, 640)]
    assert lengths == sorted(lengths)
    short = [lengths[-1] - v for v in lengths[:3]]
    assert short[0] / short[1] == pytest.approx(4, rel=0.05)
    assert short[1] / short[2] == pytest.approx(4, rel=0.05)
    fine = walk(Categorical(), _mixture(40))
    assert fine.error / 3 == pytest.approx(short[2], rel=0.05)  # Richardson: a third of the last change remains
    assert lengths[-1] > 2 * ANGLE


def test_constant_speed_has_the_least_action() -> None:
    path = walk(Categorical(), _great_circle(20))
    even = torch.linspace(0, 1, 21, dtype=torch.float64)
    assert path.action(even.tolist()) == pytest.approx(path.length**2 / 2, rel=1e-9)
    assert path.action(even.square().tolist()) > 1.05 * path.length**2 / 2
    with pytest.raises(ValueError, match="moves forward"):
        path.action([0.0] * 21)


def test_the_distance_is_the_root_mean_square_over_examples_of_the_sum_over_positions() -> None:
    law = Gaussian(0.5)
    f, g = torch.zeros(2, 3, 1), torch.tensor([[[1.0], [2.0], [0.0]], [[0.0], [0.0], [3.0]]])
    assert squared_distances(law, f, g).tolist() == pytest.approx([20.0, 36.0])
    assert output_distance(law, f, g)[0] == pytest.approx(28**0.5)
    mask = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    assert squared_distances(law, f, g, mask).tolist() == pytest.approx([4.0, 36.0])


def test_standard_errors_agree_with_new_samples() -> None:
    g = torch.Generator().manual_seed(0)
    f = torch.randn(3, 200 * 300, 4, generator=g, dtype=torch.float64)
    draws = f.reshape(3, 300, 200, 4).unbind(1)
    distances = [output_distance(Categorical(), d[0], d[2]) for d in draws]
    walks = [walk(Categorical(), d) for d in draws]
    for values, errors in (
        ([d for d, _ in distances], [e for _, e in distances]),
        ([w.length for w in walks], [w.length_error() for w in walks]),
        (
            [w.action([0.0, 1.0, 3.0]) for w in walks],
            [float(w.action_effect([0.0, 1.0, 3.0]).std()) / 200**0.5 for w in walks],
        ),
    ):
        spread = float(torch.tensor(values).std())
        assert float(torch.tensor(errors).mean()) == pytest.approx(spread, rel=0.15)


def test_no_movement_has_no_length() -> None:
    path = walk(Categorical(), torch.zeros(3, 5, 4))
    assert path.length == path.length_error() == 0
    assert output_distance(Categorical(), torch.zeros(5, 4), torch.zeros(5, 4)) == (0, 0)


def test_every_second_node_keeps_the_ends() -> None:
    assert every_second(5) == [0, 2, 4]
    assert every_second(6) == [0, 2, 4, 5]
    assert every_second(2) == [0, 1]


class Net(nn.Module):
    """Linear, batch norm, dropout: buffers that do not float, and two modes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.drop, self.b = nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.drop(torch.relu(self.norm(self.a(x)))))  # type: ignore[no-any-return]


def test_following_a_path_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    a, b = Net().double(), Net().double()
    b(torch.randn(8, 3, dtype=torch.float64))
    a.train()
    a.norm.eval()
    x, y = torch.randn(12, 3, dtype=torch.float64), torch.zeros(12, dtype=torch.long)
    before = {k: v.clone() for k, v in a.state_dict().items()}
    random = torch.get_rng_state()
    index = torch.tensor([1, 5, 7])
    f, labels = outputs_along(Task(model=a, train=(x, y)), straight_line(before, b.state_dict(), 4), index)
    assert f.shape == (4, 3, 2)
    assert f.dtype == torch.float64
    assert len(labels) == 3
    assert all(torch.equal(v, before[k]) for k, v in a.state_dict().items())
    assert (a.training, a.drop.training, a.norm.training) == (True, True, False)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.allclose(f[0], a.eval()(x[index]))
    assert torch.allclose(f[-1], b.eval()(x[index]))


LAWS = (Categorical(), Bernoulli(), Gaussian(0.7), Poisson())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LAWS), st.integers(0, 10_000), st.integers(2, 7), st.floats(0.05, 3.0))
def test_no_path_is_shorter_than_the_distance_of_its_ends(law: Likelihood, seed: int, nodes: int, size: float) -> None:
    g = torch.Generator().manual_seed(seed)
    f = size * torch.randn(nodes, 4, 3, generator=g, dtype=torch.float64)
    path, ambient = walk(law, f), output_distance(law, f[0], f[-1])[0]
    assert ambient <= path.coarse * (1 + 1e-9) + 1e-12
    assert path.coarse <= path.length * (1 + 1e-9) + 1e-12
    time = torch.rand(nodes, generator=g, dtype=torch.float64).add(0.01).cumsum(0)
    duration = float(time[-1] - time[0])
    assert path.action(time.tolist()) >= path.length**2 / (2 * duration) * (1 - 1e-9)
    # An order of examples or a shift of all logits of a class law changes nothing.
    order = torch.randperm(4, generator=g)
    assert walk(law, f[:, order]).length == pytest.approx(path.length, rel=1e-9)
