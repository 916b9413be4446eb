"""The depth penalty: its value and gradient, hooks on and off, autocast, what training with it does."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from memspace import DepthAction
from memspace.errors import ShapeError, TaskError
from memspace.task.builtin.text import Transformer
from tests.action.depth_networks import residual_network


def _direct(model: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    h = [model[0](x)]
    for block in model[1:-1]:
        h.append(block(h[-1]))
    return (len(h) - 1) / 2 * sum((b - a).square().flatten(1).sum(1).mean() for a, b in itertools.pairwise(h))


@pytest.mark.parametrize("blocks", [None, "[123]"])
@pytest.mark.parametrize("seed", range(2))
def test_value_and_gradient(seed: int, blocks: str | None) -> None:
    model = residual_network(4, 6, 3, 3, seed)
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    keys = list(model.state_dict())
    own = list(model.parameters())
    with DepthAction(model, blocks) as penalty:
        for part in (x[:5], x):  # the last forward pass counts
            model(part)
        found = penalty()
        assert penalty.blocks == ("1", "2", "3")
        given = torch.autograd.grad(found, own, allow_unused=True)
        assert list(model.state_dict()) == keys
        model(x)  # after the chain is settled as well
        again = penalty()
    wanted = _direct(model, x)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)
    assert again.item() == pytest.approx(wanted.item(), rel=1e-12)
    for a, b in zip(given, torch.autograd.grad(wanted, own, allow_unused=True), strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-10)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_excess_vanishes_on_equal_collinear_steps() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.ones(4))

        def forward(self, h: torch.Tensor) -> torch.Tensor:
            return h + self.by

    model = nn.Sequential(*[Shift() for _ in range(5)])
    with DepthAction(model, excess=True) as penalty:
        model(torch.randn(3, 4))
        assert penalty().item() == pytest.approx(0, abs=1e-4)
        with torch.no_grad():
            model[2].by.mul_(3)
        model(torch.randn(3, 4))
        # Steps of 1, 1, 3, 1, 1 along (1,1,1,1): (5/2)·4·13 − ½·4·49.
        assert penalty().item() == pytest.approx(130 - 98, rel=1e-5)


def test_training_with_it_lowers_the_action_and_goes_on_learning() -> None:
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = (x[:, 0] > 0).long()
    actions, losses = [], []
    for strength in (0.0, 0.03):
        model = residual_network(4, 8, 2, 4, 0)
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        with DepthAction(model) as penalty:
            for _ in range(100):
                optimiser.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                torch.autograd.backward(loss + strength * penalty())
                optimiser.step()
            model(x)
            actions.append(penalty().item())
            losses.append(loss.item())
    assert actions[1] < 0.5 * actions[0]
    assert losses[1] < 0.3


def test_a_transformer_under_autocast() -> None:
    torch.manual_seed(0)
    model = Transformer(11, width=16, layers=3, heads=2)
    x = torch.randint(0, 11, (4, 12))
    values = []
    for half in (False, True):
        with DepthAction(model, "layers.*") as penalty, torch.autocast("cpu", torch.bfloat16, enabled=half):
            model(x)
            values.append(penalty())
        assert values[-1].dtype == torch.float32
        torch.autograd.backward(values[-1])
        assert model.layers[0].down.weight.grad is not None
    # bfloat16 keeps 8 bits: h_l carries 2⁻⁸ relative error, its differences more.
    assert values[1].item() == pytest.approx(values[0].item(), rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    model = residual_network(4, 6, 3, 3, 0)
    x = torch.randn(9, 4, dtype=torch.float64)
    wanted = _direct(model, x).item()
    model, x = model.cuda(), x.cuda()
    with DepthAction(model) as penalty, torch.autocast("cuda", torch.float16, enabled=False):
        model(x)
        assert penalty().device.type == "cuda"
        assert penalty().item() == pytest.approx(wanted, rel=1e-10)


def test_misuse_is_one_sentence() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3))
    with DepthAction(model, "*") as penalty:
        with pytest.raises(TaskError, match="call the model before the penalty"):
            penalty()
        model(torch.randn(2, 4))
        with pytest.raises(ShapeError, match="0 changes the shape of the hidden state from 4 to 6"):
            penalty()
    with pytest.raises(TaskError, match="call the model before"):
        penalty()
