"""The contract of output laws holds for every law of the package, and sees each property broken."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from memspace import Bernoulli, Categorical, Gaussian, Likelihood, Poisson
from memspace.errors import LabelError
from memspace.testing import check_law


def _outputs(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


@dataclass(frozen=True)
class _NormalOfUnknownWidth(Likelihood):
    """One number with mean f_0 and standard deviation e^{f_1}: a hyperbolic plane, of which the law says nothing."""

    name: str = "normal"
    continuous = True

    def nll(self, f: Tensor, y: Tensor) -> Tensor:
        z = (y[..., 0].to(f) - f[..., 0]) * torch.exp(-f[..., 1])
        return 0.5 * z.square() + f[..., 1] + 0.5 * math.log(2 * math.pi)

    def fisher_root(self, f: Tensor) -> Tensor:
        return torch.diag_embed(torch.stack([torch.exp(-f[..., 1]), torch.full_like(f[..., 1], math.sqrt(2))], -1))

    def drawn(self, f: Tensor) -> tuple[int, ...]:
        return (*f.shape[:-1], 1)

    def quantile(self, f: Tensor, u: Tensor) -> Tensor:
        normal: Tensor = torch.special.ndtri(u).to(f)
        return f[..., :1] + normal * f[..., 1:].exp()

    def kl(self, f: Tensor, f2: Tensor) -> Tensor:
        mean, log_ratio = (f - f2).unbind(-1)
        return (torch.exp(2 * log_ratio) + mean.square() * torch.exp(-2 * f2[..., 1]) - 1) / 2 - log_ratio

    def mean(self, f: Tensor) -> Tensor:
        return f[..., :1]

    def check(self, f: Tensor, y: Tensor, where: str) -> None:
        if y.shape != (*f.shape[:-1], 1) or not bool(torch.isfinite(y).all()):
            raise LabelError("labels are not one finite number", where=where, remedy="give one")


@pytest.mark.parametrize(
    ("law", "outputs"),
    [
        (Categorical(), 4),
        (Bernoulli(), 3),
        (Bernoulli(), 1),
        (Gaussian(0.7), 3),
        (Gaussian((0.7, 2.0)), 2),
        (Gaussian(), 1),
        (Poisson(), 2),
        (Poisson(), 1),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_law_keeps_the_contract(law: Likelihood, outputs: int) -> None:
    check_law(law, _outputs(20, outputs))


def test_soft_labels_keep_it_too() -> None:
    check_law(Categorical(), _outputs(20, 3), torch.softmax(_outputs(20, 3).flip(0), -1))


def test_without_coordinates_the_distance_is_that_of_the_hyperbolic_plane() -> None:
    f, g = _outputs(40, 2)[:20], _outputs(40, 2)[20:]
    away = (f[:, 0] - g[:, 0]).square() / 2 + (f[:, 1].exp() - g[:, 1].exp()).square()
    expected = math.sqrt(2) * torch.acosh(1 + away / (2 * (f[:, 1] + g[:, 1]).exp()))
    assert torch.allclose(_NormalOfUnknownWidth().distance(f, g), expected, rtol=2e-3)
    check_law(_NormalOfUnknownWidth(), f)


def _leaning(self: Likelihood, f: Tensor, y: Tensor) -> Tensor:
    return Gaussian(0.7).nll(f, y) + f.sum(-1).abs()


BROKEN = {
    "is not the gradient of nll": {"residual": lambda self, f, y: f - y},
    "below its floor": {"floor": lambda self, outputs: 5.0, "nll": lambda self, f, y: Gaussian(0.7).nll(f, y)},
    "excess is not nll": {"nll": lambda self, f, y: Gaussian(0.7).nll(2 * f, 2 * y)},
    "ratio of two densities": {"excess": _leaning, "nll": _leaning},
    "S Sᵀ of fisher_root": {"fisher_root": lambda self, f: torch.eye(2, dtype=f.dtype).expand(len(f), 2, 2)},
    "fisher_matvec is not": {"fisher_matvec": lambda self, f, u: u},
    "merged_root is above": {"merged_root": lambda self, f, share: 2 * Gaussian(0.7).fisher_root(f)},
    "kl is negative": {"kl": lambda self, f, f2: -Gaussian(0.7).kl(f, f2)},
    "kl is not half the Fisher": {"kl": lambda self, f, f2: 2 * Gaussian(0.7).kl(f, f2)},
    "distance is not symmetric": {"distance": lambda self, f, f2: (f - f2).clamp_min(0).norm(dim=-1)},
    "squared_distance is not the Fisher": {"coordinates": lambda self, f: f},
    "sample is not repeatable": {"sample": lambda self, f, generator: Gaussian(0.7).quantile(f, torch.rand(f.shape))},
    "mean is not the mean": {"mean": lambda self, f: f + 1},
    "only one of classes": {"classes": lambda self, outputs: 2},
    "predictions move with the outputs' gain": {"gain_free": True},
    "the loss sees a shift": {"shift_free": True},
    "better than null_output": {"null_output": lambda self, y, outputs: torch.ones(outputs, dtype=torch.float64)},
    "no plain JSON types": {"arguments": lambda self: {"sigma": torch.ones(1)}},
    "is stored and loaded again": {"arguments": lambda self: {"sigma": 3.0}},
    "accepts labels of a wrong shape": {"check": lambda self, f, y, where: None},
}


@pytest.mark.parametrize("said", BROKEN)
def test_what_is_broken_is_named(said: str) -> None:
    broken = type("Broken", (Gaussian,), BROKEN[said])
    with pytest.raises(AssertionError, match=said):
        check_law(broken(0.7), _outputs(20, 2))
