"""Optimal control along depth: linear-quadratic problems with Riccati's solution, identities, landmark matching."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor, nn

from memspace.action.adjoint import adjoint
from memspace.action.chain import find_chain
from memspace.action.control import control
from memspace.action.landmark_network import LandmarkNetwork, train_match
from memspace.action.landmarks import hamiltonian, kernel, match_landmarks, shoot
from memspace.task.likelihood import Gaussian
from memspace.task.task import Task
from memspace.training.loss import example_losses
from memspace.verbs.depth import depth as depth_action
from tests.action.depth_networks import residual_network


class Steered(nn.Module):
    """h ↦ h + (G h + B u)/L: the control u is the block's parameter."""

    def __init__(self, g: Tensor, b: Tensor, layers: int) -> None:
        super().__init__()
        self.register_buffer("drift", torch.eye(len(g), dtype=torch.float64) + g / layers)
        self.register_buffer("gain", b / layers)
        self.u = nn.Parameter(torch.zeros(b.shape[1], dtype=torch.float64))

    def forward(self, h: Tensor) -> Tensor:
        return h @ self.drift.t() + self.gain @ self.u


def _linear_quadratic(seed: int, layers: int, decay: float = 0.05) -> Task:
    """Least E½‖h_L‖² + (λ/2L)Σ‖u_l‖² from the mean of the inputs, by Riccati's recursion backwards."""
    g = torch.Generator().manual_seed(seed)
    d, m, n = 3, 2, 24
    drift, gain = (torch.randn(d, k, generator=g, dtype=torch.float64) for k in (d, m))
    x = 1 + torch.randn(n, d, generator=g, dtype=torch.float64)
    model = nn.Sequential(*[Steered(drift, gain, layers) for _ in range(layers)])
    a, b = model[0].drift, model[0].gain
    cost, feedback = torch.eye(d, dtype=torch.float64), []
    weight = decay / layers * torch.eye(m, dtype=torch.float64)
    for _ in range(layers):
        k = torch.linalg.solve(weight + b.t() @ cost @ b, b.t() @ cost @ a)
        cost = a.t() @ cost @ (a - b @ k)
        feedback.append(k)
    h = x.mean(0)
    with torch.no_grad():
        for block, k in zip(model, reversed(feedback), strict=True):
            block.u.copy_(-k @ h)
            h = a @ h + b @ block.u
    return Task(
        model=model, train=(x, torch.zeros(n, d, dtype=torch.float64)), likelihood=Gaussian(1.0), decay=decay / layers
    )


@pytest.mark.parametrize("seed", range(3))
def test_riccatis_control_meets_pontryagins_conditions(seed: int) -> None:
    task = _linear_quadratic(seed, 6)
    n = len(task.train)
    chain = find_chain(task.model, task.train.batch(range(2)).x)
    found = control(task, chain, torch.arange(n), seed=seed)
    values = {m.name: m.value for m in found.measurements}
    assert values["depth.stationarity"] < 1e-12
    assert values["depth.raised_by_chance"] == 0  # H is concave in u: its stationary point is its maximum
    # Steered otherwise, it is found out.
    with torch.no_grad():
        task.model[2].u.mul_(1.5)
    spoilt = {m.name: m.value for m in control(task, chain, torch.arange(n), seed=seed).measurements}
    assert spoilt["depth.stationarity"] > 1e-3
    assert spoilt["depth.raised_by_chance"] > 0


def test_the_hamiltonian_of_an_optimal_control_is_conserved_at_first_order() -> None:
    varied = []
    for layers in (16, 32, 64):
        task = _linear_quadratic(5, layers)
        chain = find_chain(task.model, task.train.batch(range(2)).x)
        found = control(task, chain, torch.arange(len(task.train)), draws=1)
        varied.append(next(m.value for m in found.measurements if m.name == "depth.hamiltonian_variation"))
    assert math.log2(varied[1] / varied[2]) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_the_hamiltonians_gradient_is_that_of_the_loss(seed: int) -> None:
    model, decay = residual_network(4, 5, 3, 3, seed), 0.01
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(20, 4, generator=g, dtype=torch.float64), torch.randint(0, 3, (20,), generator=g)
    task = Task(model=model, train=(x, y), decay=decay)
    chain = find_chain(model, x)

    def running(block: nn.Module, h: Tensor) -> Tensor:
        return decay / 2 * sum(p.square().sum() for p in block.parameters()).expand(len(h))

    solved = adjoint(model, chain, x, lambda f: example_losses(task.likelihood, f, y), running)
    blocks = [p for b in chain.blocks for p in b.module.parameters()]
    loss = example_losses(task.likelihood, model(x), y).mean() + decay / 2 * sum(p.square().sum() for p in blocks)
    wanted = torch.autograd.grad(loss, blocks)
    given = [-t / 20 for layer in solved.gradient for t in layer.values()]
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-14) for a, b in zip(given, wanted, strict=True))
    # The relative residual: nothing cancels for one example without decay.
    alone = Task(model=model, train=(x[:1], y[:1]))
    single = control(alone, chain, torch.arange(1), draws=1)
    assert [m.value for m in single.layers["stationarity"]] == pytest.approx([1.0] * 3, rel=1e-9)


