"""Parameters without an axis or without numbers, hooks on gradients, masked NaN, modules of two names: all exact."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import memspace
from memspace import Task
from memspace.errors import UnsupportedLayerError
from memspace.measurement import Unmeasured
from memspace.metric.fisher import build
from memspace.passes.verify import verified_space
from tests.layers.truth import assert_exact, dense_truth


def _data(n: int = 14) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1)), torch.arange(n) % 3


class Gates(nn.Module):
    """A scalar of the model's own, one in a dictionary that no layer owns, an idle one and empty ones."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's, on what has nothing to be initialised
            self.none = nn.Linear(0, 5)
        self.own, self.empty = nn.Parameter(torch.tensor(1.3)), nn.Parameter(torch.zeros(0, 3))
        self.more = nn.ParameterDict({"gate": nn.Parameter(torch.tensor(0.7)), "idle": nn.Parameter(torch.ones(2))})

    def forward(self, x):
        h = torch.tanh(self.body(x) * self.own + self.none(x[:, :0]))
        return self.head(h) * torch.sigmoid(self.more["gate"])


class Masked(nn.Module):
    """Attention over tokens; of an example that is all padding the weights are 0/0, replaced by 0 afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.read, self.head = nn.Parameter(torch.tensor(0.8)), nn.Linear(1, 6), nn.Linear(2, 3)

    def forward(self, x):
        kept = x.abs() > 0.3
        q, k, v = self.read(x.unsqueeze(-1)).chunk(3, -1)
        weights = (q @ k.mT * self.scale).masked_fill(~kept[:, None], float("-inf")).softmax(-1).nan_to_num()
        return self.head((weights @ v).sum(1))


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def test_scalars_and_empty_parameters_are_read_and_audited() -> None:
    torch.manual_seed(0)
    x, y = _data()
    model = Gates()
    assert_exact(model, x, y)
    assert "empty" not in memspace.verified_space(Task(model, (x, y))).names
    results = memspace.audit(model, (x, y))
    absent = [u for c in results.chapters for u in c.unmeasured]
    assert not [u for u in absent if "it failed with" in u.reason]


def test_an_example_that_is_masked_whole_has_finite_products() -> None:
    torch.manual_seed(0)
    x, y = _data()
    x[3:5] = 0.0
    model = Masked()
    assert_exact(model, x, y)
    task = Task(model, (x, y))
    space = verified_space(task)
    truth, _ = dense_truth(model, x, y, space)
    v = torch.randn(2, space.size, dtype=torch.float64)
    got = build(task, space, "implicit").matvec(v)
    torch.testing.assert_close(got, v @ truth, rtol=1e-4, atol=1e-5)


def test_a_gradient_that_is_nan_in_every_way_is_named() -> None:
    class Rooted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 5, bias=False), nn.Linear(5, 3)

        def forward(self, x):
            h = self.body(x)
            return self.head(h / h.square().sum(1, keepdim=True).sqrt().clamp_min(1e-6))  # a root of 0 for zeros

    x, y = _data()
    x[3] = 0.0
    with pytest.raises(UnsupportedLayerError, match="gradient of the outputs is NaN or infinite"):
        memspace.audit(Rooted(), (x, y))


HOOKS = {
    "a parameter's": lambda m: m[0].weight.register_hook(lambda g: g * 0),
    "a layer's": lambda m: m[0].register_full_backward_hook(
        lambda _m, i, _o: tuple(g if g is None else 2 * g for g in i)
    ),
    "an activation's": lambda m: m[1].register_full_backward_hook(lambda _m, i, _o: (2 * i[0],)),
    "before a layer's": lambda m: m[1].register_full_backward_pre_hook(lambda _m, o: (0 * o[0],)),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_on_gradients_rest_while_a_network_is_read(kind) -> None:
    x, y = _data()
    plain, hooked = _net(), _net()
    handle = HOOKS[kind](hooked)
    task = Task(hooked, (x, y))
    space = verified_space(task)
    truth, _ = dense_truth(plain, x, y, space)
    for representation in ("dense", "dual", "ekfac"):
        trace = build(task, space, representation).trace().value
        assert trace == pytest.approx(float(truth.trace()), rel=1e-5), representation
    eye = torch.eye(space.size, dtype=torch.float64)
    torch.testing.assert_close(build(task, space, "implicit").matvec(eye), truth, rtol=1e-4, atol=1e-6)

    def trained(model: nn.Module) -> torch.Tensor:
        model.zero_grad()
        nn.functional.cross_entropy(model(x.clone().requires_grad_()), y).backward()
        return model[0].weight.grad.clone()

    if kind != "a layer's":  # which acts on the gradient of the inputs, that no parameter hears of
        assert not torch.allclose(trained(hooked), trained(plain))  # in a training the hook does its work as before
    handle.remove()
    torch.testing.assert_close(trained(hooked), trained(plain))


def test_a_module_of_two_names_is_the_users_own_after_an_audit() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            one = nn.Linear(4, 4)
            self.steps, self.head = nn.ModuleList([one, one]), nn.Linear(4, 3)

        def forward(self, x):
            for step in self.steps:
                x = x + torch.tanh(step(x))
            return self.head(x)

    torch.manual_seed(0)
    x, y = _data()
    model = Twice()
    weight, before = model.steps[0].weight, model.steps[0].weight.detach().clone()
    results = memspace.audit(model, (x, y))
    assert not isinstance(results.measurement("fisher.trace"), Unmeasured)
    assert model.steps[0].weight is weight
    assert torch.equal(weight, before)


def test_models_are_called_with_other_tensors_in_one_place_alone() -> None:
    """Torch's own functional_call leaves what it was given in a module of two names."""
    sources = Path(memspace.__file__).parent
    users = []
    for path in sources.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in ("torch.func", "torch.nn.utils.stateless"):
                users += [path.name for n in node.names if n.name == "functional_call"]
            if isinstance(node, ast.Attribute) and node.attr == "functional_call":
                users.append(path.name)
    assert users == ["functional.py"]
