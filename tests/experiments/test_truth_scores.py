"""Scores of a retraining study on data whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import false_discovery_control, spearmanr, ttest_rel
from torch import Tensor

from memspace.errors import DataError
from memspace.experiments.designs import left_out, random_parts
from memspace.experiments.lds import correlations, lds, lds_ceiling, split_half
from memspace.experiments.left_out import effects
from memspace.experiments.memorisation import influences, memorisation
from memspace.experiments.outcomes import OutcomeQueries
from memspace.experiments.truth import Design, Truth


def truth_of(design: Design, loss: Tensor, split: str = "test") -> Truth:
    q = loss.shape[2]
    queries = OutcomeQueries(torch.zeros(q, 1), torch.zeros(q, dtype=torch.long), (split,) * q, torch.arange(q))
    return Truth(design, queries, {"loss": loss, "correct": (loss < 0).double()}, 0.0)


def noisy(subsets: int, seeds: int, queries: int, noise: float) -> tuple[Tensor, Truth]:
    """Outcomes linear in what is kept, of unit variance over subsets nearly, plus noise of the seeds."""
    g = torch.Generator().manual_seed(5)
    n = 60
    design = random_parts("half", n, subsets, 0.5, seeds=seeds)
    tau = torch.randn(queries, n, generator=g, dtype=torch.float64)
    clean = design.kept.double() @ tau.T
    clean = clean / clean.std(0)
    spread = noise * torch.randn(subsets, seeds, queries, generator=g, dtype=torch.float64)
    return tau, truth_of(design, -(clean[:, None] + spread))


def rank(r: float) -> float:
    """Spearman's correlation of a Gaussian pair with Pearson correlation r."""
    return 6 / math.pi * math.asin(r / 2)


def test_scores_that_are_the_outcomes_have_lds_one() -> None:
    tau, truth = noisy(20, 2, 5, 0.0)
    assert lds(tau, truth).value == pytest.approx(1.0, abs=1e-12)
    assert lds(tau.T, truth).value == pytest.approx(1.0, abs=1e-12)
    assert lds(-tau, truth).value == pytest.approx(-1.0, abs=1e-12)
    assert lds_ceiling(truth).value == pytest.approx(1.0, abs=1e-12)


def test_lds_is_the_mean_of_spearman_correlations() -> None:
    tau, truth = noisy(30, 3, 6, 2.0)
    predicted = truth.design.kept.double() @ tau.T
    target = truth.support("loss").mean(1)
    want = [spearmanr(predicted[:, q], target[:, q]).statistic for q in range(6)]
    found = lds(tau, truth)
    torch.testing.assert_close(correlations(tau, truth), torch.tensor(want, dtype=torch.float64))
    assert found.value == pytest.approx(sum(want) / 6)
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]


def test_scores_that_do_not_vary_count_as_nothing() -> None:
    tau, truth = noisy(10, 2, 4, 1.0)
    assert lds(torch.zeros_like(tau), truth).value == 0.0


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_ceiling_is_that_of_the_known_reliability(seeds: int) -> None:
    """Noise variance 2 a seed. 600 subsets: a query's correlation errs by 1/√600 = 0.04, the mean of 40 by 0.006."""
    tau, truth = noisy(600, seeds, 40, math.sqrt(2.0))
    half = seeds // 2
    r = rank(1 / (1 + 2 / half))
    times = seeds / half
    reliability = times * r / (1 + (times - 1) * r)
    assert float(split_half(truth).mean()) == pytest.approx(reliability, abs=0.025)
    top = lds_ceiling(truth)
    assert top.value == pytest.approx(math.sqrt(reliability), abs=0.02)
    assert lds(tau, truth).value == pytest.approx(rank(1 / math.sqrt(1 + 2 / seeds)), abs=0.02)
    assert lds(tau, truth).value == pytest.approx(top.value, abs=0.03)  # ranks are attenuated nearly like values


def test_pure_noise_has_a_low_ceiling() -> None:
    _, truth = noisy(200, 2, 20, 1e6)
    assert lds_ceiling(truth).value < 0.3  # 1/√200 = 0.07 by chance, doubled by Spearman–Brown, its root


