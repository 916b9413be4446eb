"""The natural-gradient optimiser: exact where EKFAC is, the same after a restore, and at home in a plain loop."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from memspace.action.natural import natural_descent
from memspace.action.optimiser import NaturalGradient
from memspace.errors import TaskError, UnsupportedLayerError
from memspace.geometry.distance import output_distance
from memspace.passes.space import ParameterSpace
from memspace.task.likelihood import Categorical, Gaussian
from memspace.task.task import Task
from tests.contract.networks import network

cross_entropy = nn.functional.cross_entropy


def _net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 3))


def _data(seed: int, n: int = 64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=g)
    return x, (x[:, :3] + 0.3 * torch.randn(n, 3, generator=g)).argmax(1)


def _train(
    model: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor, steps: int, start: int = 0
) -> list[float]:
    losses = []
    for k in range(start, start + steps):
        index = torch.randperm(len(y), generator=torch.Generator().manual_seed(k))[:32]
        optimiser.zero_grad()
        loss = cross_entropy(model(x[index]), y[index])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def _linear(seed: int, law: str) -> tuple[nn.Module, Tensor, Tensor, Categorical | Gaussian]:
    """A layer whose EKFAC is its Fisher matrix: the same information at every example."""
    torch.manual_seed(seed)
    model = nn.Linear(5, 3).double()
    x = torch.randn(40, 5, dtype=torch.float64)
    if law == "gaussian":
        return model, x, torch.randn(40, 3, dtype=torch.float64), Gaussian(0.7)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model, x, torch.randint(0, 3, (40,)), Categorical()


@pytest.mark.parametrize("law", ["gaussian", "categorical"])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_the_exact_natural_gradient_where_ekfac_is_exact(law: str, seed: int) -> None:
    model, x, y, likelihood = _linear(seed, law)
    space = ParameterSpace(model)
    damping, lr = 1e-3, 0.3
    want = natural_descent(Task(model=model, train=(x, y), likelihood=likelihood), space, torch.arange(40), damping)
    optimiser = NaturalGradient(model, likelihood, lr=lr, damping=damping, kind="exact", memory=0.0, longest=None)
    before = space.flat(model)
    likelihood.nll(model(x), y).mean().backward()
    optimiser.step()
    assert torch.allclose(space.flat(model) - before, lr * want.velocity, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("seed", [0, 1])
def test_decay_is_solved_for_like_the_gradient(seed: int) -> None:
    """A loss without gradient leaves γθ alone: the step is −(F + λI)⁻¹γθ."""
    model, x, _, likelihood = _linear(seed, "gaussian")
    space, damping, decay = ParameterSpace(model), 1e-2, 0.02
    optimiser = NaturalGradient(
        model, likelihood, lr=1.0, damping=damping, weight_decay=decay, kind="exact", memory=0.0, longest=None
    )
    before = space.flat(model)
    (0 * model(x)).sum().backward()
    optimiser.step()
    rows = torch.cat([x, torch.ones(40, 1, dtype=torch.float64)], 1)
    fisher = torch.kron(torch.eye(3, dtype=torch.float64) / 0.7**2, rows.t() @ rows / 40)
    want = -torch.linalg.solve(fisher + damping * torch.eye(18, dtype=torch.float64), decay * before)
    assert torch.allclose(space.flat(model) - before, want, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_restored_it_goes_on_to_the_last_bit(momentum: float) -> None:
    x, y = _data(1)

    def fresh() -> tuple[nn.Module, NaturalGradient]:
        model = _net(3)
        return model, NaturalGradient(model, lr=0.05, momentum=momentum, factors=3, refresh=6, weight_decay=1e-3)

    model, optimiser = fresh()
    _train(model, optimiser, x, y, 10)
    kept = copy.deepcopy((model.state_dict(), optimiser.state_dict()))
    _train(model, optimiser, x, y, 10, start=10)
    other, restored = fresh()
    _train(other, restored, x, y, 2)  # a past of its own must not show
    other.load_state_dict(kept[0])
    restored.load_state_dict(kept[1])
    _train(other, restored, x, y, 10, start=10)
    never, from_file = fresh()
    never.load_state_dict(kept[0])
    from_file.load_state_dict(kept[1])
    _train(never, from_file, x, y, 10, start=10)
    for a, b, c in zip(model.parameters(), other.parameters(), never.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def _plain_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(model(x), y)


def _bfloat16_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return cross_entropy(model(x), y)


@pytest.mark.parametrize("loss_of", [_plain_loss, _bfloat16_loss])
@pytest.mark.parametrize("scaled", [False, True])
def test_it_trains_under_autocast_and_with_a_scaler(
    loss_of: Callable[[nn.Module, Tensor, Tensor], Tensor], scaled: bool
) -> None:
    model, (x, y) = _net(4), _data(2)
    optimiser = NaturalGradient(model, lr=0.2, longest=0.5)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=2.0**8)
    first = loss_of(model, x, y).item()
    for _ in range(25):
        optimiser.zero_grad()
        scaler.scale(loss_of(model, x, y)).backward()
        scaler.step(optimiser)
        scaler.update()
    last = loss_of(model, x, y).item()
    assert last < 0.3 * first
    assert next(model.parameters()).dtype == torch.float32


def test_the_scale_of_a_scaled_loss_does_not_matter() -> None:
    x, y = _data(3)
    models = [_net(5), _net(5)]
    for model, enabled in zip(models, (False, True), strict=True):
        optimiser = NaturalGradient(model, lr=0.1)
        scaler = torch.amp.GradScaler("cpu", enabled=enabled, init_scale=2.0**10)
        for _ in range(3):
            optimiser.zero_grad()
            scaler.scale(cross_entropy(model(x), y)).backward()
            scaler.step(optimiser)
            scaler.update()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_step_is_longer_than_allowed(seed: int) -> None:
    """The length is EKFAC's; on one block with exact cotangents the prediction is that of the outputs' distance."""
    torch.manual_seed(seed)
    x, y = _data(seed)
    model = nn.Linear(6, 3)
    optimiser = NaturalGradient(model, lr=1.0, damping=1e-4, kind="exact", longest=0.02, examples=64)
    before = model(x).detach()
    cross_entropy(before.requires_grad_(), y)
    cross_entropy(model(x), y).backward()
    optimiser.step()
    assert optimiser.last_length is not None
    assert float(optimiser.last_length) > 0.02
    moved, _ = output_distance(Categorical(), before.detach(), model(x).detach())
    assert 0.5 * 0.02 < moved < 2 * 0.02


@pytest.mark.parametrize("name", ["linear", "conv1d", "norms", "transformer", "lstm"])
def test_every_kind_of_layer_descends(name: str) -> None:
    model, x = network(name, 5)
    y = torch.randint(0, 3, model(x).shape[:-1], generator=torch.Generator().manual_seed(0))
    optimiser = NaturalGradient(model, lr=0.3, longest=0.3, factors=2, refresh=4)

    def loss() -> Tensor:
        return Categorical().nll(model(x), y).mean()

    first = loss().item()
    buffers = [b.clone() for b in model.buffers()]
    for _ in range(15):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert loss().item() < first - 0.1
    assert len(buffers) == len(list(model.buffers()))


def test_reading_leaves_no_trace_but_the_step() -> None:
    model, (x, y) = _net(6), _data(4)
    model.train()
    optimiser = NaturalGradient(model, lr=0.0)
    cross_entropy(model(x), y).backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    random, before = torch.get_rng_state(), [p.detach().clone() for p in model.parameters()]
    optimiser.step()
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    for p, g, kept in zip(model.parameters(), grads, before, strict=True):
        assert p.grad is not None
        assert torch.equal(p.grad, g)
        assert torch.equal(p, kept)
    assert not model[0]._forward_hooks


def test_readings_come_when_they_are_due_and_use_no_labels() -> None:
    model, (x, y) = _net(7), _data(5)
    optimiser = NaturalGradient(model, lr=0.0, factors=4, refresh=8)
    for k in range(9):
        optimiser.zero_grad()
        cross_entropy(model(x), y if k % 2 else 2 - y).backward()
        optimiser.step()
    again = NaturalGradient(model, lr=0.0, factors=4, refresh=8)
    for _ in range(9):
        again.zero_grad()
        cross_entropy(model(x), y).backward()
        again.step()
    one, two = optimiser.state_dict()["state"]["fisher"], again.state_dict()["state"]["fisher"]
    assert int(one["metric/readings"]) == 9  # early on at every step
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_later_readings_are_apart() -> None:
    model, (x, y) = _net(7), _data(5)
    optimiser = NaturalGradient(model, lr=0.0, factors=10, refresh=20)
    read = []
    for _ in range(100):
        cross_entropy(model(x), y).backward()
        optimiser.step()
        read.append(int(optimiser.state_dict()["state"]["fisher"]["metric/readings"]))
    steps = [k for k, (a, b) in enumerate(zip([0, *read], read, strict=False)) if b > a]
    assert steps[:16] == list(range(16))
    assert steps[-3:] == [70, 80, 90] or steps[-2:] == [80, 90]


def test_padded_positions_and_other_inputs_by_the_batch_given() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))
    x = torch.randint(0, 7, (8, 5))
    y = x.clone()
    y[:, 3:] = -100
    whole, padded = (NaturalGradient(model, lr=0.0, kind="exact") for _ in range(2))
    cross_entropy(model(x).flatten(0, 1), y.flatten(), ignore_index=-100).backward()
    padded.step(batch=(x, y))
    whole.step(batch=(x[:, :3], y[:, :3]))
    for b in ("0", "1"):
        one, two = (o.state_dict()["state"]["fisher"][f"metric/eig/{b}"] for o in (padded, whole))
        assert one.sum() == pytest.approx(float(two.sum()), rel=1e-5)


def test_what_cannot_be_done_is_said_in_one_sentence() -> None:
    model, (x, _) = _net(8), _data(6)
    optimiser = NaturalGradient(model)
    with pytest.raises(TaskError, match="has not been called"):
        optimiser.step()
    with torch.no_grad():
        model(x)
    copy.deepcopy(model)(x)  # a copy's calls are its own
    with pytest.raises(TaskError, match="has not been called"):
        optimiser.step()
    with pytest.raises(ValueError, match="one group"):
        optimiser.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    with pytest.raises(UnsupportedLayerError, match="half precision"):
        NaturalGradient(_net(0).bfloat16())
    for wrong in (
        {"lr": -1.0},
        {"damping": 0.0},
        {"momentum": 1.0},
        {"factors": 0},
        {"kind": "empirical"},
        {"longest": 0},
    ):
        with pytest.raises(ValueError):
            NaturalGradient(model, **wrong)  # type: ignore[arg-type]


def test_the_hook_goes_with_the_optimiser() -> None:
    model = _net(9)
    optimiser = NaturalGradient(model)
    assert len(model._forward_pre_hooks) == 1
    del optimiser
    assert len(model._forward_pre_hooks) == 0


def test_schedules_and_closures_work() -> None:
    model, (x, y) = _net(10), _data(7)
    optimiser = NaturalGradient(model, lr=0.2, parameters="!0.*")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 5)
    kept = model[0].weight.detach().clone()

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        return loss

    losses = []
    for _ in range(5):
        losses.append(optimiser.step(closure).item())
        schedule.step()
    assert losses[-1] < losses[0]
    assert torch.equal(model[0].weight, kept)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
