"""Hidden states as a path: closed forms, what is taken as the depth, read-outs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from memspace.action.chain import find_chain
from memspace.action.continuous import continuous_limit
from memspace.action.kinetic import steps_of
from memspace.errors import ShapeError, TaskError, UnsupportedLayerError
from memspace.task.likelihood import Categorical, Gaussian
from memspace.verbs.depth import depth as depth_action
from tests.action.depth_networks import LinearFlow, Residual, residual_network, rotation


def _inputs(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("angle", "layers"), [(0.7, 4), (2.0, 3), (3.0, 8)])
def test_rotation_has_its_closed_form(angle: float, layers: int) -> None:
    model = LinearFlow(rotation(angle / layers), layers, torch.eye(2, dtype=torch.float64))
    x = _inputs(40, 2, layers)
    d = depth_action(model, (x, x), likelihood=Gaussian(), examples=10, blocks="layers.*")
    finite = (layers * math.sin(angle / (2 * layers)) / math.sin(angle / 2)) ** 2
    assert d.value("depth.ratio") == pytest.approx(finite, rel=1e-12)
    assert d.value("depth.pace") == pytest.approx(1, rel=1e-12)  # all steps of one length
    assert d.value("depth.bend") == pytest.approx(finite, rel=1e-12)
    assert [m.value for m in d.layers["share"]] == pytest.approx([1 / layers] * layers, rel=1e-12)


def test_the_limit_of_a_rotation_is_met_at_second_order() -> None:
    angle, x = 2.5, _inputs(5, 2, 1)
    limit = (angle / (2 * math.sin(angle / 2))) ** 2
    errors = []
    for layers in (8, 16, 32):
        h = [x]
        for _ in range(layers):
            h.append(h[-1] @ rotation(angle / layers).t())
        steps = steps_of(tuple(h))
        errors.append(limit - float(steps.action.mean() / steps.least.mean()))
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_least_action_bounds_and_is_met_by_equal_collinear_steps(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    h = [torch.randn(6, 3, 4, generator=g, dtype=torch.float64) for _ in range(5)]
    steps = steps_of(tuple(h))
    assert bool((steps.action >= steps.even).all())
    assert bool((steps.even >= steps.least).all())
    line = steps_of(tuple(h[0] + k / 4 * (h[1] - h[0]) for k in range(5)))
    assert torch.allclose(line.action, line.least, rtol=1e-12)
    # Isometries and a common factor of all features leave the ratio as it was.
    q = torch.linalg.qr(torch.randn(12, 12, generator=g, dtype=torch.float64)).Q
    turned = steps_of(tuple(3 * s.flatten(1) @ q for s in h))
    assert torch.allclose(turned.action / turned.least, steps.action / steps.least, rtol=1e-10)


@pytest.mark.parametrize("seed", range(2))
def test_linear_flow_in_closed_form(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    layers, d, sigma = 5, 3, 0.7
    step = torch.eye(d, dtype=torch.float64) + torch.randn(d, d, generator=g, dtype=torch.float64) / layers
    head = torch.randn(2, d, generator=g, dtype=torch.float64)
    x = torch.randn(30, d, generator=g, dtype=torch.float64)
    model = LinearFlow(step, layers, head)
    found = depth_action(model, (x, x @ head.t()), likelihood=Gaussian(sigma), examples=15, lens="logit")
    assert found.found
    assert found.blocks == tuple(f"layers.{k}" for k in range(layers))
    index = torch.randperm(30, generator=torch.Generator().manual_seed(17))[:15]
    h, kinetic, fisher = x[index], 0.0, 0.0
    for k in range(layers):
        delta = h @ step.t() - h
        kinetic += float(delta.square().sum()) / 15
        pushed = delta @ torch.linalg.matrix_power(step, layers - k).t() @ head.t()
        fisher += float(pushed.square().sum()) / 15 / sigma**2
        h = h + delta
    assert found.value("depth.action") == pytest.approx(layers / 2 * kinetic, rel=1e-10)
    assert found.value("depth.fisher_action") == pytest.approx(layers / 2 * fisher, rel=1e-10)


def test_the_energy_of_a_linear_flow_tends_to_its_integral() -> None:
    g = _inputs(3, 3, 4)
    x = _inputs(7, 3, 5)
    found = continuous_limit(lambda _, h: h @ g.t(), x, (16, 32, 64))
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    speeds = torch.stack([(x @ torch.matrix_exp(g * s).t() @ g.t()).square().sum(1).mean() / 2 for s in t])
    integral = float(torch.trapezoid(speeds, t))
    # The trapezoid's own error: an eighth of the square of the exponent's rate, over 2000 steps squared.
    assert found.action == pytest.approx(integral, rel=float(g.norm()) ** 2 / 2000**2)
    assert found.order(found.outputs) == pytest.approx(1, abs=0.1)
    assert found.order(found.actions) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("seed", range(2))
def test_a_residual_network_tends_to_its_differential_equation(seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 4)).double()
    found = continuous_limit(lambda t, h: (1 + t) * net(h), _inputs(10, 4, seed), (16, 32, 64))
    assert found.order(found.outputs) == pytest.approx(1, abs=0.1)
    assert found.order(found.actions) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("seed", range(2))
def test_the_fisher_form_is_the_divergence_of_one_more_step(seed: int) -> None:
    """Push h_l a little along its step: KL = ε²/2 δhᵀJᵀHJδh to third order in ε."""
    model = residual_network(5, 6, 3, 3, seed)
    x = _inputs(40, 5, seed)
    y = torch.randint(0, 3, (40,), generator=torch.Generator().manual_seed(seed))
    found = depth_action(model, (x, y), examples=20, lens="logit")
    index = torch.randperm(40, generator=torch.Generator().manual_seed(17))[:20]
    law, eps, total = Categorical(), 1e-4, []
    with torch.no_grad():
        h = model[0](x[index])
        for k in range(1, 4):
            delta = model[k](h) - h
            outs = []
            for s in (-eps, 0, eps):
                z = h + s * delta
                for m in model[k:]:
                    z = m(z)
                outs.append(z)
            both = law.kl(outs[1], outs[0]) + law.kl(outs[1], outs[2])
            total.append(float(both.mean()) / eps**2)
            h = h + delta
    assert found.value("depth.fisher_action") == pytest.approx(3 / 2 * sum(total), rel=1e-5)
    whole = sum(total)
    assert [m.value for m in found.layers["fisher_share"]] == pytest.approx([t / whole for t in total], rel=1e-4)


def test_readouts_end_at_the_network_and_never_undercut_the_distance() -> None:
    model = residual_network(5, 6, 3, 4, 0)
    x = _inputs(200, 5, 3)
    y = model(x).argmax(-1).detach()
    tuned, logit = (depth_action(model, (x, y), examples=60, lens=lens) for lens in ("tuned", "logit"))
    for d in (tuned, logit):
        assert d.value("depth.prediction_length") >= d.value("depth.prediction_distance")
        assert d.value("depth.prediction_inefficiency") >= 1
        assert d.layers["left_to_say"][-1].value == 0
        assert d.value("depth.prediction_action") >= d.value("depth.prediction_length") ** 2 / 2 * (1 - 1e-12)
    # A fitted map leaves less unsaid than none, on examples it was not fitted to.
    assert sum(m.value for m in tuned.layers["left_to_say"]) < sum(m.value for m in logit.layers["left_to_say"])


def test_a_readout_through_a_linear_rest_is_exact() -> None:
    """Blocks and head linear: head(h_L) = head(M^(L−l) h_l), an affine map of h_l, so nothing is left to say."""
    g = torch.Generator().manual_seed(2)
    step = torch.eye(3, dtype=torch.float64) + 0.2 * torch.randn(3, 3, generator=g, dtype=torch.float64)
    model = LinearFlow(step, 2, torch.randn(2, 3, generator=g, dtype=torch.float64))
    x = torch.randn(120, 3, generator=g, dtype=torch.float64)
    d = depth_action(model, (x, x[:, :2]), likelihood=Gaussian(), examples=40)
    plain = depth_action(model, (x, x[:, :2]), likelihood=Gaussian(), examples=40, lens="logit")
    assert d.layers["left_to_say"][0].value < 1e-3 * plain.layers["left_to_say"][0].value


class _Pyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(*[Residual(6, 2) for _ in range(2)])
        self.down = nn.Linear(6, 4)
        self.b = nn.Sequential(*[Residual(4, 3) for _ in range(3)])

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.b(self.down(self.a(h)))


def test_what_is_taken_as_the_depth() -> None:
    model, x = _Pyramid().eval(), torch.zeros(2, 6)
    found = find_chain(model, x)
    assert [b.name for b in found.blocks] == ["b.0", "b.1", "b.2"]
    assert found.shape == (4,)
    assert found.homogeneous
    assert [b.name for b in find_chain(model, x, "a.*").blocks] == ["a.0", "a.1"]
    assert [b.name for b in find_chain(model, x, ("b.*", "!b.2")).blocks] == ["b.0", "b.1"]
    with pytest.raises(ShapeError, match=r"down changes the shape.*from 6 to 4.*a\.0 to a\.1, 6; b\.0 to b\.2, 4"):
        find_chain(model, x, ("a.*", "down", "b.*"))
    with pytest.raises(UnsupportedLayerError, match=r"b\.0 is not fed with what a\.1 gave.*a\.0 to a\.1, 6; b\.0 to"):
        find_chain(model, x, ("a.*", "b.*"))
    with pytest.raises(TaskError, match="matches no module"):
        find_chain(model, x, "layer.*")
    with pytest.raises(TaskError, match="1 of the blocks named ran"):
        find_chain(model, x, "a.0")
    with pytest.raises(TaskError, match="no two modules of one class"):
        find_chain(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)), x)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_one_block_called_again_and_again_is_a_depth() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.head = Residual(4, 3), nn.Linear(4, 2)

        def forward(self, h: torch.Tensor) -> torch.Tensor:
            for _ in range(3):
                h = self.block(h)
            return self.head(h)

    torch.manual_seed(0)
    model, x = Shared().double(), _inputs(30, 4, 0)
    d = depth_action(model, (x, torch.zeros(30, dtype=torch.long)), examples=10, lens="logit")
    assert d.blocks == ("block", "block (call 2)", "block (call 3)")
    h = [x[torch.randperm(30, generator=torch.Generator().manual_seed(17))[:10]]]
    for _ in range(3):
        h.append(model.block(h[-1]).detach())
    assert d.value("depth.action") == pytest.approx(float(steps_of(tuple(h)).action.mean()), rel=1e-12)
    assert len(d.layers["stationarity"]) == 1


def test_hidden_states_lost_in_place_are_refused() -> None:
    class InPlace(nn.Linear):
        def forward(self, h: torch.Tensor) -> torch.Tensor:
            h += super().forward(h)
            return h

    with pytest.raises(UnsupportedLayerError, match="in place"):
        find_chain(nn.Sequential(InPlace(3, 3), InPlace(3, 3)), torch.zeros(2, 3), "*")


def test_blocks_that_take_positions_first_are_refused() -> None:
    class PositionsFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(Residual(4, 2), Residual(4, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks(x.transpose(0, 1)).transpose(0, 1)

    model, y = PositionsFirst().double(), torch.zeros(30, 7, dtype=torch.long)
    for length in (7, 2):  # two positions look like two examples until more are read
        x = torch.randn(30, length, 4, dtype=torch.float64)
        with pytest.raises(UnsupportedLayerError, match="examples on their first axis"):
            depth_action(model, (x, y[:, :length]), examples=10)


def test_the_model_is_left_as_it_was() -> None:
    model = residual_network(5, 6, 3, 3, 1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    depth_action(model, (_inputs(40, 5, 1), torch.zeros(40, dtype=torch.long)), examples=10)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_intervals_cover_the_whole_data() -> None:
    """95% intervals of R_A from 30 examples cover the value on all; of 40 draws about two miss."""
    model, x = residual_network(5, 6, 3, 4, 2), _inputs(2000, 5, 6)
    data = (x, torch.zeros(len(x), dtype=torch.long))
    h = [model[0](x)]
    for k in range(1, 5):
        h.append(model[k](h[-1]))
    steps = steps_of(tuple(t.detach() for t in h))
    from memspace.action.kinetic import kinetic_action

    truth = float(steps.action.mean() / steps.least.mean())
    missed = 0
    for seed in range(40):
        index = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(seed))[:30]
        part = steps_of(tuple(t[index].detach() for t in h))
        m = next(m for m in kinetic_action(part)[0] if m.name == "depth.ratio")
        assert m.interval is not None
        missed += not m.interval[0] <= truth <= m.interval[1]
    assert missed <= 8  # 5 to 10% expected at n = 30; above 8 of 40 has a chance below 1% at 9%