def test_what_gives_no_score_is_refused() -> None:
    tau, truth = noisy(10, 1, 4, 1.0)
    with pytest.raises(DataError, match="seeds"):
        lds_ceiling(truth)
    with pytest.raises(DataError, match=r"not \(4, 60\)"):
        lds(tau[:, :-1], truth)
    with pytest.raises(DataError, match="not finite"):
        lds(tau * math.inf, truth)
    with pytest.raises(DataError, match="'margin'"):
        lds(tau, truth, outcome="margin")
    with pytest.raises(DataError, match="cannot be made"):
        random_parts("x", 10, 4, 1.0)
    with pytest.raises(DataError, match=r"0\.\.9"):
        left_out("x", 10, [torch.tensor([10])], 3)
    with pytest.raises(DataError, match="keeps no example"):
        Design("x", torch.zeros(1, 3, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.long))


def test_effects_are_paired_t_tests_with_a_false_discovery_rate() -> None:
    g = torch.Generator().manual_seed(1)
    design = left_out("left-out", 30, [torch.tensor([k]) for k in range(12)], 6)
    of_seed = 50 * torch.randn(1, 6, 3, generator=g, dtype=torch.float64)  # what a seed does to all parts alike
    loss = of_seed + torch.randn(13, 6, 3, generator=g, dtype=torch.float64)
    loss[1:4] += 8.0
    found = effects(truth_of(design, loss))
    want = ttest_rel(loss[1:].numpy(), loss[:1].numpy(), axis=1)
    torch.testing.assert_close(found.p, torch.as_tensor(want.pvalue))
    torch.testing.assert_close(found.mean / found.error, torch.as_tensor(want.statistic))
    marked = false_discovery_control(want.pvalue, axis=None).reshape(12, 3) <= 0.05
    assert torch.equal(found.exceeds, torch.as_tensor(marked))
    assert bool(found.exceeds[:3].all())
    whole = effects(truth_of(design, loss), each=False)
    torch.testing.assert_close(whole.mean[:, 0], found.mean.mean(1))


def test_effects_need_the_same_seeds_and_all_examples_first() -> None:
    design = random_parts("half", 30, 4, 0.5, seeds=3)
    with pytest.raises(DataError, match="all examples"):
        effects(truth_of(design, torch.zeros(4, 3, 2, dtype=torch.float64)))


def test_memorisation_and_influence_are_differences_of_means() -> None:
    """Against a loop over examples; example 0 decides query 1 alone."""
    g = torch.Generator().manual_seed(2)
    n, t = 8, 40
    design = random_parts("memorisation", n, t, 0.7, own_seeds=True)
    assert len(set(design.seeds.flatten().tolist())) == t
    loss = torch.randn(t, 1, n, generator=g, dtype=torch.float64)
    loss[:, 0, 1] = torch.where(design.kept[:, 0], -1.0, 1.0)
    truth = truth_of(design, loss, split="train")
    mem, infl = memorisation(truth), influences(truth)
    right = (loss[:, 0] < 0).double()
    for i in range(n):
        inside = design.kept[:, i]
        a, b = right[inside], right[~inside]
        assert float(mem.value[i]) == pytest.approx(float(a[:, i].mean() - b[:, i].mean()))
        torch.testing.assert_close(infl.value[i], a.mean(0) - b.mean(0))
        assert int(mem.inside[i]) == len(a)
        p = (a.sum(0)[i] + 0.5) / (len(a) + 1)
        q = (b.sum(0)[i] + 0.5) / (len(b) + 1)
        assert float(mem.error[i]) == pytest.approx(math.sqrt(p * (1 - p) / len(a) + q * (1 - q) / len(b)))
    assert float(infl.value[0, 1]) == 1.0
    by_loss = influences(truth, outcome="loss")
    a, b = -loss[:, 0][design.kept[:, 3]], -loss[:, 0][~design.kept[:, 3]]
    torch.testing.assert_close(by_loss.value[3], a.mean(0) - b.mean(0))
    torch.testing.assert_close(by_loss.error[3], (a.var(0) / len(a) + b.var(0) / len(b)).sqrt())


def test_memorisation_of_an_example_never_left_out_is_unknown() -> None:
    design = Design("memorisation", torch.tensor([[True, True], [True, False]]), torch.tensor([[0], [1]]))
    found = memorisation(truth_of(design, -torch.ones(2, 1, 2, dtype=torch.float64), split="train"))
    assert math.isnan(float(found.value[0]))
    assert float(found.value[1]) == 0.0
    with pytest.raises(DataError, match="every training example"):
        memorisation(truth_of(design, -torch.ones(2, 1, 2, dtype=torch.float64)))
