"""Where a prediction is sure, 1 − p is rounding: derivatives keep their digits all the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace.attribution.target import target_of
from memspace.task.likelihood import Bernoulli, Categorical

GAPS = [1.0, 10.0, 20.0, 40.0, 80.0]


def _logits(gap: float) -> Tensor:
    """Six predictions of four classes, each sure of another class by a gap."""
    g = torch.Generator().manual_seed(int(gap))
    f = torch.randn(6, 4, generator=g, dtype=torch.float64)
    f[torch.arange(6), torch.arange(6) % 4] += gap
    return f.float().double()


def _exact(f: Tensor) -> tuple[Tensor, Tensor]:
    """p and 1 − p, the latter as a sum of the others."""
    p = torch.softmax(f, -1)
    return p, (p.unsqueeze(-2) * (1 - torch.eye(f.shape[-1], dtype=f.dtype))).sum(-1)


@pytest.mark.parametrize("gap", GAPS)
def test_the_residual_of_a_class_keeps_its_digits(gap: float) -> None:
    f = _logits(gap)
    y = torch.arange(6) % 4
    p, rest = _exact(f)
    onehot = nn.functional.one_hot(y, 4).double()
    want = p * (1 - onehot) - rest * onehot
    for labels in (y, onehot.float()):
        got = Categorical().residual(f.float(), labels).double()
        assert torch.allclose(got, want, rtol=2e-5, atol=1e-37)
    wrong = (y + 1) % 4  # sure of another class
    assert torch.allclose(
        Categorical().residual(f.float(), wrong).double(), Categorical().residual(f, wrong), rtol=2e-5, atol=1e-37
    )


@pytest.mark.parametrize("gap", GAPS)
def test_the_information_of_classes_keeps_its_digits(gap: float) -> None:
    f, law = _logits(gap), Categorical()
    p, rest = _exact(f)
    off = 1 - torch.eye(4, dtype=torch.float64)
    h = torch.diag_embed(p * rest) - p.unsqueeze(-1) * p.unsqueeze(-2) * off
    root = law.fisher_root(f.float()).double()
    scale = h.flatten(1).norm(dim=1)
    assert bool(((root @ root.mT - h).flatten(1).norm(dim=1) <= 1e-5 * scale).all())
    u = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    got, want = law.fisher_matvec(f.float(), u.float()).double(), (h @ u.unsqueeze(-1)).squeeze(-1)
    assert bool(((got - want).norm(dim=1) <= 1e-5 * scale * u.norm(dim=1)).all())
    shifted = law.fisher_matvec(f.float(), u.float() + 1e3).double()
    assert bool(((shifted - want).norm(dim=1) <= 1e-3 * scale * u.norm(dim=1)).all())


@pytest.mark.parametrize("gap", GAPS)
def test_the_residual_of_yes_and_no_keeps_its_digits(gap: float) -> None:
    f = torch.tensor([[gap, -gap]], dtype=torch.float64)
    got = Bernoulli().residual(f.float(), torch.tensor([[1.0, 0.0]])).double()
    want = torch.tensor([[-1.0, 1.0]], dtype=torch.float64) * torch.sigmoid(torch.tensor(-gap, dtype=torch.float64))
    assert torch.allclose(got, want, rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("gap", [g for g in GAPS if g < 30])
def test_targets_keep_their_digits(gap: float) -> None:
    f, y, law = _logits(gap), torch.arange(6) % 4, Categorical()
    for name in ("loss", "margin", "logp:0"):
        target = target_of(name, law, 4)
        got, want = target.cotangent(law, f.float(), y).double(), target.cotangent(law, f, y)
        assert torch.allclose(got, want, rtol=1e-4, atol=1e-30), name


@pytest.mark.parametrize("engine", ["dual", "iterative"])
def test_influence_on_a_sure_network_is_that_of_double_precision(engine: str) -> None:
    torch.manual_seed(8)
    y = torch.arange(40) % 3
    x = 3 * nn.functional.one_hot(y, 6).float() + 0.3 * torch.randn(40, 6)
    model = nn.Sequential(nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 3))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(300):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    with torch.no_grad():
        model[2].weight *= 3
        sure = 1 - torch.softmax(model.double()(x.double()), -1).amax(1)
    model.float()
    assert float(sure.median()) < 1e-7  # which single precision does not tell from 0
    whole = copy.deepcopy(model).double()
    held = memspace.Task(whole.eval(), (x.double(), y))
    scale = memspace.fisher(held, memspace.ParameterSpace(whole), "dense").trace().value
    single, double = (
        memspace.influence(memspace.Task(m.eval(), d), [0, 5, 9], engine=e, damping=0.01 * scale)
        for m, d, e in ((model, (x, y), engine), (whole, (x.double(), y), "dual"))
    )
    off = (single.scores.double() - double.scores).norm(dim=1) / double.scores.norm(dim=1)
    assert float(off.max()) < (1e-3 if engine == "dual" else 0.05)