def test_a_skip_around_the_blocks_enters_the_co_state() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = residual_network(4, 5, 3, 3, 0)

        def forward(self, x: Tensor) -> Tensor:
            h = first = self.body[0](x)
            for block in self.body[1:4]:
                h = block(h)
            return self.body[4](h * first)

    model, x = Around(), torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chain = find_chain(model, x)
    solved = adjoint(model, chain, x, lambda f: f.square().sum(1))
    h = model.body[0](x).detach().requires_grad_()
    state = h
    for block in model.body[1:4]:
        state = block(state)
    wanted = torch.autograd.grad(model.body[4](state * h).square().sum(), h)[0]
    assert torch.allclose(solved.p[0], -wanted, rtol=1e-10)


def test_layers_that_are_held_fixed_are_no_control() -> None:
    model, x = residual_network(3, 4, 2, 3, seed=0), torch.randn(24, 3, dtype=torch.float64)
    for block in find_chain(model, x[:4]).blocks:
        block.module.requires_grad_(False)
    task = Task(model, (x, torch.arange(24) % 2))
    measured = depth_action(task, examples=8)
    names = {m.name for m in measured.measurements}
    assert "depth.action" in names
    assert "depth.stationarity" not in names
    missing = {m.name: m.reason for m in measured.unmeasured}
    assert "held fixed" in missing["depth.stationarity"]
    assert "held fixed" in missing["depth.raised_by_chance"]


def test_conservation_is_not_stated_for_layers_of_several_forms() -> None:
    model = residual_network(4, 4, 3, 3, 0)
    model[2] = nn.Sequential(model[2], nn.Identity())
    x = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(30, dtype=torch.long)
    found = depth_action(model, (x, y), blocks=("1", "2", "3"), examples=10, lens="logit")
    assert "depth.hamiltonian_variation" in {u.name for u in found.unmeasured}


def test_a_single_landmark_goes_straight_at_constant_speed() -> None:
    q, p = torch.tensor([[0.3, -1.0]], dtype=torch.float64), torch.tensor([[0.7, 0.2]], dtype=torch.float64)
    shot = shoot(q, p, (0.0, 0.25, 1.0), scale=0.5)
    assert torch.allclose(shot.q[:, 0], q + torch.tensor([[0.0], [0.25], [1.0]], dtype=torch.float64) * p, atol=1e-12)
    found = match_landmarks(q, q + 1.0, scale=0.5, sigma=1e-3)
    # p(1) = (y − q − p)/σ² with constant p: p = (y − q)/(1 + σ²).
    assert torch.allclose(found.momentum, torch.ones_like(q) / (1 + 1e-6), rtol=1e-9)
    assert found.distance == pytest.approx(2**0.5 / (1 + 1e-6), rel=1e-9)


@pytest.mark.parametrize("start", [2.0, 1.1])
def test_two_landmarks_head_on_reduce_to_their_distance(start: float) -> None:
    """P = 0: H = π²(1 − k(r)), ṙ = −2√(H(1 − k)); they slow down and never meet."""
    s, speed = 0.8, 0.6
    q = torch.tensor([[start / 2, 0.0], [-start / 2, 0.0]], dtype=torch.float64)
    p = torch.tensor([[-speed, 0.0], [speed, 0.0]], dtype=torch.float64)
    shot = shoot(q, p, (0.0, 1.0, 8.0), scale=s)
    energy = float(hamiltonian(q, p, s))
    assert energy == pytest.approx(speed**2 * (1 - math.exp(-(start**2) / (2 * s**2))), rel=1e-12)
    assert max(shot.drift, shot.leak) < 1e-9
    for end, time in ((shot.q[1], 1.0), (shot.q[2], 8.0)):
        r = float(end[0, 0] - end[1, 0])
        assert 0 < r < start
        taken = quad(lambda z: 1 / (2 * math.sqrt(energy * -math.expm1(-(z**2) / (2 * s**2)))), r, start, epsabs=1e-12)
        assert taken[0] == pytest.approx(time, rel=1e-7)


