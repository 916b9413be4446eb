"""Paths between networks: bounds that hold on every pair, lengths that are known, the model left alone."""

import math

import pytest
import torch
from torch import nn

from memspace.errors import TaskError
from memspace.geometry.embedding import embed, squared_steps
from memspace.geometry.geodesic import GeodesicSettings, geodesic, path_length
from memspace.geometry.layers import layer_lengths
from memspace.geometry.stacked import held_between, probe_of
from memspace.geometry.string import midpoints, relax, respaced
from memspace.passes.space import ParameterSpace
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Poisson
from memspace.task.task import Task

LAWS = (Categorical(), Bernoulli(), Gaussian(0.7), Poisson())


def network(seed, activation=nn.Tanh, outputs=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, outputs)).double().eval()


def task_of(model, law=None, outputs=3, n=30):
    g = torch.Generator().manual_seed(5)
    x = torch.randn(n, 4, generator=g, dtype=torch.float64)
    law = Categorical() if law is None else law
    if isinstance(law, Categorical):
        y = torch.randint(0, outputs, (n,), generator=g)
    else:
        y = torch.randint(0, 2, (n, outputs), generator=g).double()
    return Task(model=model, train=(x, y), likelihood=law)


def copy(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_the_arc_over_the_chord_is_the_distance_and_can_be_differentiated(law):
    g = torch.Generator().manual_seed(0)
    f = torch.randn(2, 200, 4, generator=g, dtype=torch.float64) * torch.logspace(-8, 0.7, 200).double()[:, None]
    d = squared_steps(law, f)[0].sqrt()
    assert torch.allclose(d, law.distance(f[0], f[1]), rtol=1e-7, atol=1e-14)
    # ‖dφ‖² is the metric.
    one, v = f[0].clone(), torch.randn(200, 4, generator=g, dtype=torch.float64)
    _, moved = torch.func.jvp(lambda z: embed(law, z), (one,), (v,))
    assert torch.allclose(moved.square().sum(-1), (v * law.fisher_matvec(one, v)).sum(-1), rtol=1e-10, atol=1e-14)
    same = f[:1].expand(2, 200, 4).clone().requires_grad_()
    squared_steps(law, same).sum().backward()
    assert bool(torch.isfinite(same.grad).all())


def test_an_output_law_without_an_embedding_is_refused():
    class Other(Gaussian):
        pass

    class Strange(Other):
        def coordinates(self, f):
            return None

    assert torch.equal(embed(Other(2.0), torch.ones(3)), torch.full((3,), 0.5))
    with pytest.raises(TaskError, match="no embedding"):
        embed(Strange(2.0), torch.ones(3))


@pytest.mark.parametrize("seed", range(4))
def test_lower_found_straight_and_given_stand_in_order(seed):
    law = LAWS[seed]
    a, b, c = (copy(network(10 * seed + k)) for k in range(3))
    task = task_of(network(99), law)
    bent = [{k: (a[k] + b[k]) / 2 + 0.3 * c[k] for k in a}]
    g = geodesic(task, a, b, path=[a, *bent, b], settings=GeodesicSettings(levels=(5, 9), limit=60, seed=seed))
    assert g.lower <= g.length.measured * (1 + 1e-12)
    for other in (g.straight, g.given):
        assert g.length.value <= other.value * (1 + 1e-12)
    assert g.given.value > g.straight.value * 1.01  # the detour is one
    assert 0 <= g.uneven < 0.01  # constant speed
    # The Richardson value is what a much finer cut measures.
    fine = path_length(g.probe, midpoints(g.points, 4))
    assert g.length.value == pytest.approx(fine.value, rel=1e-4)
    assert all(torch.equal(g.states[0][k], a[k]) and torch.equal(g.states[-1][k], b[k]) for k in a)
    before = copy(network(99))
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())


