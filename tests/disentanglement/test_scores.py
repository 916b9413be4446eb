"""Every score on codes whose right answer is known: by construction, by symmetry, or by chance."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memspace.errors import NonFiniteError, SettingsError, ShapeError
from memspace.intervals import margin
from memspace.measures.scores.binned import entropies, information
from memspace.measures.scores.dci import dci, dci_of_importance
from memspace.measures.scores.every_score import score_all, standardised
from memspace.measures.scores.explicitness import explicitness
from memspace.measures.scores.groups import groups_of
from memspace.measures.scores.irs import irs
from memspace.measures.scores.knockout import knockout
from memspace.measures.scores.mig import mig
from memspace.measures.scores.modularity import modularity
from memspace.measures.scores.repeated import repeat_scores
from memspace.measures.scores.sap import sap
from memspace.measures.scores.score import ScoreSettings, registered_scores, score, scores_named
from memspace.measures.scores.single_neuron import single_neuron
from tests.disentanglement.codes import FAST, QUICK, SIZES, constructed, haar, levels, numbers

ROWS = 600
WITH_FORESTS = (*FAST, "dci")
CHANCE = 1 / len(SIZES)


def _numbers(kind: str, seed: int, *names: str) -> dict[str, float]:
    v = levels(ROWS, seed)
    return numbers(constructed(kind, v, seed), v, *names)


@pytest.mark.parametrize("kind", ["perfect", "permuted"])
def test_units_that_are_the_factors_have_the_best_score(kind: str) -> None:
    scores = _numbers(kind, 0, *WITH_FORESTS)
    exact = ("dci.informativeness", "modularity", "factor_vae", "beta_vae", "irs", "snc")
    assert {name: scores[name] for name in exact} == pytest.approx(dict.fromkeys(exact, 1.0), abs=0.01)
    # The second unit's information is bias alone: at most (bins − 1)(levels − 1)/2M.
    assert scores["mig"] == pytest.approx(1, abs=0.02)
    assert scores["dci"] == pytest.approx(1, abs=0.01)
    assert scores["dci.completeness"] == pytest.approx(1, abs=0.01)
    assert scores["explicitness"] > 0.7  # a linear rule cannot pick middle levels out
    assert scores["sap"] > 0.2


def test_a_rotation_lowers_what_asks_for_single_units_and_leaves_what_does_not() -> None:
    """Mean over rotations: a single one may by chance lie near the axes."""
    v = levels(ROWS, 1)
    exact = constructed("perfect", v, 1)
    kept = numbers(exact, v, *WITH_FORESTS)
    turned = [numbers(exact @ haar(3, seed), v, *WITH_FORESTS) for seed in (1, 2)]
    mean = {name: float(np.mean([t[name] for t in turned])) for name in kept}
    for name in ("mig", "dci", "dci.completeness", "snc", "irs"):
        assert mean[name] < 0.9 * kept[name], name
    assert mean["modularity"] < kept["modularity"]
    # An orthogonal map of standardised codes leaves what all units tell linearly, up to the penalty of the classifier.
    assert mean["explicitness"] == pytest.approx(kept["explicitness"], abs=0.005)


def test_a_duplicated_unit_leaves_no_gap_and_stays_modular() -> None:
    scores = _numbers("duplicated", 2, *WITH_FORESTS)
    assert scores["mig"] == pytest.approx(0, abs=1e-12)
    assert scores["sap"] == pytest.approx(0, abs=1e-12)
    for name in ("dci", "modularity", "factor_vae", "beta_vae", "irs", "snc"):
        assert scores[name] > 0.95, name
    # Two equal units share the importance: completeness is 1 − log 2 / log 6 where trees take either at random.
    assert scores["dci.completeness"] < 0.9


def test_a_factor_without_a_unit_costs_its_share() -> None:
    scores = _numbers("missing", 3, *WITH_FORESTS)
    assert scores["mig"] == pytest.approx(2 / 3, abs=0.05)
    assert scores["snc"] == pytest.approx(2 / 3, abs=0.05)
    # Any vote for the first factor goes to the noise: a third of the votes, of which noise units win few by chance.
    assert scores["dci.informativeness"] < 0.85
    assert scores["explicitness"] < _numbers("perfect", 3, "explicitness")["explicitness"] - 0.05


def test_noise_lowers_every_score_but_not_to_chance() -> None:
    noisy, perfect, chance = (_numbers(kind, 4) for kind in ("noisy", "perfect", "independent"))
    for name in ("mig", "snc", "irs"):
        assert chance[name] + 0.1 < noisy[name] < perfect[name] - 0.02, name


def test_a_constant_unit_is_idle() -> None:
    """Modularity alone counts it, as 0 (Locatello et al. 2019)."""
    idle, perfect = _numbers("constant", 5, *WITH_FORESTS), _numbers("perfect", 5, *WITH_FORESTS)
    for name in ("mig", "sap", "dci", "factor_vae", "beta_vae", "irs", "snc", "explicitness"):
        assert idle[name] == pytest.approx(perfect[name], abs=0.01), name
    assert idle["modularity"] == pytest.approx(0.75 * perfect["modularity"], abs=0.01)


def test_codes_that_tell_nothing_score_by_chance() -> None:
    """Means over draws within four standard errors of the chance level, where that is known."""
    draws = [_numbers("independent", seed) for seed in range(8)]
    for name, chance in (("factor_vae", CHANCE), ("beta_vae", CHANCE), ("explicitness", 0.5), ("snc", 0.0)):
        values = np.array([d[name] for d in draws])
        assert abs(values.mean() - chance) < 4 * values.std(ddof=1) / math.sqrt(8) + 0.02, name
    for name in ("mig", "sap"):
        assert np.mean([d[name] for d in draws]) < 0.08, name
    forest = _numbers("independent", 0, "dci")
    assert max(forest["dci"], forest["dci.completeness"]) < 0.1
    # The information of noise is bias alone, in proportion to the number of levels less one.
    bias = np.array(SIZES) - 1.0
    expected = 1 - (bias[:2] ** 2).sum() / (bias[2] ** 2 * 2)
    assert np.mean([d["modularity"] for d in draws]) == pytest.approx(expected, abs=0.12)


@pytest.mark.parametrize("kind", ["rotated", "noisy"])
def test_order_sign_scale_and_shift_of_units_do_not_matter(kind: str) -> None:
    """After standardising, as ``score_all`` does: histograms move a value over an edge only by rounding."""
    v = levels(ROWS, 6)
    z = constructed(kind, v, 6)
    moved = z[:, [1, 2, 0]] * np.array([-4.0, 0.25, 1000.0]) + np.array([3.0, -1.0, 50.0])
    before, after = numbers(standardised(z), v), numbers(standardised(moved), v)
    for name in before:
        # A changed sign puts values at an edge into the other bin, and mirrors the draw of the classifiers.
        assert after[name] == pytest.approx(before[name], abs=0.02), name


def test_factors_of_one_level_are_left_out() -> None:
    v = levels(ROWS, 7)
    z = constructed("noisy", v, 7)
    still = np.concatenate([v, np.full((ROWS, 1), 3)], 1)
    assert numbers(z, still) == numbers(z, v)
    nothing = np.zeros((ROWS, 2), dtype=np.int64)
    assert all(math.isnan(x) for x in numbers(z, nothing).values())


def test_one_unit_for_two_factors_is_seen_by_one_to_one_matching() -> None:
    """The first flaw: a unit that holds two factors, next to noise, has a gap for both."""
    v = levels(1000, 8, (4, 4))
    z = standardised(np.stack([4.0 * v[:, 0] + v[:, 1], np.random.default_rng(8).standard_normal(1000)], 1))
    assert mig(z, v, bins=64) > 0.9
    assert numbers(z, v, "dci")["dci.completeness"] > 0.9
    assert single_neuron(z, v) < 0.6


def test_what_other_units_tell_together_is_seen_by_knocking_out() -> None:
    """The second flaw: two units whose sum modulo 4 is the first factor, of which either alone tells nothing."""
    v = levels(500, 9, (4, 3))
    key = np.random.default_rng(90).integers(0, 4, 500)
    apart = standardised(v.astype(float))
    hidden = standardised(np.stack([*v.T, key, (v[:, 0] + key) % 4], 1).astype(float))
    assert mig(hidden, v) > 0.9
    assert knockout(apart, v) > 0.95
    assert knockout(hidden, v) < 0.65
    noise = np.random.default_rng(10).standard_normal((300, 3))
    assert abs(knockout(noise, levels(300, 10, (2, 3)))) < 0.2


def test_information_is_that_of_a_known_channel() -> None:
    """A unit equal to a factor has its entropy; half right, half uniform: closed form on exact counts."""
    v = np.repeat(np.arange(4), 4)[:, None]
    assert information(v.astype(float), v)[0, 0] == pytest.approx(math.log(4))
    assert entropies(v)[0] == pytest.approx(math.log(4))
    code = np.array([0, 0, 1, 1] * 4)[:, None].astype(float)
    assert information(code, v)[0, 0] == 0
    mixed = np.array([0, 0, 0, 1, 1, 1, 1, 0])[:, None]  # a channel that errs in a quarter of its uses
    sent = np.array([0, 0, 0, 0, 1, 1, 1, 1])[:, None]
    error = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert information(mixed.astype(float), sent)[0, 0] == pytest.approx(math.log(2) - error)


def test_modularity_of_known_information() -> None:
    """A unit with I = (h, h) of three factors has 1 − 1/2."""
    v = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    both = (2.0 * v[:, 0] + v[:, 1])[:, None]
    assert modularity(both, v) == pytest.approx(0.5)
    assert modularity(np.concatenate([both, v[:, 2:]], 1), v) == pytest.approx(0.75)
    assert modularity(np.zeros((8, 1)), v) == 0


def test_irs_of_known_deviations() -> None:
    """A unit v1 + v2/2 with two levels each moves by 1/4 of 3/4 while v1 is held."""
    v = np.array([[a, b] for a in (0, 1) for b in (0, 1)])
    assert irs((v[:, 0] + 0.5 * v[:, 1])[:, None], v) == pytest.approx(1 - 0.25 / 0.75, abs=0.01)
    assert irs(v.astype(float), v) == pytest.approx(1)
    assert math.isnan(irs(np.ones((4, 2)), v))


def test_dci_of_known_importance() -> None:
    importance = np.array([[1.0, 0.0], [0.0, 0.5], [0.0, 0.5]])
    disentangled, complete = dci_of_importance(importance)
    assert disentangled == pytest.approx(1)
    assert complete == pytest.approx((1 + 1 - math.log(2) / math.log(3)) / 2)
    assert dci_of_importance(np.full((2, 2), 0.5)) == pytest.approx((0, 0))


def test_boosting_tells_the_same_as_forests_on_exact_codes() -> None:
    v = levels(120, 11)
    z = constructed("perfect", v, 11)
    assert dci(z, v, ScoreSettings(regressor="boosting")) == pytest.approx((1, 1, 1), abs=0.05)


def test_explicitness_is_the_area_under_the_curve() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    v = levels(400, 12, (3,))
    z = constructed("noisy", levels(400, 12), 12)
    from sklearn.linear_model import LogisticRegression

    x = (z - z[:200].mean(0)) / z[:200].std(0)
    chances = LogisticRegression(max_iter=1000).fit(x[:200], v[:200, 0]).predict_proba(x[200:])
    area = sklearn.roc_auc_score(v[200:, 0], chances, multi_class="ovr", average="macro")
    assert explicitness(z, v) == pytest.approx(area, abs=1e-12)


def test_rows_of_a_group_share_a_level_and_pairs_are_two_rows() -> None:
    v = levels(60, 13)
    v[0] = 9  # alone in its level: never drawn
    generator = np.random.default_rng(0)
    for k, group in enumerate(groups_of(v)):
        rows = group.sharing(200, 8, generator)
        assert (v[rows, k] == v[rows[:, :1], k]).all()
        assert 0 not in rows
        first, second = group.pairs(200, 8, generator)
        assert (v[first, k] == v[second, k]).all()
        assert (first != second).all()
        assert set(np.unique(second)) == set(range(1, 60))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 3), st.integers(40, 120))
def test_numbers_lie_in_their_range(seed: int, width: int, count: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    v = np.stack([rng.integers(0, rng.integers(2, 5), n) for _ in range(count)], 1)
    z = rng.standard_normal((n, width)) + rng.uniform(0, 2) * v[:, :1]
    known = registered_scores()
    for name in FAST:
        for key, x in known[name].compute(z, v, ScoreSettings(points=60, judged=30)).items():
            number = known[name].numbers[key]
            assert math.isnan(x) or number.lower - 1e-9 <= x <= number.upper + 1e-9, key


def test_a_score_is_one_function_that_registers_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    known = registered_scores()
    assert {"mig", "nk", "dci"} <= set(known)
    assert all(next(iter(s.numbers)) == name for name, s in known.items())
    assert "nk" not in {s.name for s in scores_named()}
    with pytest.raises(SettingsError, match="no score 'udr'"):
        scores_named(("mig", "udr"))
    with pytest.raises(SettingsError, match="regressor"):
        ScoreSettings(regressor="lasso")
    monkeypatch.setattr("memspace.measures.scores.score._SCORES", dict(known))
    number = known["mig"].numbers["mig"]
    score("rows", {"rows": number}, source="")(lambda z, v, _: {"rows": 1.0 / len(z)})
    made = score_all(np.eye(40), levels(40, 0), QUICK, names=("rows",), turns=3)["rows"]
    assert made.value.value == 1 / 40
    assert made.chance == 1  # every rotation reaches it


def test_score_all_gives_interval_null_and_chance() -> None:
    v = levels(400, 14)
    z = constructed("noisy", v, 14) * 7 + 3
    made = score_all(z, v, QUICK, names=("mig", "snc"), turns=19)
    assert set(made) == {"mig", "snc"}
    for name, result in made.items():
        ends = result.value.interval
        assert ends is not None, name
        assert ends[0] <= result.value.value <= ends[1]
        assert result.null is not None
        assert result.level is not None
        assert result.level.value < 0.2 < result.value.value
        assert result.value.note == f"shuffled factors give {result.level.value:.2f}"
        assert result.value.n == 400
    assert made["mig"].chance == 0.05
    alone = score_all(z, v, QUICK, names=("mig",), turns=0, shuffles=0)["mig"]
    assert alone.null is None
    assert alone.level is None
    assert math.isnan(alone.chance)
    assert replace(alone.value, note=made["mig"].value.note) == made["mig"].value  # the same seed, the same number


@pytest.mark.parametrize("kind", ["noisy", "independent"])
def test_shuffled_factors_give_what_noise_gives(kind: str) -> None:
    """Whatever the codes tell: the level is that of codes which tell nothing, and it is far from 0 for some scores."""
    v = levels(400, 21)
    names = ("mig", "modularity", "irs", "snc", "factor_vae", "beta_vae", "explicitness", "sap")
    made = score_all(constructed(kind, v, 21), v, QUICK, names=names, turns=0)
    known = {"mig": 0, "snc": 0, "sap": 0, "factor_vae": CHANCE, "beta_vae": CHANCE, "explicitness": 0.5}
    for name, chance in known.items():
        level = made[name].level
        assert level is not None
        assert level.interval is not None
        assert level.value == pytest.approx(chance, abs=0.1), name
    for name in ("modularity", "irs"):
        level = made[name].level
        assert level is not None
        assert level.value > 0.15, name
    beyond = {name for name in names if not made[name].value.note.startswith("no more than chance")}
    assert {"mig", "snc", "explicitness"} <= beyond if kind == "noisy" else len(beyond) <= 2


def test_units_that_collapsed_are_constant_and_stay_so_under_rotation() -> None:
    v = levels(300, 15)
    z = np.concatenate([v * 1.0, np.full((300, 1), 1e6), 0.01 * constructed("independent", v, 15)[:, :1]], 1)
    assert (standardised(z, 0.05)[:, 3:] == 0).all()
    assert standardised(z)[:, 4].std() == pytest.approx(1)
    assert (standardised(z)[:, 3] == 0).all()
    made = score_all(z, v, ScoreSettings(collapsed=0.05), names=("modularity",), turns=5)["modularity"]
    assert made.null is not None
    assert made.null.value < 0.61  # three units of five, at most 1 each


def test_tables_that_are_none_are_refused_in_a_sentence() -> None:
    v = levels(50, 0)
    with pytest.raises(ShapeError, match="not tables of the same"):
        score_all(np.zeros((49, 2)), v)
    with pytest.raises(ShapeError, match="whole numbers"):
        score_all(np.zeros((50, 2)), v + 0.5)
    with pytest.raises(NonFiniteError, match="not a number"):
        score_all(np.full((50, 2), math.nan), v)


def test_sap_of_exact_units_is_the_accuracy_beyond_chance() -> None:
    """Two levels: the right unit has no error, the other guesses."""
    v = levels(2000, 16, (2, 2))
    assert sap(standardised(v.astype(float)), v) == pytest.approx(0.5, abs=0.03)


def test_squared_errors_are_averaged_over_partitions_where_a_score_asks_for_it() -> None:
    v = levels(300, 22)
    z = constructed("noisy", v, 22)
    scores = scores_named(("mig", "irs"))
    repeated = repeat_scores(z, v, scores, QUICK, folds=5)
    assert repeated.parts["mig"].shape == (1, 5)
    assert repeated.parts["irs"].shape == (4, 5)
    assert not np.allclose(repeated.parts["irs"][0], repeated.parts["irs"][1])
    fold = np.arange(300) % 5
    assert repeated.parts["irs"][0, 2] == irs(z[fold != 2], v[fold != 2])
    error = math.sqrt(np.mean([0.8 * ((p - p.mean()) ** 2).sum() for p in repeated.parts["irs"]]))
    ends = repeated.measured("irs", scores[1].numbers["irs"]).interval
    assert ends is not None
    assert (ends[1] - ends[0]) / 2 == pytest.approx(margin(error, 4))
    assert repeat_scores(z, v, (), QUICK).value == {}
