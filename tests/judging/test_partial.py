"""Partial rank correlations: closed forms, residuals by hand, what the given columns settle, words as strata."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from memspace.judging.design import JudgingDesign
from memspace.judging.partial import Partial, partial
from memspace.judging.resampling import Correlation
from memspace.value import Absent
from tests.judging.made import table

N = 80


def _columns(seed: int = 0) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    rng = np.random.default_rng(seed)
    z, w = rng.standard_normal((2, N))
    return {"z": z, "w": w, "m": z + 0.7 * rng.standard_normal(N), "gap": z - 0.5 * w + 0.7 * rng.standard_normal(N)}


def _networks(seed: int = 0) -> pl.DataFrame:
    c = _columns(seed)
    return table({"k0": np.arange(N)}, c["gap"], m=c["m"], z=c["z"], w=c["w"])


def _judged(networks: pl.DataFrame, given: list[str]) -> tuple[Correlation, Correlation]:
    result = partial(networks, "m", JudgingDesign(("k0",)), given=given)
    assert isinstance(result, Partial)
    assert isinstance(result.kendall, Correlation)
    assert isinstance(result.spearman, Correlation)
    return result.kendall, result.spearman


def test_without_columns_they_are_the_plain_ones() -> None:
    c = _columns()
    tau, rho = _judged(_networks(), [])
    assert tau.value.value == pytest.approx(stats.kendalltau(c["m"], c["gap"]).statistic, abs=1e-10)
    assert rho.value.value == pytest.approx(stats.spearmanr(c["m"], c["gap"]).statistic, abs=1e-10)


def test_one_column_by_kendall_s_formula() -> None:
    c = _columns()
    xy, xz, yz = (stats.kendalltau(c[a], c[b]).statistic for a, b in (("m", "gap"), ("m", "z"), ("gap", "z")))
    tau, _ = _judged(_networks(), ["z"])
    assert tau.value.value == pytest.approx((xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2)), abs=1e-10)


def test_two_columns_by_residuals_of_ranks() -> None:
    c = _columns()
    ranks = {name: stats.rankdata(v) for name, v in c.items()}
    x = np.stack([np.ones(N), ranks["z"], ranks["w"]], 1)
    m, gap = (ranks[n] - x @ np.linalg.lstsq(x, ranks[n], rcond=None)[0] for n in ("m", "gap"))
    _, rho = _judged(_networks(), ["z", "w"])
    assert rho.value.value == pytest.approx(np.corrcoef(m, gap)[0, 1], abs=1e-10)


def test_what_follows_the_gap_through_one_column_only_is_uncorrelated_given_it() -> None:
    """m and gap are independent given z: over 60 tables ρ calls them dependent in 5% and three errors at most."""
    judged = [_judged(_networks(seed), ["z"]) for seed in range(60)]
    assert np.mean([rho.p < 0.05 for _, rho in judged]) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 60)
    # Partial τ is not zero then: signs of differences keep less of z than ranks do.
    plain = [_judged(_networks(seed), [])[1].p for seed in range(10)]
    assert max(plain) < 0.05


def test_words_are_strata_and_columns() -> None:
    rng = np.random.default_rng(1)
    family = np.repeat(["a", "b"], N // 2)
    shift = np.where(family == "a", 0.0, 50.0)
    m, gap = rng.standard_normal((2, N))
    gap = gap + m
    networks = table({"k0": np.arange(N)}, gap + shift, m=m - shift, family=family)
    tau, rho = _judged(networks, ["family"])
    within = [family == f for f in ("a", "b")]
    signs = [np.sign(np.subtract.outer(m[i], m[i])) * np.sign(np.subtract.outer(gap[i], gap[i])) for i in within]
    assert tau.value.value == pytest.approx(sum(s.sum() for s in signs) / sum(s.size - len(s) for s in signs), abs=1e-6)
    assert rho.value.value > 0.3
    plain, _ = _judged(networks, [])
    assert plain.value.value < 0


def test_by_default_all_knobs_and_the_training_loss_are_given() -> None:
    c = _columns()
    networks = table({"z": c["z"], "w": c["w"]}, c["gap"], m=c["m"])
    result = partial(networks, "m", JudgingDesign(("z", "w")))
    assert isinstance(result, Partial)
    assert result.given == ("z", "w", "train_loss")
    assert isinstance(result.spearman, Correlation)
    _, rho = _judged(_networks(), ["z", "w"])
    assert result.spearman.value.value == pytest.approx(rho.value.value, abs=1e-10)
    assert "given z, w, train_loss" in result.spearman.value.how


def test_what_the_columns_settle_is_absent() -> None:
    networks = _networks().with_columns(copy=pl.col("m").exp())
    result = partial(networks, "m", JudgingDesign(("k0",)), given=["copy"])
    assert isinstance(result, Partial)
    assert isinstance(result.kendall, Absent)
    assert isinstance(result.spearman, Absent)
    assert isinstance(partial(networks, "m", JudgingDesign(("k0",)), given=["nowhere"]), Absent)


def test_intervals_cover() -> None:
    """Over 100 tables of 80: misses of at most 5% and three standard errors of 2.2%."""
    judged = [_judged(_networks(seed), ["w"]) for seed in range(100)]
    for k in (0, 1):
        truth = np.mean([j[k].value.value for j in judged])
        ends = [j[k].value.interval for j in judged]
        missed = np.mean([e is None or not e[0] <= truth <= e[1] for e in ends])
        assert missed < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)


def test_networks_that_lack_a_knob_stay_and_are_compared_with_each_other() -> None:
    c = _columns()
    lacks = np.arange(N) % 2 == 0
    shift = np.where(lacks, 30.0, 0.0)
    depth = pl.Series(np.arange(N) % 5).set(pl.Series(lacks), None)
    networks = table({"k0": np.arange(N)}, c["gap"] + shift, m=c["m"] - shift).with_columns(depth=depth)
    d = JudgingDesign(("k0", "depth"))
    result = partial(networks, "m", d, given=["depth"])
    assert isinstance(result, Partial)
    assert isinstance(result.kendall, Correlation)
    assert isinstance(result.spearman, Correlation)
    assert result.kendall.value.n == N
    assert result.kendall.value.value > 0.2
    assert result.spearman.value.value > 0.2
    loss = networks.with_columns(train_loss=pl.when(depth == 4).then(None).otherwise(0.1), other=depth)
    without = partial(loss, "m", d, given=["other"])
    assert isinstance(without, Partial)
    assert isinstance(without.kendall, Correlation)
    assert without.kendall.value.n < N / 2
