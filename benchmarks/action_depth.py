"""Action along depth: closed forms, orders of convergence, landmark matching, optimality of trained networks."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from scipy.integrate import quad
from torch import Tensor, nn

from benchmarks.table import Row, at_least, at_most, mean_interval
from memspace.action.chain import find_chain
from memspace.action.continuous import continuous_limit
from memspace.action.control import control
from memspace.action.depth import Depth
from memspace.action.kinetic import steps_of
from memspace.action.landmark_network import LandmarkNetwork, train_match
from memspace.action.landmarks import match_landmarks, shoot
from memspace.progress import Silent
from memspace.task.builtin import BuildOptions, build
from memspace.task.builtin.train import fit
from memspace.task.likelihood import Gaussian
from memspace.task.recipe import Recipe
from memspace.task.task import Task
from memspace.verbs.depth import depth as depth_action

PART = "depth"
CLOSED = 1e-6
ORDER = 0.15  # of an order of convergence, measured between the two finest
SCALE, SIGMA = 0.8, 0.3  # of the landmarks' kernel and of the match
DEPTHS = (4, 8, 16)  # blocks of the digits networks
READ = ("ratio", "pace", "bend", "prediction_inefficiency", "hamiltonian_variation", "raised_by_chance")


def rows(arguments: argparse.Namespace) -> list[Row]:
    return [
        *_closed(),
        *_limits(),
        *_control(),
        *_landmarks(arguments),
        *_digits(arguments),
        *_text(arguments),
    ]


def _order(what: str, errors: Sequence[float], order: int, detail: str) -> Row:
    found = math.log2(errors[-2] / errors[-1])
    shown = ", ".join(f"{e:.1e}" for e in errors) + f" at {detail}"
    goal = f"{order} ± {ORDER:g}"
    return Row(PART, f"order of convergence: {what}", goal, found, None, None, abs(found - order) <= ORDER, shown)


def _rotation(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


class _Chain(nn.Module):
    """L blocks h ↦ M h, then a read-out."""

    def __init__(self, step: Tensor, layers: int, head: Tensor) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[_matrix(step) for _ in range(layers)])
        self.head = _matrix(head)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.head(self.layers(h))
        return out


def _matrix(m: Tensor) -> nn.Linear:
    made = nn.Linear(m.shape[1], m.shape[0], bias=False, dtype=torch.float64)
    made.weight.data.copy_(m)
    return made


def _closed() -> list[Row]:
    g = torch.Generator().manual_seed(3)
    angle, layers = 2.5, 64
    x = torch.randn(40, 2, generator=g, dtype=torch.float64)
    turned = depth_action(
        _Chain(_rotation(angle / layers), layers, torch.eye(2, dtype=torch.float64)),
        (x, x),
        likelihood=Gaussian(),
        blocks="layers.*",
        examples=20,
        lens="logit",
    )
    finite = (layers * math.sin(angle / (2 * layers)) / math.sin(angle / 2)) ** 2
    error = abs(turned.value("depth.ratio") / finite - 1)
    limit = (angle / (2 * math.sin(angle / 2))) ** 2
    detail = f"R_A = {turned.value('depth.ratio'):.6f}, of the flow {limit:.6f}"
    out = [
        at_most(PART, f"rotation by {angle:g} in {layers} layers: ratio to the least action", [error], CLOSED, detail)
    ]
    d, layers = 5, 7
    step = torch.eye(d, dtype=torch.float64) + torch.randn(d, d, generator=g, dtype=torch.float64) / layers
    head = torch.randn(3, d, generator=g, dtype=torch.float64)
    x = torch.randn(60, d, generator=g, dtype=torch.float64)
    made = depth_action(
        _Chain(step, layers, head), (x, x @ head.t()), likelihood=Gaussian(0.5), lens="logit", examples=30
    )
    h = x[torch.randperm(60, generator=torch.Generator().manual_seed(17))[:30]]
    kinetic = fisher = 0.0
    for k in range(layers):
        delta = h @ step.t() - h
        kinetic += layers / 2 * float(delta.square().sum()) / 30
        pushed = delta @ torch.linalg.matrix_power(step, layers - k).t() @ head.t() / 0.5
        fisher += layers / 2 * float(pushed.square().sum()) / 30
        h = h + delta
    for name, closed in (("action", kinetic), ("fisher_action", fisher)):
        error = abs(made.value(f"depth.{name}") / closed - 1)
        out.append(at_most(PART, f"linear network: {name.replace('_', ' ')}", [error], CLOSED, f"closed {closed:.4g}"))
    return out


def _limits() -> list[Row]:
    g = torch.Generator().manual_seed(4)
    x = torch.randn(30, 4, generator=g, dtype=torch.float64)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    depths = (16, 32, 64, 128)
    smooth = continuous_limit(lambda t, h: (1 + t) * net(h), x, depths)
    matrix = torch.randn(4, 4, generator=g, dtype=torch.float64)
    linear = continuous_limit(lambda _, h: h @ matrix.t(), x, depths)
    grid = torch.linspace(0, 1, 4001, dtype=torch.float64)
    flow = torch.stack([(x @ torch.matrix_exp(matrix * t).t() @ matrix.t()).square().sum(1).mean() / 2 for t in grid])
    closed = float((flow[0] + flow[-1] + 4 * flow[1:-1:2].sum() + 2 * flow[2:-1:2].sum()) / 3 / 4000)  # Simpson
    angle, ratios = 2.5, []
    for layers in depths:
        h = [x[:, :2]]
        for _ in range(layers):
            h.append(h[-1] @ _rotation(angle / layers).t())
        steps = steps_of(tuple(h))
        ratios.append((angle / (2 * math.sin(angle / 2))) ** 2 - float(steps.action.mean() / steps.least.mean()))
    at = "layers " + ", ".join(map(str, depths))
    error = abs(linear.action / closed - 1)
    return [
        at_most(PART, "ẋ = Gx: action of the flow", [error], CLOSED, f"closed {closed:.6g}, found {linear.action:.6g}"),
        _order("outputs of a residual network to the ODE's", smooth.outputs, 1, at),
        _order("depth action of a residual network to the ODE's", smooth.actions, 1, at),
        _order("rotation: ratio to (a/(2 sin(a/2)))²", ratios, 2, at),
    ]


class _Steered(nn.Module):
    """h ↦ h + (G h + B u)/L."""

    def __init__(self, g: Tensor, b: Tensor, layers: int) -> None:
        super().__init__()
        self.register_buffer("a", torch.eye(len(g), dtype=torch.float64) + g / layers)
        self.register_buffer("b", b / layers)
        self.u = nn.Parameter(torch.zeros(b.shape[1], dtype=torch.float64))

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h @ self.a.t() + self.b @ self.u
        return out


def _riccati(layers: int, decay: float = 0.05) -> Task:
    g = torch.Generator().manual_seed(5)
    drift, gain = (torch.randn(3, k, generator=g, dtype=torch.float64) for k in (3, 2))
    x = 1 + torch.randn(24, 3, generator=g, dtype=torch.float64)
    model = nn.Sequential(*[_Steered(drift, gain, layers) for _ in range(layers)])
    a, b = drift / layers + torch.eye(3, dtype=torch.float64), gain / layers
    cost, feedback = torch.eye(3, dtype=torch.float64), []
    for _ in range(layers):
        weight = decay / layers * torch.eye(2, dtype=torch.float64) + b.t() @ cost @ b
        feedback.append(torch.linalg.solve(weight, b.t() @ cost @ a))
        cost = a.t() @ cost @ (a - b @ feedback[-1])
    h = x.mean(0)
    for block, k in zip(model, reversed(feedback), strict=True):
        block.u.data.copy_(-k @ h)
        h = a @ h + b @ block.u.detach()
    law = Gaussian()
    return Task(model=model, train=(x, torch.zeros_like(x)), likelihood=law, decay=decay / layers)


def _control() -> list[Row]:
    varied, found = [], {}
    depths = (16, 32, 64)
    for layers in depths:
        task = _riccati(layers)
        chain = find_chain(task.model, task.train.batch(range(2)).x)
        found = {m.name: m.value for m in control(task, chain, torch.arange(24)).measurements}
        varied.append(found["depth.hamiltonian_variation"])
    raised = found["depth.raised_by_chance"]
    at = "layers " + ", ".join(map(str, depths))
    return [
        at_most(PART, "linear-quadratic control by Riccati: stationarity", [found["depth.stationarity"]], 1e-10),
        at_most(PART, "the same: share of random controls that raise H", [raised], 0.0, f"{16 * depths[-1]} tried"),
        _order("the same: variation of H along depth", varied, 1, at),
    ]


def _landmarks(arguments: argparse.Namespace) -> list[Row]:
    out = []
    pairs = 1 if arguments.small else 3
    depths = (8, 16, 32) if arguments.small else (16, 32, 64)
    errors: dict[str, list[list[float]]] = {"path": [], "first momentum": [], "cost": [], "variation of H": []}
    residual, kept = 0.0, 0.0
    for seed in range(pairs):
        g = torch.Generator().manual_seed(seed)
        q = torch.randn(5, 2, generator=g, dtype=torch.float64)
        y = q + 0.5 * torch.randn(5, 2, generator=g, dtype=torch.float64)
        found = match_landmarks(q, y, scale=SCALE, sigma=SIGMA)
        each: list[tuple[float, ...]] = []
        for layers in depths:
            trained = train_match(LandmarkNetwork(5, 2, layers, SCALE), q, y, sigma=SIGMA)
            shot = shoot(q, found.momentum, [k / layers for k in range(layers + 1)], scale=SCALE)
            h = trained.hamiltonian
            path = float((trained.path - shot.q).abs().max() / (y - q).abs().max())
            momentum = float((trained.momentum - found.momentum).norm() / found.momentum.norm())
            each.append((path, momentum, abs(trained.cost / found.cost - 1), float(h.std() / h.mean())))
            residual, kept = max(residual, found.residual), max(kept, shot.drift, shot.leak)
        for name, series in zip(errors, zip(*each, strict=True), strict=True):
            errors[name].append(list(series))
    out.append(
        at_most(PART, "landmark geodesic: H and momentum kept", [kept], CLOSED, f"{pairs} matches of 5 landmarks")
    )
    out.append(at_most(PART, "landmark geodesic: transversality at its end", [residual], CLOSED))
    at = "layers " + ", ".join(map(str, depths))
    for name, several in errors.items():
        worst = max(several, key=lambda e: abs(math.log2(e[-2] / e[-1]) - 1))
        out.append(_order(f"trained residual network to the geodesic, {name}", worst, 1, f"{at}; worst match"))
    return [*_two_landmarks(), *out]


def _two_landmarks() -> list[Row]:
    """The time the reduced equation of the distance takes to where shooting arrives, against the time shot for."""
    s, start, speed, total = 0.8, 1.1, 0.6, 3.0
    q = torch.tensor([[start / 2, 0.0], [-start / 2, 0.0]], dtype=torch.float64)

    def k(z: float) -> float:
        return math.exp(-(z**2) / (2 * s**2))

    meeting = shoot(q, torch.tensor([[-speed, 0.0], [speed, 0.0]], dtype=torch.float64), (0.0, 3.0), scale=s).q[-1]
    r, energy = float(meeting[0, 0] - meeting[1, 0]), speed**2 * (1 - k(start))
    taken = quad(lambda z: 1 / (2 * math.sqrt(energy * (1 - k(z)))), r, start, epsabs=1e-13)[0]
    apart = shoot(q, torch.tensor([[0.0, total / 2]] * 2, dtype=torch.float64), scale=s).q[-1]
    far = float(apart[0, 0] - apart[1, 0])

    def rate(u: float) -> float:
        z = start + u * u
        return 2 * u / (total * math.sqrt((1 - k(z)) * (k(start) - k(z))))

    beside = quad(rate, 1e-9, math.sqrt(far - start), epsabs=1e-13)[0]
    one = shoot(q[:1], q[:1] + 1, scale=s).q[-1]
    return [
        at_most(PART, "one landmark: straight line", [float((one - 2 * q[:1] - 1).abs().max())], CLOSED),
        at_most(PART, "two landmarks head-on: time", [abs(taken / 3 - 1)], CLOSED, f"distance {start:g} to {r:.4g}"),
        at_most(
            PART, "two landmarks side by side: time", [abs(beside - 1)], CLOSED, f"distance {start:g} to {far:.4g}"
        ),
    ]


class _Residual(nn.Module):
    """h + W₂ tanh(W₁ h)/L."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.up, self.down, self.layers = nn.Linear(width, width), nn.Linear(width, width), layers

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.down(torch.tanh(self.up(h))) / self.layers
        return out


