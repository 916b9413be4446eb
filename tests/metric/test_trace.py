"""Trace estimators on matrices whose trace is known."""

import pytest
import torch

from memspace.metric.trace import hutch_plus_plus, hutchinson, xtrace

ESTIMATORS = [hutchinson, hutch_plus_plus, xtrace]
P = 120


def matrix(values, seed):
    q = torch.linalg.qr(torch.randn(P, P, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    return q * values @ q.T


def draws(estimator, a, budget, count):
    made = [estimator(lambda v: v @ a, P, budget, torch.Generator().manual_seed(s)) for s in range(count)]
    return torch.tensor([m.value for m in made]), torch.tensor([m.standard_error for m in made])


DECAYS = {
    "fast": 0.8 ** torch.arange(P, dtype=torch.float64),
    "slow": 1 / torch.arange(1, P + 1, dtype=torch.float64),
    "flat": torch.linspace(1, 2, P, dtype=torch.float64),
}


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_unbiased_with_an_honest_standard_error(estimator, decay):
    a = matrix(DECAYS[decay], 1)
    count = 300
    values, errors = draws(estimator, a, 24, count)
    spread = float(values.std())
    assert abs(float(values.mean()) - float(a.trace())) < 4 * spread / count**0.5
    # Root mean square of the stated errors against the real scatter. A standard deviation over 300 draws is known to
    # 4%; that of a few probes has a heavier tail, and XTrace's leave-one-out estimates are not quite independent.
    assert 0.6 < float(errors.square().mean().sqrt()) / spread < 1.6


def test_sketching_beats_plain_probes_where_the_spectrum_decays():
    a = matrix(DECAYS["fast"], 2)
    plain, plus, extra = (float(draws(e, a, 30, 100)[0].var()) for e in ESTIMATORS)
    # 10 sketched directions leave a tail of norm 0.8^10 times a constant of the sketch (about 3), 14 one of 0.8^14; the
    # ratio of two variances over 100 draws is known within a factor of 1.5.
    assert plus < plain / 4
    assert extra < plain / 16
    assert extra < plus


@pytest.mark.parametrize("estimator", [hutch_plus_plus, xtrace])
def test_exact_below_the_rank_of_the_sketch(estimator):
    values = torch.zeros(P, dtype=torch.float64)
    values[:5] = torch.tensor([5.0, 4, 3, 2, 1], dtype=torch.float64)
    a = matrix(values, 3)
    got = estimator(lambda v: v @ a, P, 24, torch.Generator().manual_seed(0))
    assert got.value == pytest.approx(15, rel=1e-9)
    assert got.standard_error < 1e-7


def test_too_small_a_budget_is_refused():
    for estimator in (hutch_plus_plus, xtrace):
        with pytest.raises(ValueError, match="at least"):
            estimator(lambda v: v, P, 3, torch.Generator())


def test_a_budget_above_the_size_gives_the_trace():
    a = torch.diag(torch.tensor([1.0, 2, 3, 4], dtype=torch.float64))
    for estimator in (hutch_plus_plus, xtrace):
        assert estimator(lambda v: v @ a, 4, 40, torch.Generator().manual_seed(1)).value == pytest.approx(10)
