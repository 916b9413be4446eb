"""The order within blocks: learned from differences, of groups never seen, and blind to what sets blocks apart."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from memspace.judging.combination import measured_everywhere, order_within
from memspace.judging.design import JudgingDesign
from memspace.value import Absent

DESIGN = JudgingDesign(("family", "width"), seed="seed", gap="loss", tested=1000, left_out="family")


def _networks(seed: int, families: int = 4) -> pl.DataFrame:
    """Two blocks a family; ``level`` tells blocks apart and orders each wrongly, ``sign`` orders each rightly."""
    rng = np.random.default_rng(seed)
    rows = []
    for family in range(families):
        for block in range(2):
            far = 3.0 * rng.standard_normal()
            for width in range(6):
                for again in range(2):
                    small = rng.standard_normal()
                    rows.append(
                        {
                            "family": f"f{family}",
                            "block": f"b{family}{block}",
                            "width": width,
                            "seed": again,
                            "train_loss": 0.0,
                            "test_loss": far + 0.3 * small,
                            "level": far - 0.3 * small,
                            "sign": small + 0.3 * rng.standard_normal(),
                            "noise": rng.standard_normal(),
                        }
                    )
    return pl.DataFrame(rows)


@pytest.mark.parametrize("seed", range(5))
def test_blocks_are_ordered_though_the_level_of_the_gap_is_told_by_what_orders_them_wrongly(seed: int) -> None:
    table = _networks(seed)
    order = order_within(table, ["level", "sign", "noise"], DESIGN)
    assert not isinstance(order, Absent)
    taus = [
        stats.kendalltau(part["order"], part["test_loss"]).statistic
        for _, part in table.with_columns(order=order).group_by("block")
    ]
    assert np.mean(taus) > 0.5
    assert order.null_count() == 0


def test_a_family_is_ordered_by_the_others_alone() -> None:
    table = _networks(7)
    own = pl.col("family") == "f0"
    turned = table.with_columns(test_loss=pl.when(own).then(-pl.col("test_loss")).otherwise("test_loss"))
    orders = [order_within(t, ["level", "sign"], DESIGN) for t in (table, turned)]
    first, second = (np.asarray(o)[(table["family"] == "f0").to_numpy()] for o in orders)
    assert first == pytest.approx(second)


def test_networks_that_may_not_be_learned_from_are_ordered_all_the_same() -> None:
    table = pl.concat(
        [_networks(1), _networks(2).with_columns(block="g" + pl.col("block"), test_loss=-pl.col("test_loss"))]
    )
    learned = pl.Series(np.arange(len(table)) < len(table) // 2)
    order = order_within(table, ["sign"], DESIGN, learned_from=learned)
    alone = order_within(table.filter(learned), ["sign"], DESIGN)
    assert not isinstance(order, Absent)
    assert not isinstance(alone, Absent)
    both = np.asarray(order)
    # not 1: the scale on which a measure is taken is that of all networks of the table
    assert stats.kendalltau(both[: len(alone)], alone).statistic > 0.98
    assert stats.kendalltau(both[len(alone) :], table["sign"][len(alone) :]).statistic > 0.9


def test_one_family_orders_nothing_and_a_measure_that_is_missing_somewhere_is_left_out() -> None:
    table = _networks(3, families=1)
    assert isinstance(order_within(table, ["sign"], DESIGN), Absent)
    holed = table.with_columns(sign=pl.when(pl.col("width") == 0).then(None).otherwise("sign"))
    assert measured_everywhere(holed, ["level", "sign", "noise"]) == ["level", "noise"]
