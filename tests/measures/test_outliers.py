"""Outliers among real targets: found where leverage hides them from residuals, with honest probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

import memspace
from memspace.measures.leave_one_out import loo_outputs
from memspace.measures.outliers import fit_outliers, standardised_residuals
from memspace.task.likelihood import Gaussian

N, D = 150, 12


def planted(seed: int, share: float = 0.08) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of very different length, targets of a linear law, and which targets were moved."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(N, D, generator=g, dtype=torch.float64) * torch.randn(N, 1, generator=g, dtype=torch.float64).exp()
    y = x @ torch.randn(D, 1, generator=g, dtype=torch.float64) + torch.randn(N, 1, generator=g, dtype=torch.float64)
    h = torch.einsum("ni,ij,nj->n", x, torch.linalg.inv(x.T @ x), x)
    wrong = torch.rand(N, generator=g, dtype=torch.float64) < share * h / h.mean()  # where the fit follows them
    y[wrong] += 6 * torch.randn(int(wrong.sum()), 1, generator=g, dtype=torch.float64)
    return x, y, wrong


def judged(x: Tensor, y: Tensor, own: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """(z, residual, deleted residual) of least squares, by the hat matrix."""
    law = Gaussian(1.7)
    inverse = torch.linalg.inv(x.T @ x / 1.7**2)
    v = torch.einsum("ni,ij,nj->n", x, inverse, x).reshape(-1, 1, 1)
    f = x @ torch.linalg.lstsq(x, y).solution
    loo = loo_outputs(law, f, y, v)
    if not own:
        v = v / (1 - v / 1.7**2)
    z = standardised_residuals(law, f, y, loo, v, own=own, u=torch.rand_like(y))
    assert z is not None
    return z[:, 0], (y - f)[:, 0], (y - loo)[:, 0]


@pytest.mark.parametrize("own", [True, False])
def test_standardised_residuals_are_those_of_least_squares(own: bool) -> None:
    x, y, _ = planted(0)
    z, residual, deleted = judged(x, y, own)
    h = torch.einsum("ni,ij,nj->n", x, torch.linalg.inv(x.T @ x), x)
    torch.testing.assert_close(deleted, residual / (1 - h))
    torch.testing.assert_close(z, residual / (1 - h).sqrt() / 1.7)


def test_outliers_that_leverage_hides_are_ranked_before_large_residuals() -> None:
    ours, plain = [], []
    for seed in range(12):
        x, y, wrong = planted(seed)
        z, residual, _ = judged(x, y)
        ours.append(average_precision_score(wrong, fit_outliers(z).p_outlier(z)))
        plain.append(average_precision_score(wrong, residual.abs()))
    assert np.mean(ours) > np.mean(plain) + 0.02


def test_probabilities_are_calibrated_and_the_share_is_covered() -> None:
    p, wrong, covered = [], [], 0
    for seed in range(100, 140):
        g = torch.Generator().manual_seed(seed)
        flags = torch.rand(400, generator=g) < 0.1
        z = torch.randn(400, generator=g, dtype=torch.float64)
        if seed % 2:  # wide, some of them in the middle; else far out
            z = z * torch.where(flags, 5.0, 1.0)
        else:
            away = 2.5 * torch.randn(400, 3, generator=g, dtype=torch.float64).norm(dim=1) * z.sign()
            z = torch.where(flags, away, z)
        model = fit_outliers(z)
        p.append(model.p_outlier(z))
        wrong.append(flags)
        low, high = model.ends()
        covered += low <= float(flags.double().mean()) <= high
    q, flags = torch.cat(p), torch.cat(wrong).double()
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.01)):
        inside = (q >= low) & (q < high)
        error = float((q[inside] * (1 - q[inside])).sum().sqrt() / inside.sum())
        assert abs(float(q[inside].mean() - flags[inside].mean())) < 4 * error + 0.03
    assert covered >= 36


@pytest.mark.parametrize("share", [0.05, 0.15])
def test_targets_that_were_shifted_are_counted_where_noise_is_normal(share: float) -> None:
    """Outliers that all lie far out, none in the middle: the share is covered and their number not overstated."""
    covered, told, expected = 0, 0, []
    for seed in range(16):
        g = torch.Generator().manual_seed(seed)
        wrong = torch.rand(300, generator=g) < share
        sign = 2.0 * torch.randint(2, (300,), generator=g) - 1
        z = torch.randn(300, generator=g, dtype=torch.float64)
        z = torch.where(wrong, z + sign * (3 + 4 * torch.rand(300, generator=g)), z)
        model = fit_outliers(z)
        low, high = model.ends()
        told += model.distinguished
        covered += not model.distinguished or low <= float(wrong.double().mean()) <= high
        expected.append(float(model.p_outlier(z).mean()) - float(wrong.double().mean()))
    assert covered >= 14
    assert told >= 8
    assert abs(sum(expected) / 16) < 0.04


@pytest.mark.parametrize("kind", ["t3", "skewed"])
def test_tails_and_skewed_noise_are_no_outliers(kind: str) -> None:
    """Every target right: none is said to be an outlier, or the model says that it can't tell."""
    alarms = 0
    for seed in range(16):
        generator = np.random.default_rng(seed)
        draw = generator.standard_t(3, 300) if kind == "t3" else generator.exponential(size=300) - 1
        model = fit_outliers(torch.from_numpy(draw))
        alarms += model.distinguished and model.weight > 0.5
    assert alarms <= 2


