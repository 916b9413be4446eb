"""Sign error: 0, 1 and ½ where they are due, the published weights and percentile by hand, small environments out."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np
import polars as pl
import pytest

from memspace.errors import SettingsError
from memspace.judging.design import JudgingDesign
from memspace.judging.environments import SignError, sign_error
from memspace.value import Absent
from tests.judging.made import correlated, design, grid, table


def _judged(networks: pl.DataFrame, d: JudgingDesign, measure: str = "m", **options: object) -> SignError:
    result = sign_error(networks, measure, d, **options)  # type: ignore[arg-type]
    assert isinstance(result, SignError)
    return result


def _by_hand(networks: pl.DataFrame, knobs: list[str], tested: int | None, least: float) -> list[float]:
    """The published rule, pair by pair: sign errors of all environments, in both directions."""
    rows = networks.with_columns(gap=pl.col("train_accuracy") - pl.col("test_accuracy")).rows(named=True)
    sums: dict[tuple[tuple[int, ...], tuple[int, ...]], list[float]] = {}
    for a, b in itertools.product(rows, rows):
        one, other = tuple(a[k] for k in knobs), tuple(b[k] for k in knobs)
        if sum(x != y for x, y in zip(one, other, strict=True)) != 1:
            continue
        weight = 1.0
        if tested is not None:
            chance = 2 * math.exp(-2 * tested * (abs(a["gap"] - b["gap"]) / 2) ** 2)
            weight = max(max(0.0, 1 - chance) ** 2 - 0.5, 0.0)
        wrong = (1 - np.sign(a["m"] - b["m"]) * np.sign(a["gap"] - b["gap"])) / 2
        total = sums.setdefault((one, other), [0.0, 0.0, 0.0])
        for k, part in enumerate((weight, weight**2, weight * wrong)):
            total[k] += part
    return [c / a for a, b, c in sums.values() if a > 0 and a**2 / b >= least - 1e-9]


@pytest.mark.parametrize("tested", [None, 4000])
def test_the_published_rule_by_hand(tested: int | None) -> None:
    rng = np.random.default_rng(6)
    knobs = grid([3, 3], 4)
    gap, m = correlated(rng, 9, 0.5, 4, 0.6).T
    networks = table(knobs, 0.4 + 0.1 * gap, m=m).filter(pl.Series(rng.random(36) < 0.95))
    result = _judged(networks, design([3, 3], gap="accuracy", tested=tested), least=7)
    errors = _by_hand(networks, ["k0", "k1"], tested, 7.0)
    assert 2 * result.environments == len(errors) > 10
    assert result.mean.value == pytest.approx(np.mean(errors))
    assert result.ninety.value == pytest.approx(np.percentile(errors, 90))
    assert result.worst.value == pytest.approx(max(errors))
    assert sorted(result.table["error"].to_list()) == pytest.approx(sorted(errors)[::2])
    assert result.environments + result.left_out == 18
    for value in (result.mean, result.ninety, result.worst):
        assert value.interval is not None
        assert 0 <= value.interval[0] <= value.value <= value.interval[1] <= 1


@pytest.mark.parametrize(("direction", "error"), [(1, 0.0), (-1, 1.0)])
def test_a_right_and_a_wrong_measure(direction: Literal[1, -1], error: float) -> None:
    """An interval of 0 or 1 is that of four disjoint pairs, all right: [0, 1 − 0.025^¼]."""
    gap = np.linspace(0, 1, 36)
    result = _judged(table(grid([3, 3], 4), gap, m=np.exp(gap)), design([3, 3]), direction=direction)
    assert (result.mean.value, result.ninety.value, result.worst.value) == (error, error, error)
    far = 1 - 0.025**0.25
    expected = (0.0, far) if error == 0 else (1 - far, 1.0)
    assert result.mean.interval == pytest.approx(expected)
    assert result.worst.interval == pytest.approx(expected)


def test_ties_are_half_an_error_and_noise_guesses() -> None:
    rng = np.random.default_rng(0)
    knobs = grid([6, 6], 4)
    tied = _judged(table(knobs, rng.random(144), m=knobs["k0"]), design([6, 6]))
    along = tied.table.filter(pl.col("knob") == "k1")["error"]
    assert (along == 0.5).all()
    noise = _judged(table(knobs, rng.random(144), m=rng.random(144)), design([6, 6]))
    assert noise.mean.interval is not None
    assert noise.mean.interval[0] < 0.5 < noise.mean.interval[1]


def test_one_environment_can_be_wrong_where_the_mean_is_right() -> None:
    """The measure follows the gap along k0 and, but for one pair of settings of k1, along k1."""
    knobs = grid([4, 4], 4)
    rng = np.random.default_rng(1)
    gap = knobs["k0"] + 10 * knobs["k1"] + 0.01 * rng.random(64)
    m = knobs["k0"] + 10 * np.array([0, 1, 3, 2])[knobs["k1"]]
    result = _judged(table(knobs, gap, m=m), design([4, 4]), environments="settings")
    assert result.environments == 12
    assert result.mean.value == pytest.approx(1 / 12)
    assert result.worst.value == 1
    assert result.table.row(0, named=True) | {"size": 0} == {
        "knob": "k1",
        "low": "2",
        "high": "3",
        "others": "any",
        "error": 1.0,
        "size": 0,
    }


def test_settings_join_the_pairs_of_all_configurations() -> None:
    """With one seed no pair of configurations is a large enough environment; a pair of settings is."""
    rng = np.random.default_rng(2)
    knobs = grid([3, 13])
    gap, m = correlated(rng, 39, 0.5).T
    networks = table(knobs, gap, m=m)
    alone = sign_error(networks, "m", design([3, 13]))
    assert isinstance(alone, Absent)
    assert "the largest has 1.0" in alone.reason
    result = _judged(networks, design([3, 13]), environments="settings")
    assert result.environments == 3
    for row in result.table.rows(named=True):
        low, high = (np.flatnonzero(knobs["k0"] == int(row[e])) for e in ("low", "high"))
        wrong = (1 - np.sign(m[low] - m[high]) * np.sign(gap[low] - gap[high])) / 2
        assert row["error"] == pytest.approx(wrong.mean())
        assert row["size"] == pytest.approx(13)


def test_two_knobs_may_move_at_once() -> None:
    knobs = grid([3, 3], 4)
    gap = np.arange(36.0)
    one, two = (_judged(table(knobs, gap, m=gap), design([3, 3]), differ=d).environments for d in (1, 2))
    assert (one, two) == (18, 36)


def test_differences_that_are_noise_do_not_count() -> None:
    """With 100 test examples a difference of 0.01 is noise, one of 0.5 is none; errors of the gap say the same."""
    knobs = grid([2, 3], 4)
    gap = np.where(knobs["k0"] == 0, 0.1, 0.6) + 0.01 * knobs["k1"]
    networks = table(knobs, gap, m=-knobs["k1"] + 10.0 * knobs["k0"], e=np.full(24, 0.05))
    sure = _judged(networks, design([2, 3], gap="accuracy", tested=100))
    assert set(sure.table["knob"]) == {"k0"}
    assert sure.mean.value == 0
    errors = _judged(networks, design([2, 3], error="e"))  # σ² = 1/(4·100)
    assert errors.table.equals(sure.table)
    assert _judged(networks, design([2, 3])).worst.value == 1


def test_the_mean_s_interval_covers() -> None:
    """Over 100 tables: misses of at most 5% and three standard errors of 2.2%."""
    rng = np.random.default_rng(3)
    means, ends = [], []
    for _ in range(100):
        gap, m = correlated(rng, 36, 0.5, 4, 0.7).T
        result = _judged(table(grid([6, 6], 4), gap, m=m), design([6, 6]), draws=200)
        means.append(result.mean.value)
        ends.append(result.mean.interval)
    truth = float(np.mean(means))
    missed = np.mean([e is None or not e[0] <= truth <= e[1] for e in ends])
    assert missed < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)


def test_nothing_to_compare_is_absent_and_wrong_options_are_refused() -> None:
    rng = np.random.default_rng(0)
    knobs = {"k0": np.arange(20), "k1": rng.permutation(20), "seed": np.zeros(20, int)}
    networks = table(knobs, rng.random(20), m=rng.random(20))
    assert isinstance(sign_error(networks, "m", design([20, 20])), Absent)
    with pytest.raises(SettingsError, match="direction"):
        sign_error(networks, "m", design([20, 20]), direction=0)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="differ"):
        sign_error(networks, "m", design([20, 20]), differ=0)
