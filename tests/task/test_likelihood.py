"""Output laws against torch.distributions, autograd and enumeration, all in float64.

What every law owes is checked in ``tests/contract/test_law.py``.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch import distributions as law_of

from memspace.errors import LabelError
from memspace.task.law import IGNORE
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Likelihood, Poisson

B, C = 7, 4
LAWS = [Categorical(), Bernoulli(), Gaussian(0.7), Poisson()]
_every_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)


def _outputs(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or (B, C), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _labels(law: Likelihood, f: Tensor, seed: int = 5) -> Tensor:
    return law.sample(f, torch.Generator().manual_seed(seed))


def _reference(law: Likelihood, f: Tensor) -> law_of.Distribution:
    """The same law as a torch distribution with one event per position."""
    if isinstance(law, Categorical):
        return law_of.Categorical(logits=f)
    if isinstance(law, Bernoulli):
        return law_of.Independent(law_of.Bernoulli(logits=f), 1)
    if isinstance(law, Gaussian):
        return law_of.Independent(law_of.Normal(f, law.sigma), 1)
    return law_of.Independent(law_of.Poisson(f.exp()), 1)


def _information(law: Likelihood, f: Tensor) -> Tensor:
    """H (B, C, C) column by column."""
    units = torch.eye(f.shape[-1], dtype=f.dtype)
    return torch.stack([law.fisher_matvec(f, e.expand_as(f)) for e in units], -1)


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@_every_law
@pytest.mark.parametrize("shape", [(B, C), (3, 5, C)], ids=["examples", "sequences"])
def test_nll_is_minus_the_log_probability(law: Likelihood, shape: tuple[int, ...]) -> None:
    f = _outputs(0, *shape)
    y = _labels(law, f)
    law.check(f, y, "labels")
    _close(law.nll(f, y), -_reference(law, f).log_prob(y))


@_every_law
def test_the_information_is_the_hessian_of_the_divergence(law: Likelihood) -> None:
    f = _outputs(3)
    for one, expected in zip(f, _information(law, f), strict=True):
        # The KL has a minimum here, where clamping at 0 would cut its derivatives: differentiate the other law's.
        hessian = torch.autograd.functional.hessian(
            lambda g, at=one: law_of.kl_divergence(_reference(law, at), _reference(law, g)), one.clone()
        )
        _close(expected, hessian, 1e-10)


def test_the_information_of_classes_is_the_expected_curvature_by_enumeration() -> None:
    law, f = Categorical(), _outputs(4)
    for one, expected in zip(f, _information(law, f), strict=True):
        p = torch.softmax(one, -1)
        curvature = sum(
            p[k] * torch.autograd.functional.hessian(lambda g, k=k: law.nll(g, torch.tensor(k)), one) for k in range(C)
        )
        _close(expected, torch.as_tensor(curvature))


def test_the_information_of_bits_is_the_expected_outer_product_by_enumeration() -> None:
    law, f = Bernoulli(), _outputs(5)
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * C)
    g = law.residual(f.unsqueeze(1), every.expand(B, -1, -1))
    p = (-law.nll(f.unsqueeze(1).expand_as(g), every.expand(B, -1, -1))).exp()
    _close(torch.einsum("bk,bki,bkj->bij", p, g, g), _information(law, f))


@_every_law
def test_kl_is_that_of_torch(law: Likelihood) -> None:
    f, f2 = _outputs(6), _outputs(7)
    _close(law.kl(f, f2), law_of.kl_divergence(_reference(law, f), _reference(law, f2)))
    assert float(law.kl(f, f).abs().max()) < 1e-14


@_every_law
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), exponent=st.floats(-4.0, -3.0))
def test_near_laws_are_as_far_apart_as_the_root_of_twice_their_divergence(
    law: Likelihood, seed: int, exponent: float
) -> None:
    f, step = _outputs(seed), 10**exponent * _outputs(seed + 1)
    distance = law.distance(f, f + step)
    quadratic = (step * law.fisher_matvec(f, step)).sum(-1).sqrt()
    # Both differ from the quadratic form at f by a share of the order of the step, below 1e-3 times a few.
    torch.testing.assert_close(distance, quadratic, rtol=0.02, atol=0)
    torch.testing.assert_close(distance, (2 * law.kl(f, f + step)).sqrt(), rtol=0.02, atol=0)


@_every_law
def test_no_straight_line_in_the_outputs_is_shorter_than_the_distance(law: Likelihood) -> None:
    """And for the Gaussian law, whose outputs are flat coordinates, it is exactly as long."""
    f, g = _outputs(8), _outputs(9)
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None, None]
    points = f + t * (g - f)
    step, middle = points[1:] - points[:-1], (points[1:] + points[:-1]) / 2
    length = (step * law.fisher_matvec(middle, step)).sum(-1).sqrt().sum(0)
    assert bool((law.distance(f, g) <= length + 1e-9).all())
    if isinstance(law, Gaussian):
        _close(law.distance(f, g), length, 1e-9)


def test_one_bit_is_two_classes() -> None:
    f, g = _outputs(10, B, 1), _outputs(11, B, 1)
    as_classes = [torch.cat([torch.zeros_like(v), v], -1) for v in (f, g)]
    _close(Bernoulli().distance(f, g), Categorical().distance(*as_classes), 1e-9)
    _close(Bernoulli().kl(f, g), Categorical().kl(*as_classes))
    y = torch.arange(B) % 2
    _close(Bernoulli().nll(f, y[:, None].double()), Categorical().nll(as_classes[0], y))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-30, 30))
def test_classes_do_not_see_a_common_shift(seed: int, shift: float) -> None:
    law, f = Categorical(), _outputs(seed)
    y = torch.arange(B) % C
    _close(law.nll(f, y), law.nll(f + shift, y), 1e-9)
    assert float(law.distance(f, f + shift).max()) < 1e-6
    assert float(law.fisher_matvec(f, torch.ones_like(f)).abs().max()) < 1e-14


@_every_law
def test_samples_have_the_mean_and_the_variance_of_the_law(law: Likelihood) -> None:
    n = 200_000
    f = _outputs(12, 1, C).expand(n, C)
    y = _labels(law, f)
    values = torch.nn.functional.one_hot(y, C).double() if law.name == "categorical" else y.double()
    variance = _information(law, f[:1])[0].diagonal()
    if isinstance(law, Gaussian):
        variance = 1 / variance  # of the three other laws, f is the natural parameter and H the variance
    error = 5 * (variance / n).sqrt()
    assert bool(((values.mean(0) - law.mean(f)[0]).abs() < error).all())
    torch.testing.assert_close(values.var(0), variance, rtol=0.05, atol=0)


def test_padded_positions_cost_nothing_and_pull_nothing() -> None:
    law, f = Categorical(), _outputs(15, 2, 3, C)
    y = torch.tensor([[1, IGNORE, 2], [IGNORE, 0, 3]])
    law.check(f, y, "labels")
    padded = y == IGNORE
    assert bool((law.nll(f, y)[padded] == 0).all())
    assert bool((law.residual(f, y)[padded] == 0).all())
    assert bool((law.weight(f, y)[padded] == 0).all())
    reference = torch.nn.functional.cross_entropy(f.flatten(0, 1), y.flatten(), reduction="sum")
    _close(law.nll(f, y).sum(), reference)
    # A class beyond every label seen has its place, too, with half a count.
    _close(law.null_output(y, C + 2).exp(), torch.tensor([1, 1, 1, 1, 0.5, 0.5], dtype=torch.float64) / 5)


@_every_law
def test_extreme_outputs_stay_finite(law: Likelihood) -> None:
    f = torch.tensor([[300.0, -300.0, 0.0, 50.0]], dtype=torch.float64)
    if isinstance(law, Poisson):
        f = f.clamp(max=20)
    y = law.predict(f).round() if isinstance(law, Poisson) else law.predict(f)
    for value in (law.nll(f, y), law.residual(f, y), law.fisher_root(f), law.kl(f, -f / 20), law.distance(f, -f / 20)):
        assert bool(torch.isfinite(value).all())


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_a_gaussian_needs_a_positive_width(sigma: float) -> None:
    with pytest.raises(ValueError, match="positive sigma"):
        Gaussian(sigma)


@_every_law
def test_labels_of_the_wrong_shape_say_where(law: Likelihood) -> None:
    with pytest.raises(LabelError, match="training data"):
        law.check(_outputs(16), torch.zeros(B, C + 1), "training data")