def test_normal_noise_has_no_outliers() -> None:
    alarms = 0
    for seed in range(60):
        g = torch.Generator().manual_seed(seed)
        z = 2.5 * torch.randn(200, generator=g, dtype=torch.float64)
        alarms += bool((fit_outliers(z).p_outlier(z) > 0.5).any())
    assert alarms <= 3


@pytest.mark.parametrize("z", [torch.zeros(20), torch.ones(3), torch.tensor([0.0] * 30 + [1.0])])
def test_degenerate_residuals_give_finite_probabilities(z: Tensor) -> None:
    assert bool(torch.isfinite(fit_outliers(z).p_outlier(z)).all())


def audited(unit: float, sigma: float | None) -> memspace.Results:
    x, y, _ = planted(3)
    model = nn.Linear(D, 1).double()
    with torch.no_grad():
        model.weight.copy_(unit * torch.linalg.lstsq(x, y).solution.T)
        model.bias.zero_()
    law = Gaussian(sigma if sigma is None else sigma * unit)
    return memspace.audit(model, (x[:120], unit * y[:120]), (x[120:], unit * y[120:]), likelihood=law)


def test_no_verdict_moves_with_the_unit_of_the_targets_and_outliers_are_in_the_audit() -> None:
    one, other = audited(1.0, None), audited(1000.0, None)
    said = [[(f.level, f.title) for c in r.chapters for f in c.findings if c.id in ("generalisation", "complexity")]
            for r in (one, other)]  # fmt: skip
    assert said[0] == said[1]
    for name in ("regression.r2_train", "regression.r2_loo", "regression.r2_test", "outliers.share", "fisher.trace"):
        scale = 1e-6 if name == "fisher.trace" else 1.0
        want = one.measurement(name).value
        got = other.measurement(name).value
        if name == "fisher.trace":  # per squared weight, whose unit is the targets'
            assert got == pytest.approx(want * scale, rel=1e-6)
        else:
            assert got == pytest.approx(want, rel=1e-4, abs=1e-6)
    assert other.measurement("regression.sigma").value == pytest.approx(
        1000 * one.measurement("regression.sigma").value, rel=1e-4
    )
    p, q = (r.tables["examples"]["p_outlier"] for r in (one, other))
    np.testing.assert_allclose(p, q, atol=1e-4)
