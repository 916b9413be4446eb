"""Metrics of factors against closed forms: posteriors, outputs, interference and moves that do not commute."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

from memspace.errors import ShapeError
from memspace.measures.alignment import random_cosine
from memspace.measures.factor_metric import (
    FactorDirections,
    commutator,
    cosines,
    encoder_directions,
    gaussian_metric,
    interference,
    joint_efficiency,
    orthogonality_value,
    output_directions,
    pair_values,
)
from memspace.task.likelihood import Categorical, Gaussian
from memspace.value import Absent, Value

NAMES = ("a", "b", "c")


def plain(levels: Tensor) -> Tensor:
    return levels.double()


def levels(count: int = 40, seed: int = 0) -> Tensor:
    return 4 * torch.rand(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ones(x: Tensor) -> Tensor:
    return torch.ones_like(x)


def known(value: Value | Absent) -> Value:
    assert isinstance(value, Value)
    return value


def test_an_identity_encoder_is_orthogonal_and_a_mixed_pair_is_not() -> None:
    same = encoder_directions(lambda x: (x, ones(x)), plain, levels(), NAMES, (0, 1, 2))
    assert known(orthogonality_value(same)[0]).value == pytest.approx(1, abs=1e-12)
    assert torch.allclose(same.metric, torch.eye(3, dtype=torch.float64).expand(40, 3, 3), atol=1e-9)
    mixed = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.float64) / math.sqrt(2)
    turned = encoder_directions(lambda x: (x @ mixed, ones(x)), plain, levels(), NAMES, (0, 1))
    assert known(orthogonality_value(turned)[0]).value == pytest.approx(0, abs=1e-9)
    values = pair_values(encoder_directions(lambda x: (x @ mixed, ones(x)), plain, levels(), NAMES, (0, 1, 2)))
    got = [known(values[p]).value for p in (("a", "b"), ("a", "c"), ("b", "c"))]
    assert got == pytest.approx([1, 0, 0], abs=1e-9)
    _, null = orthogonality_value(same)
    assert known(null).value == pytest.approx(1 - random_cosine(6))


@pytest.mark.parametrize("full", [False, True])
def test_the_metric_of_posteriors_is_the_curvature_of_their_divergence(full: bool) -> None:
    """KL(N(v) ‖ N(v + d)) = ½ dᵀ g d + O(‖d‖³), for posteriors whose mean and covariance both move."""
    g = torch.Generator().manual_seed(1)
    a, b, c = torch.randn(3, 3, 4, generator=g, dtype=torch.float64)

    def posterior(v: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = (v @ a).sin() + v @ b, (0.3 * (v @ c).cos()).exp()
        if not full:
            return mean, spread
        slant = torch.eye(4, dtype=torch.float64) + 0.3 * torch.einsum("mi,mj->mij", (v @ a).cos(), (v @ b).sin())
        return mean, slant @ torch.diag_embed(spread) @ slant.mT

    def law(v: Tensor) -> MultivariateNormal:
        mean, spread = posterior(v)
        return MultivariateNormal(mean, spread if full else torch.diag_embed(spread))

    at = levels(5)
    metric = encoder_directions(posterior, plain, at, NAMES, (0, 1, 2), step=1e-4).metric
    for seed in range(3):
        way = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        step = 1e-3 * way
        both = kl_divergence(law(at), law(at + step)) + kl_divergence(law(at), law(at - step))  # odd terms cancel
        want = torch.einsum("ma,mab,mb->m", step, metric, step)
        assert torch.allclose(both, want, rtol=1e-4, atol=0)


def test_the_formula_of_the_metric_with_traces() -> None:
    g = torch.Generator().manual_seed(0)
    mean, change = torch.randn(2, 3, 2, 4, generator=g, dtype=torch.float64)
    slant = torch.randn(3, 4, 4, generator=g, dtype=torch.float64)
    covariance = slant @ slant.mT + torch.eye(4)
    half = torch.randn(3, 2, 4, 4, generator=g, dtype=torch.float64)
    moved = half + half.mT
    inverse = torch.linalg.inv(covariance)
    want = torch.einsum("mai,mij,mbj->mab", mean, inverse, mean)
    want = want + 0.5 * torch.einsum("mij,majk,mkl,mbli->mab", inverse, moved, inverse, moved)
    assert torch.allclose(gaussian_metric(mean, covariance, moved), want, atol=1e-10)
    spread = torch.rand(3, 4, generator=g, dtype=torch.float64) + 0.5
    flat = gaussian_metric(mean, spread, change)
    assert torch.allclose(flat, gaussian_metric(mean, torch.diag_embed(spread), torch.diag_embed(change)), atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_a_rotation_of_an_isotropic_latent_keeps_every_angle(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(3, 5, generator=g, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(5, 5, generator=g, dtype=torch.float64))
    straight = encoder_directions(lambda x: ((x @ w).tanh(), 0.3 + 0 * x @ w), plain, levels(6), NAMES, (0, 1, 2))
    turned = encoder_directions(lambda x: ((x @ w).tanh() @ q, 0.3 + 0 * x @ w), plain, levels(6), NAMES, (0, 1, 2))
    assert torch.allclose(cosines(straight.metric), cosines(turned.metric), rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(2))
def test_outputs_and_decoders(seed: int) -> None:
    """g_ab = ∂_a fᵀ H ∂_b f for classes; with a Gaussian decoder it is the Euclidean one over σ²."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    at = levels(10)
    got = output_directions(network, Categorical(), plain, at, NAMES, (0, 2), step=1e-4)
    with torch.no_grad():
        slope = 1 - network[0](at).tanh().square()
        jacobian = (network[2].weight @ (slope.unsqueeze(2) * network[0].weight))[:, :, [0, 2]]
        p = network(at).softmax(1)
    h = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    assert torch.allclose(got.metric, jacobian.mT @ h @ jacobian, atol=1e-7)
    assert got.names == ("a", "c")
    decoder = output_directions(network, Gaussian(0.5), plain, at, NAMES, (0, 2), step=1e-4)
    assert torch.allclose(decoder.metric, jacobian.mT @ jacobian / 0.25, atol=1e-6)
    orthogonal, null = orthogonality_value(got)
    assert known(orthogonal).interval is not None
    assert 0 < known(null).value < 1


