"""Gradients of the penalties behind norms, attention and reparametrised weights, against central differences."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memspace import DepthAction
from memspace.action.regularise import FORMS, FisherProximal
from memspace.errors import UnsupportedLayerError
from memspace.task.law import Likelihood
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Poisson

LAWS = [Categorical(), Bernoulli(), Gaussian(0.7), Poisson()]
H = 1e-6  # a central difference in float64 is right to about 1e-9 of the function
TOLERANCE = 1e-6
WIDTH = 6


class Norms(nn.Module):
    """A residual block behind a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.map = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.map(self.norm(x)))


class Softplus(nn.Module):
    """A step of a length that softplus keeps positive."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.gain = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.rand(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        h = F.softplus(self.map(x))
        return x + self.gain * h / F.softplus(h.norm(dim=-1, keepdim=True))


class Attention(nn.Module):
    """Self-attention, norm first."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(WIDTH), nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return x + self.mix(h, h, h, need_weights=False)[0]


class Convolution(nn.Module):
    """A residual block of images, with an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.norm = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.silu(self.norm(self.map(x)), inplace=True)


class Reparametrised(nn.Module):
    """A weight of direction and length."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.map(x))


class Mean(nn.Module):
    """Over positions or pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2) if x.dim() == 4 else x.mean(1)


def _deep(first: nn.Module, block: type[nn.Module], *last: nn.Module) -> nn.Module:
    return nn.Sequential(first, block(), block(), block(), *last, nn.Linear(WIDTH, 3))


def _encoder() -> nn.Module:
    layers = [nn.TransformerEncoderLayer(WIDTH, 2, 8, 0.0, batch_first=True) for _ in range(2)]
    return nn.Sequential(nn.Embedding(9, WIDTH), *layers, Mean(), nn.Linear(WIDTH, 3))


def _numbers() -> Tensor:
    return torch.randn(7, 5).double()


def _tokens() -> Tensor:
    return torch.randint(0, 9, (5, 4))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "layer norm": (lambda: _deep(nn.Linear(5, WIDTH), Norms), _numbers),
    "softplus norm": (lambda: _deep(nn.Linear(5, WIDTH), Softplus), _numbers),
    "weight norm": (lambda: _deep(nn.Linear(5, WIDTH), Reparametrised), _numbers),
    "attention": (lambda: _deep(nn.Embedding(9, WIDTH), Attention, Mean()), _tokens),
    "encoder": (_encoder, _tokens),
    "convolution and batch norm": (
        lambda: _deep(nn.Conv2d(1, WIDTH, 3), Convolution, Mean()),
        lambda: torch.randn(6, 1, 5, 5).double(),
    ),
}


def _network(name: str, mode: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    make, inputs = NETWORKS[name]
    return make().double().train(mode == "training"), inputs()


def _is_that_of_differences(model: nn.Module, value: Callable[[], Tensor]) -> None:
    own = list(model.parameters())
    v = [torch.randn_like(p) for p in own]

    def moved(step: float) -> float:
        with torch.no_grad():
            for p, t in zip(own, v, strict=True):
                p += step * t
        found = float(value().detach())
        with torch.no_grad():
            for p, t in zip(own, v, strict=True):
                p -= step * t
        return found

    got = torch.autograd.grad(value(), own, allow_unused=True, materialize_grads=True)
    along = sum(float((g * t).sum()) for g, t in zip(got, v, strict=True))
    want = (moved(H) - moved(-H)) / (2 * H)
    assert abs(want) > 1e-4  # a direction that says something
    assert abs(along - want) < TOLERANCE * abs(want)


@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_proximal_step_has_the_gradient_of_its_penalty(name: str, form: str, mode: str) -> None:
    model, x = _network(name, mode)
    for law in LAWS:
        proximal = FisherProximal(model, law, 0.5, form=form)
        with torch.no_grad():
            for p in model.parameters():
                p += 0.1 * torch.randn_like(p)
        _is_that_of_differences(model, lambda p=proximal: p(x)[1])  # type: ignore[misc]


@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize("excess", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_action_along_depth_has_the_gradient_of_its_value(name: str, excess: bool, mode: str) -> None:
    model, x = _network(name, mode)
    with DepthAction(model, excess=excess) as penalty:

        def value() -> Tensor:
            model(x)
            return penalty()

        _is_that_of_differences(model, value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_near_the_reference_single_precision_keeps_the_gradient(law: Likelihood, form: str) -> None:
    """The first steps from a reference are small: KL is then lost in rounding, its gradient is not."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3)).double(), torch.randn(64, 5).double()
    step = [1e-4 * torch.randn_like(p) for p in model.parameters()]
    found = []
    for dtype in (torch.float64, torch.float32):
        own = copy.deepcopy(model).to(dtype)
        proximal = FisherProximal(own, law, 1.0, form=form)
        with torch.no_grad():
            for p, t in zip(own.parameters(), step, strict=True):
                p += t
        penalty = proximal(x.to(dtype))[1]
        assert penalty >= 0
        found.append(torch.cat([g.flatten().double() for g in torch.autograd.grad(penalty, list(own.parameters()))]))
    # Outputs move by 1e-4 and carry 1e-7 of rounding.
    assert float((found[1] - found[0]).norm()) < 5e-3 * float(found[0].norm())


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_at_the_reference_both_forms_have_the_fisher_information_as_hessian(law: Likelihood) -> None:
    f = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    want = torch.stack([law.fisher_matvec(f, e.expand_as(f)) for e in torch.eye(3, dtype=torch.float64)], -1)
    for value in (lambda g: law.kl(f, g), lambda g: law.squared_distance(f, g) / 2):
        hessian = torch.autograd.functional.hessian(lambda g, v=value: v(g).sum(), f)
        assert torch.allclose(torch.stack([hessian[i, :, i, :] for i in range(4)]), want, atol=1e-12)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("size", [1e-6, 1e-3, 0.1, 1.0, 10.0])
