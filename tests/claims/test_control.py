"""The control: permuted outcomes are decided as rarely as was promised, and a control that fails is seen to."""

from __future__ import annotations

import tomllib

import numpy as np
import polars as pl
import pytest
from scipy import stats

from memspace.claims.control import PermutedControl, permuted, run_control
from memspace.claims.effects import StudentEffect
from memspace.claims.evidence import Evidence, averaged
from memspace.claims.reading import parse_registration
from memspace.claims.registration import ControlDesign
from memspace.claims.sampling import Sampling
from memspace.claims.statistic import statistic_named
from memspace.errors import DataError
from memspace.value import Value
from tests.claims.examples import PAIRS, RANK
from tests.claims.synthetic import FAMILIES, zoo

UNIT = ("family", "data", "configuration")
DESIGN = ControlDesign(("gap", "rival"), ("family", "data"))


def test_outcomes_are_permuted_together_within_strata_and_units_stay_whole() -> None:
    table = zoo(0).sample(fraction=1.0, shuffle=True, seed=1)
    after = permuted(table, DESIGN, UNIT, np.random.default_rng(0))
    untouched = [c for c in table.columns if c not in DESIGN.permute]
    assert after.select(untouched).equals(table.select(untouched))
    assert not after["gap"].equals(table["gap"])
    both = table.select("family", "data", *DESIGN.permute).sort(pl.all())
    assert after.select("family", "data", *DESIGN.permute).sort(pl.all()).equals(both)
    owner = {gap: (d, c) for gap, d, c in table.select("gap", "data", "configuration").iter_rows()}
    for _, rows in after.group_by(UNIT):
        assert len({owner[gap] for gap in rows["gap"]}) == 1  # seeds of one unit came together


def test_rows_of_one_unit_change_with_each_other_where_units_are_the_strata() -> None:
    table = zoo(0, configurations=(1, 1, 1), seeds=8)
    after = permuted(table, ControlDesign(("gap",), UNIT), UNIT, np.random.default_rng(0))
    assert not after["gap"].equals(table["gap"])
    for key, rows in table.group_by(UNIT):
        same = after.filter(pl.all_horizontal(pl.col(c) == v for c, v in zip(UNIT, key, strict=True)))
        assert sorted(same["gap"]) == sorted(rows["gap"])
    with pytest.raises(DataError, match="no column 'nothing'"):
        permuted(table, ControlDesign(("nothing",)), UNIT, np.random.default_rng(0))


@pytest.mark.parametrize("text", [RANK, PAIRS], ids=["rank relation", "matched pairs"])
def test_permuted_outcomes_are_decided_at_the_nominal_rate(text: str) -> None:
    """Even where the true effect is strong: 300 permutations, intervals that miss the null in 5% of families."""
    text = text.replace("repeats = 20", "repeats = 300").replace("threshold = 0.1\n", "threshold = 0.0\n")
    text = text.replace("power = 0.84", "power = 0.98").replace("families = 2\n", "families = 1\n")
    registration = parse_registration(tomllib.loads(text), "example")
    declared = statistic_named(registration.statistic.name)

    def statistic(table: pl.DataFrame, seed: int) -> Evidence:
        sampling = Sampling(UNIT, FAMILIES, 50, seed, readings=False)
        return declared.function(table, registration.statistic.arguments, sampling)

    control = run_control(registration, zoo(3, effect=0.9, configurations=(2, 2, 3)), statistic)
    assert control.holds
    assert control.decided.interval[0] <= 0.05
    assert control.excluding is not None
    exact = text is PAIRS  # a share of few pairs cannot miss in exactly 5%
    missed = round(control.excluding.value * 600)
    assert stats.binomtest(missed, 600, 0.05, alternative="greater" if exact else "two-sided").pvalue > 1e-3
    assert f"{control.repeats} runs came out decided" in control.in_words()
    assert "the control holds" in control.in_words()


@pytest.mark.parametrize(("truth", "nominal"), [("null", 0.05), ("false", 0.025)])
def test_a_statistic_whose_intervals_are_too_narrow_fails_its_control(truth: str, nominal: float) -> None:
    text = RANK.replace("repeats = 20", f'repeats = 60\ntruth = "{truth}"')
    registration = parse_registration(tomllib.loads(text), "example")

    def too_sure(table: pl.DataFrame, seed: int) -> Evidence:
        value = float(np.corrcoef(table["measure"], table["gap"])[0, 1])
        return Evidence({"": averaged({f: StudentEffect(0.2 + value, 0.01, 50, 51) for f in FAMILIES})}, table.height)

    control = run_control(registration, zoo(3), too_sure)
    assert not control.holds
    assert control.nominal == nominal
    assert (control.excluding is None) == (truth == "false")
    assert "the control fails" in control.in_words()


def test_a_zoo_of_permuted_labels_is_told() -> None:
    control = PermutedControl(20, Value.share(0, n=20), 0.05, None, True, "undecided")
    assert "On networks trained on permuted labels the claim is undecided." in control.in_words()