def test_the_null_of_outputs_is_that_of_random_directions() -> None:
    torch.manual_seed(0)
    wide = nn.Linear(3, 9).double()
    null = known(orthogonality_value(output_directions(wide, Gaussian(1.0), plain, levels(3000), NAMES, (0, 1)))[1])
    assert null.interval is not None
    assert null.value == pytest.approx(1 - random_cosine(9), abs=4 * (null.interval[1] - null.interval[0]) / 3.92)


def test_interference_of_two_factors() -> None:
    """With an angle of θ between them, sin² θ of the information is left; both formulas agree for a pair."""
    for theta in (0.2, 1.0, math.pi / 2):
        seen = torch.tensor([[[2.0, 0.0], [3 * math.cos(theta), 3 * math.sin(theta)]]], dtype=torch.float64)
        metric = seen @ seen.mT
        assert interference(metric)[0, 0, 1].item() == pytest.approx(math.sin(theta) ** 2)
        assert joint_efficiency(metric)[0].tolist() == pytest.approx([math.sin(theta) ** 2] * 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_more_unknown_factors_leave_less(seed: int, k: int) -> None:
    g = torch.Generator().manual_seed(seed)
    seen = torch.randn(4, k, k + 2, generator=g, dtype=torch.float64)
    metric = seen @ seen.mT
    joint = joint_efficiency(metric)
    inverse = torch.linalg.inv(metric)
    want = 1 / (metric * inverse).diagonal(dim1=1, dim2=2)
    assert torch.allclose(joint, want, rtol=1e-6, atol=1e-9)
    pairs = interference(metric) + torch.eye(k, dtype=torch.float64)
    assert bool((joint <= pairs.amin(2) + 1e-9).all())
    scale = torch.rand(k, generator=g, dtype=torch.float64) * 10 + 0.1
    assert torch.allclose(joint_efficiency(metric * scale[:, None] * scale), joint, atol=1e-9)


def test_the_bound_is_what_an_estimator_reaches() -> None:
    """Least squares of two slanted effects in noise: variances with and without knowing the other one."""
    g = torch.Generator().manual_seed(0)
    design = torch.tensor([[1.0, 0.8], [0.0, 0.6]], dtype=torch.float64)
    noise = torch.randn(40_000, 2, generator=g, dtype=torch.float64)
    jointly = torch.linalg.solve(design, noise.T).T[:, 0].var()
    alone = (noise @ design[:, 0] / design[:, 0].square().sum()).var()
    share = joint_efficiency((design.T @ design)[None])[0, 0]
    assert float(alone / jointly) == pytest.approx(float(share), rel=0.03)
    assert float(share) == pytest.approx(0.36)


def test_factors_that_cannot_be_told_apart_or_move_nothing() -> None:
    seen = torch.tensor([[[1.0, 0, 0], [2, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 0], [0, 1, 0]]], dtype=torch.float64)
    joint = joint_efficiency(seen @ seen.mT)
    assert joint[0].tolist() == pytest.approx([0, 0, 1], abs=1e-9)
    assert bool(torch.isnan(joint[1]).all())
    values = pair_values(FactorDirections(NAMES, seen[[1, 1]]))
    assert isinstance(values["a", "b"], Absent)
    assert known(values["a", "c"]).value == 0


def test_variances_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="a mean of 3 numbers has a variance of shape"):
        encoder_directions(lambda x: (x, x[:, :2]), plain, levels(), NAMES, (0, 1))


def _turn(axis: int, angle: float) -> Tensor:
    generator = torch.zeros(3, 3, dtype=torch.float64)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    generator[j, i], generator[i, j] = angle, -angle
    return torch.linalg.matrix_exp(generator)


def test_shifts_commute_and_turns_in_space_do_not() -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    right, up = torch.tensor([0.3, 0, 0]), torch.tensor([0, 0.2, 0])
    gap, ratio = commutator(plain, lambda v: v + right, lambda v: v + up, x)
    assert gap.value == pytest.approx(0, abs=1e-12)
    assert ratio.value == pytest.approx(0, abs=1e-12)
    a, b = _turn(0, 0.4), _turn(1, 0.4)
    gap, ratio = commutator(plain, lambda v: v @ a.T, lambda v: v @ b.T, x)
    want = (x @ (a @ b - b @ a).T).norm(dim=1).mean()
    assert gap.value == pytest.approx(float(want), rel=1e-12)
    assert ratio.interval is not None
    assert ratio.interval[0] > 0.1