def test_a_linear_model_with_gaussian_noise_has_straight_geodesics():
    model = nn.Sequential(nn.Linear(4, 3)).double().eval()
    task = task_of(model, Gaussian(0.5))
    a, b = copy(model), {k: torch.randn_like(v) for k, v in model.state_dict().items()}
    g = geodesic(task, a, b, settings=GeodesicSettings(levels=(5,), limit=20))
    assert g.lower == pytest.approx(g.straight.value, rel=1e-10)
    assert g.length.value == pytest.approx(g.lower, rel=1e-10)
    assert g.gap == pytest.approx(0, abs=1e-9)


def test_an_overparameterised_network_follows_the_great_circles():
    """One input per example: every prediction can move on its own, so the ambient distance is attained."""
    model = nn.Sequential(nn.Linear(5, 3, bias=False)).double().eval()
    x = torch.eye(5, dtype=torch.float64)
    task = Task(model=model, train=(x, torch.tensor([0, 1, 2, 0, 1])))
    g = torch.Generator().manual_seed(2)
    a, b = ({"0.weight": 2 * torch.randn(3, 5, generator=g, dtype=torch.float64)} for _ in range(2))
    found = geodesic(task, a, b, settings=GeodesicSettings(levels=(9, 17, 33), limit=300, tolerance=1e-8))
    assert found.straight.value > 1.02 * found.lower
    assert found.length.value == pytest.approx(found.lower, rel=2e-3)


def test_no_movement_has_no_length():
    a = copy(network(1))
    g = geodesic(task_of(network(1)), a, a, settings=GeodesicSettings(levels=(5,), limit=10))
    assert (g.lower, g.length.value, g.gap, g.ratio) == (0, 0, 0, 1)


