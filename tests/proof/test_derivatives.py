"""Derivatives that torch gets wrong are found by a difference or an adjoint, and refused by name."""

import pytest
import torch
from torch import Tensor, nn

from memspace.action.regularise import FisherRaoNorm
from memspace.errors import UnsupportedLayerError
from memspace.geometry.network_flow import network_flow
from memspace.passes.linearise import FisherOperator
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.task.likelihood import Categorical
from memspace.task.task import Task


class _Sine(torch.autograd.Function):
    """Sin x with a right gradient and a forward mode to be given."""

    generate_vmap_rule = True
    forward_mode = 1.0  # what it is off by
    second = 1.0

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.sin(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        return g * torch.cos(ctx.saved_tensors[0])

    @staticmethod
    def jvp(ctx, t):  # type: ignore[no-untyped-def]
        x = ctx.saved_tensors[0]
        held = x.detach() if _Sine.second else x
        return t * torch.cos(held) * _Sine.forward_mode


class Wave(nn.Module):
    """An activation by hand."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        out: Tensor = _Sine.apply(x)
        return out


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), Wave(), nn.Linear(6, 3)).eval()


def task_of(seed: int) -> Task:
    model = network(seed).double()
    g = torch.Generator().manual_seed(seed)
    return Task(model=model, train=(torch.randn(20, 4, generator=g).double(), torch.randint(0, 3, (20,), generator=g)))


@pytest.fixture(params=["right", "first derivative off", "second derivative off"])
def rule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A custom function whose forward mode is right, or wrong by a factor, or right but held constant."""
    monkeypatch.setattr(_Sine, "forward_mode", 1.3 if request.param == "first derivative off" else 1.0)
    monkeypatch.setattr(_Sine, "second", 1.0 if request.param == "second derivative off" else 0.0)
    name: str = request.param
    return name


def test_a_penalty_whose_gradient_is_wrong_is_refused(rule: str) -> None:
    model = network(1)
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(2))
    penalty = FisherRaoNorm(model, Categorical())
    if rule == "right":
        penalty(x)[1].backward()
        return
    with pytest.raises(UnsupportedLayerError, match="against a difference"):
        penalty(x)


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.BatchNorm1d(6), nn.GroupNorm(2, 6), nn.RMSNorm(6), nn.ReLU()])
def test_penalties_behind_norms_and_kinks_pass(norm: nn.Module) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), norm, nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    penalty = FisherRaoNorm(model, Categorical())
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(2))
    penalty(x)[1].backward()
    first = torch.get_rng_state()
    torch.set_rng_state(state)
    model.load_state_dict(before)
    penalty(x)  # the check is done once, and leaves neither buffers nor torch's random state changed
    assert torch.equal(first, torch.get_rng_state())


def test_a_geodesic_whose_second_derivative_is_wrong_is_refused() -> None:
    task = task_of(4)
    v = 0.1 * torch.randn(ParameterSpace.of(task).size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    with pytest.raises(UnsupportedLayerError, match="second derivative"):  # torch: forward mode twice by hand
        network_flow(task, v, (0.0, 0.1), damping=0.1)
    task.model[1] = nn.Sequential(nn.LayerNorm(6), nn.Tanh()).double()  # type: ignore[index]
    v = 0.1 * torch.randn(ParameterSpace.of(task).size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert network_flow(task, v, (0.0, 0.1), damping=0.1).drift < 1e-4


def test_products_do_without_a_forward_mode_that_is_wrong(rule: str) -> None:
    task = task_of(6)
    space = verified_space(task)
    exact = FisherOperator(task, space)
    v = torch.randn(2, space.size, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    want = exact(v)  # more vectors than it takes for signals to pay: these are autograd's, proven
    by_modes = FisherOperator(task, space, memory=0)
    assert torch.allclose(by_modes(v[:1]), want[:1], rtol=1e-9, atol=1e-14)
    moved = by_modes.directional(v[0])["moved"]
    h = 1e-6
    theta = space.flat(task.model)

    def outputs(flat: Tensor) -> Tensor:
        x = task.train.batch(range(20)).x
        f: Tensor = torch.func.functional_call(task.model, space.unpack(flat), (x,))
        return f.detach()

    assert torch.allclose(moved, (outputs(theta + h * v[0]) - outputs(theta - h * v[0])) / (2 * h), atol=1e-7)