def test_two_landmarks_side_by_side_push_one_another_apart() -> None:
    """Equal momenta P/2 across their distance: ṙ = P√((1 − k(r))(k(r₀) − k(r))), from rest."""
    s, start, total = 0.7, 0.9, 3.0
    q = torch.tensor([[start / 2, 0.0], [-start / 2, 0.0]], dtype=torch.float64)
    p = torch.tensor([[0.0, total / 2]] * 2, dtype=torch.float64)
    shot = shoot(q, p, (0.0, 1.0), scale=s)
    assert max(shot.drift, shot.leak) < 1e-9
    r = float(shot.q[1, 0, 0] - shot.q[1, 1, 0])
    assert r > start

    def k(z: float) -> float:
        return math.exp(-(z**2) / (2 * s**2))

    # z = r₀ + u² takes the root's singularity away.
    rate = lambda u: 2 * u / (total * math.sqrt((1 - k(start + u * u)) * (k(start) - k(start + u * u))))  # noqa: E731
    assert quad(rate, 1e-9, math.sqrt(r - start))[0] == pytest.approx(1.0, rel=1e-6)


def _pair(seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(4, 2, generator=g, dtype=torch.float64)
    return q, q + 0.5 * torch.randn(4, 2, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(2))
def test_a_trained_residual_network_finds_the_geodesic_at_first_order(seed: int) -> None:
    q, y = _pair(seed)
    s, sigma = 0.8, 0.3
    found = match_landmarks(q, y, scale=s, sigma=sigma)
    assert found.residual < 1e-6
    errors: dict[str, list[float]] = {"path": [], "momentum": [], "cost": [], "conservation": []}
    for layers in (8, 16, 32):
        trained = train_match(LandmarkNetwork(4, 2, layers, s), q, y, sigma=sigma)
        assert trained.gradient < 1e-7
        shot = shoot(q, found.momentum, [k / layers for k in range(layers + 1)], scale=s)
        errors["path"].append(float((trained.path - shot.q).abs().max()))
        errors["momentum"].append(float((trained.momentum - found.momentum).abs().max()))
        errors["cost"].append(abs(trained.cost - found.cost))
        h = trained.hamiltonian
        errors["conservation"].append(float(h.std() / h.mean()))
        assert float(h.mean()) == pytest.approx(found.energy, rel=2 / layers)
    for name, e in errors.items():
        assert math.log2(e[1] / e[2]) == pytest.approx(1, abs=0.15), (name, e)


def test_the_geodesic_costs_less_than_its_neighbours() -> None:
    q, y = _pair(7)
    s, sigma = 0.8, 0.3
    found = match_landmarks(q, y, scale=s, sigma=sigma)
    g = torch.Generator().manual_seed(0)
    for _ in range(10):
        p = found.momentum + 0.05 * torch.randn(4, 2, generator=g, dtype=torch.float64)
        end = shoot(q, p, scale=s).q[-1]
        assert float(hamiltonian(q, p, s)) + float((end - y).square().sum()) / (2 * sigma**2) > found.cost


def test_the_network_carries_other_points_along_and_keeps_its_landmarks() -> None:
    q, y = _pair(3)
    network = LandmarkNetwork(4, 2, 8, 0.8)
    train_match(network, q, y, sigma=0.3)
    grid = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        both = network(torch.cat([q, grid]).unsqueeze(0))[0]
        assert torch.allclose(both[:4], network.path(q)[-1], atol=1e-14)
        assert torch.allclose(network(torch.cat([q, q]).unsqueeze(0))[0, 4:], both[:4], atol=1e-14)
    assert kernel(q, q, 0.8).diagonal() == pytest.approx(torch.ones(4, dtype=torch.float64))


def test_on_all_training_examples_the_hamiltonian_is_exact_and_on_some_the_interval_is_of_what_is_left() -> None:
    model = residual_network(4, 5, 3, 3, 1)
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(80, 4, generator=g, dtype=torch.float64), torch.randint(0, 3, (80,), generator=g)
    task = Task(model=model, train=(x, y), decay=1e-3)
    chain = find_chain(model, x)
    whole = control(task, chain, torch.arange(80), draws=1)
    assert all(m.interval is None for m in whole.layers["hamiltonian"])
    missed = 0
    for seed in range(20):
        index = torch.randperm(80, generator=torch.Generator().manual_seed(seed))[:40]
        part = control(task, chain, index, draws=1)
        for a, b in zip(part.layers["hamiltonian"], whole.layers["hamiltonian"], strict=True):
            assert a.interval is not None
            missed += not a.interval[0] <= b.value <= a.interval[1]
    assert missed <= 12  # 3 of 60 expected; layers miss together, so four times that