class Normed(nn.Module):
    """Batch norm's buffers are outside the parameter space, and one parameter is frozen."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.norm, self.b = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.norm.running_mean.normal_()
        self.norm.bias.requires_grad_(False)
        nn.init.normal_(self.norm.bias)

    def forward(self, x):
        return self.b(torch.relu(self.norm(self.a(x))))


def test_what_is_held_moves_evenly_from_one_end_to_the_other():
    first, second = (Normed(k).double().eval() for k in (0, 1))
    task = task_of(first)
    g = geodesic(task, copy(first), copy(second), settings=GeodesicSettings(levels=(5,), limit=10))
    x = task.train.batch(range(30)).x[g.probe.index]
    outputs = g.probe.outputs(g.points)
    assert torch.allclose(outputs[0], first(x)[: len(x)])
    assert torch.allclose(outputs[-1], second(x))
    middle = Normed(2).double().eval()
    middle.load_state_dict(g.states[2])
    assert torch.allclose(outputs[2], middle(x))
    assert torch.allclose(g.states[2]["norm.bias"], (first.norm.bias + second.norm.bias) / 2)


def test_a_model_that_cannot_be_mapped_over_gives_the_same():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network(3)

        def forward(self, x):
            f = self.net(x)
            return f if float(f.detach().sum()) < 1e9 else -f

    plain, awkward = task_of(network(3)), task_of(Branching().double().eval())
    lengths = []
    for task in (plain, awkward):
        space = ParameterSpace.of(task)
        probe = probe_of(task, space, torch.arange(20))
        theta = space.flat(task.model)
        points = torch.stack([theta, 1.3 * theta, -theta]).requires_grad_()
        steps = probe.steps(points)
        (grad,) = torch.autograd.grad(steps.sum(), points)
        lengths.append(torch.cat([steps.detach(), grad.flatten()]))
    assert not probe.mapped
    assert torch.allclose(lengths[0], lengths[1], rtol=1e-10)


def test_gradients_in_pieces_are_those_of_the_whole():
    task = task_of(network(3))
    space = ParameterSpace.of(task)
    points = torch.randn(7, space.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    for each in (1, 2**26):  # numbers per point: all at once, two at a time
        probe = probe_of(task, space, torch.arange(20))
        probe.each = each
        moving = points.clone().requires_grad_()
        found.append(torch.autograd.grad(probe.steps(moving).sum(), moving)[0])
    assert torch.allclose(*found, rtol=1e-10)


def test_layers_add_up_to_the_length_and_agree_with_a_layer_moved_alone():
    a, b = copy(network(0)), copy(network(1))
    task = task_of(network(0))
    space = ParameterSpace.of(task)
    probe = probe_of(task, space, torch.arange(30))
    probe.held = held_between(task, space, a, b)
    ends = torch.stack([space.pack({n: s[n] for n in space.names}) for s in (a, b)])
    points = midpoints(ends, 6)
    found = layer_lengths(probe, points)
    assert len(found.labels) == 2
    assert float(found.carried.sum()) == pytest.approx(path_length(probe, ends).value, rel=1e-3)
    only = ends.clone()
    only[1, space.blocks[1].start :] = ends[0, space.blocks[1].start :]  # the first layer moves, the second stays
    alone = layer_lengths(probe, midpoints(only, 6))
    assert float(alone.alone[1]) == 0
    assert float(alone.carried[0]) == pytest.approx(float(alone.alone[0]), rel=1e-9)
    assert float(alone.alone[0]) == pytest.approx(path_length(probe, only).value, rel=1e-3)


def test_even_spacing_and_cuts():
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]], dtype=torch.float64)
    squared = (points[1:] - points[:-1]).square().sum(1)
    even = respaced(points, squared, 5)
    assert even.tolist() == [[0, 0], [1, 0], [1, 1], [1, 2], [1, 3]]
    assert midpoints(points).tolist() == [[0, 0], [0.5, 0], [1, 0], [1, 1.5], [1, 3]]
    still = respaced(points[:1].expand(3, 2), torch.zeros(2).double(), 4)
    assert still.tolist() == [[0, 0]] * 4


def test_a_string_in_flat_space_becomes_straight_and_even():
    g = torch.Generator().manual_seed(0)
    start = torch.randn(9, 2, generator=g, dtype=torch.float64)

    def steps(points):
        return (points[1:] - points[:-1]).square().sum(1)

    found = relax(start, steps, limit=60, tolerance=0)
    straight = start[0] + torch.linspace(0, 1, 9).double()[:, None] * (start[-1] - start[0])
    assert torch.allclose(found.points, straight, atol=1e-8)
    assert found.length == pytest.approx(float((start[-1] - start[0]).norm()), rel=1e-12)
    assert found.energy == pytest.approx(found.length**2, rel=1e-10)
    assert found.remaining < 1e-12
    # The preconditioner is the exact inverse here: almost nothing is left after the first steps.
    assert relax(start, steps, limit=5, tolerance=0).energy < found.energy * (1 + 1e-6)
    assert math.isclose(relax(start[:2], steps).length, float((start[1] - start[0]).norm()))


@pytest.mark.parametrize("seed", range(6))
def test_no_finer_cut_exceeds_the_upper_bound_even_where_the_network_has_kinks(seed):
    torch.manual_seed(seed)
    wide = [
        nn.Sequential(nn.Linear(4, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3)).double().eval()
        for _ in range(3)
    ]
    a, b = copy(wide[0]), copy(wide[1])
    for state in (a, b):
        for k in state:
            state[k] = 2 * state[k]  # far from linear between the two
    task = task_of(wide[2], LAWS[seed % 3])
    space = ParameterSpace.of(task)
    probe = probe_of(task, space, torch.arange(30))
    ends = torch.stack([space.pack(s) for s in (a, b)])
    found = path_length(probe, ends)
    with torch.no_grad():
        fine = float(probe.squared(midpoints(ends, 12)).mean(1).sqrt().sum())
    assert found.measured <= fine * (1 + 1e-12)
    assert fine <= found.upper
    assert found.upper <= found.measured * 1.02  # and it stays near: what settling allows, a few times over
