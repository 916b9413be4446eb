"""Movement under small changes: in spreads and in ranks, by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from memspace.errors import DataError, SettingsError
from memspace.judging.fragility import fragility


def _moves(before: list[float], after: list[float], change: str = "gain", measure: str = "m") -> pl.DataFrame:
    n = len(before)
    base = [f"net{i}" for i in range(n)]
    return pl.DataFrame(
        {
            "key": [f"{b}-{change}" for b in base],
            "base": base,
            "change": [change] * n,
            "measure": [measure] * n,
            "before": before,
            "after": after,
        }
    )


def _row(moves: pl.DataFrame, change: str | None = "gain", measure: str = "m") -> dict[str, float]:
    made = fragility(moves).filter(pl.col("measure") == measure)
    at = pl.col("change").is_null() if change is None else pl.col("change") == change
    return made.filter(at).row(0, named=True)


def test_a_factor_moves_every_network_by_as_many_spreads() -> None:
    """Values e^0 … e^100; half of what lies between the 16th and 84th percentile of the logarithm is 34."""
    before = np.exp(np.linspace(0, 100, 101))
    row = _row(_moves(list(before), list(before * np.exp(17))))
    assert row["drift"] == pytest.approx(0.5)
    assert (row["moved"], row["moved_90"], row["moved_most"]) == pytest.approx((0.5, 0.5, 0.5))
    assert row["moved_low"] == pytest.approx(0.5)
    assert row["n"] == 101
    # seventeen others passed, fewer for the top seventeen; it stops just beside the last of the seventeen
    passed = np.minimum(17, 100 - np.arange(101))
    half = np.where(np.arange(101) + 17 <= 100, 0.5, 0.0)
    assert row["rank"] == pytest.approx(np.median(passed - half) / 100)
    assert row["rank_most"] == pytest.approx(0.165)


def test_what_does_not_move_has_no_movement_and_a_reversal_passes_all() -> None:
    before = [float(i) for i in range(1, 12)]
    still = _row(_moves(before, before))
    assert (still["drift"], still["moved_most"], still["rank_most"]) == (0, 0, 0)
    turned = _row(_moves(before, before[::-1]))
    assert turned["drift"] == 0
    assert turned["rank_most"] == pytest.approx((10 - 0.5) / 10)  # the first stops at the last one's value


def test_changes_are_told_apart_and_together() -> None:
    before = [float(i) for i in range(1, 13)]
    moves = pl.concat([_moves(before, before), _moves(before, [2 * v for v in before], "width")])
    gain, width, both = _row(moves), _row(moves, "width"), _row(moves, None)
    assert (gain["moved"], both["n"]) == (0, 24)
    assert width["moved"] > 0
    assert both["moved_most"] == pytest.approx(width["moved_most"])
    assert both["moved"] == pytest.approx(width["moved"] / 2)


def test_signed_measures_are_put_on_a_scale_too() -> None:
    before = [float(i) for i in range(-6, 7)]
    row = _row(_moves(before, [-v for v in before]))
    assert row["drift"] == 0
    assert row["moved_most"] > 1


def test_absent_values_are_left_out_and_few_networks_say_so() -> None:
    before = [float(i) for i in range(1, 13)]
    holes = [np.nan if i % 4 == 0 else v for i, v in enumerate(before)]
    assert _row(_moves(before, holes))["n"] == 9
    few = fragility(_moves(before[:5], before[:5]))
    assert few["reason"].to_list() == ["5 networks were changed, fewer than 8"] * 2
    assert few["moved"].null_count() == 2
    same = fragility(_moves([1.0] * 12, before))
    assert "same value" in same["reason"][0]
    infinite = fragility(_moves(before, [*before[:-1], np.inf]))
    assert "infinite" in infinite["reason"][0]


def test_wrong_tables_are_refused() -> None:
    moves = _moves([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(DataError, match="'base'"):
        fragility(moves.drop("base"))
    with pytest.raises(SettingsError, match="dict"):
        fragility({})  # type: ignore[arg-type]
    twice = pl.concat([moves, moves.with_columns(before=pl.col("before") + 1)])
    with pytest.raises(DataError, match="two values of m"):
        fragility(twice)