def _digits(arguments: argparse.Namespace) -> list[Row]:
    out = []
    epochs = 20 if arguments.small else 1000
    for layers in DEPTHS:
        found: list[Depth] = []
        for seed in arguments.seeds:
            task = build("digits", BuildOptions(seed=seed, train_network=False), Silent())
            x, y = task.train.batch(range(len(task.train))).x, task.train.labels()

            def make(depth: int = layers) -> nn.Module:
                blocks = [_Residual(32, depth) for _ in range(depth)]
                return nn.Sequential(nn.Linear(64, 32), *blocks, nn.Linear(32, 10))

            recipe = Recipe(epochs=epochs, batch=None, rate=3e-3, decay=1e-3, threads=1)
            model = fit(make, x, y, recipe, seed=seed, record=False).model
            job = replace(task, model=model, decay=recipe.decay, run=None, training=None, refit=None)
            found.append(depth_action(job, seed=seed))
        out += _found(f"digits, residual, {layers} blocks", found, stationary=0.05)
    return out


def _text(arguments: argparse.Namespace) -> list[Row]:
    root: Path = arguments.data_root / "tiny-shakespeare"
    small = {"train_size": 100, "test_size": 20, "epochs": 2} if arguments.small else {}
    found = []
    for seed in arguments.seeds[:1] if arguments.small else arguments.seeds:
        task = build("text", BuildOptions(seed=seed, data_root=root, **small), Silent())
        found.append(depth_action(task, examples=32 if arguments.small else 128, seed=seed))
    return _found("text, transformer, 2 blocks", found, stationary=None)


def _found(name: str, found: Sequence[Depth], stationary: float | None) -> list[Row]:
    out = []
    residual = [d.value("depth.stationarity") for d in found]
    if stationary is None:
        mean, low, high = mean_interval(residual)
        out.append(
            Row(
                PART,
                f"{name}: stationarity",
                "",
                mean,
                low,
                high,
                None,
                "1,024 of 2,000 sequences: sampling alone makes 0.02",
            )
        )
    else:
        out.append(at_most(PART, f"{name}: stationarity", residual, stationary, "largest of the blocks"))
    for what in READ:
        told = [m for d in found for m in d.measurements if m.name == f"depth.{what}" and m.reliable]
        title, values = f"{name}: {what.replace('_', ' ')}", [m.value for m in told]
        if what in READ[:4]:
            out.append(at_least(PART, title, values, 1.0))
        elif values:
            mean, low, high = mean_interval(values)
            out.append(Row(PART, title, "", mean, low, high, None, f"told in {len(told)} of {len(found)}"))
        else:  # a variation relative to a mean that is not told from zero
            out.append(Row(PART, title, "", math.nan, None, None, None, f"told in none of {len(found)}"))
    return out