def test_the_squared_distance_is_the_square_of_the_distance(law: Likelihood, size: float) -> None:
    f, v = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    square = law.distance(f, f + size * v).square()
    # What is left of near laws in float64: 1e-16 of the outputs against their distance.
    assert torch.allclose(law.squared_distance(f, f + size * v), square, rtol=1e-14 + 1e-15 / size, atol=0)


@pytest.mark.parametrize("law", [Categorical(), Bernoulli()], ids=lambda law: law.name)
@pytest.mark.parametrize("form", FORMS)
def test_certain_predictions_have_a_finite_gradient(law: Likelihood, form: str) -> None:
    before = torch.tensor([[1000.0, -1000.0, 200.0], [0.0, 0.3, 500.0]])
    f = (before + 0.1).requires_grad_()
    value = law.kl(before, f) if form == "kl" else law.squared_distance(before, f)
    assert torch.autograd.grad(value.sum(), f)[0].isfinite().all()


def test_a_part_in_training_mode_draws_what_the_network_draws_and_leaves_the_reference() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    model[1].train(), model[2].train()
    proximal = FisherProximal(model, Categorical(), 1.0)
    before = proximal.state_dict()
    assert float(proximal(torch.randn(16, 4))[1].detach()) == 0
    assert all(torch.equal(t, before[k]) for k, t in proximal.state_dict().items())


def test_a_reference_follows_the_network_to_another_precision() -> None:
    model = nn.Linear(4, 3)
    proximal = FisherProximal(model, Categorical(), 1.0)
    model.double()
    assert float(proximal(torch.randn(5, 4).double())[1].detach()) == 0


def test_a_first_hidden_state_changed_in_place_is_refused() -> None:
    class Block(nn.Module):
        def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.map, self.act = nn.Linear(4, 4), act

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.map(self.act(x))
            return out

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = nn.Sequential(nn.Linear(5, 4), Block(torch.relu_), Block(torch.relu), nn.Linear(4, 2))
        with DepthAction(model) as penalty:
            model(torch.randn(3, 5))
            with pytest.raises(UnsupportedLayerError, match="changed in place"):
                penalty()
