"""Statistics on networks whose truth is known: an effect is found, so is its reverse, and no effect is undecided."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from memspace.claims.decision import Decision
from memspace.claims.sampling import Sampling
from memspace.claims.statistic import declared_statistics, statistic_named
from memspace.claims.statistics.added_value import AddedValue
from memspace.claims.statistics.agreement import Agreement
from memspace.claims.statistics.dose_response import DoseResponse
from memspace.claims.statistics.intervention import Intervention
from memspace.claims.statistics.invariance import Invariance
from memspace.claims.statistics.layers import LayerRanks
from memspace.claims.statistics.matched_pairs import MatchedPairs
from memspace.claims.statistics.rank_relation import RankRelation
from memspace.claims.statistics.stability import Stability
from memspace.claims.statistics.ties import Ties
from memspace.claims.verdict import verdict_of
from memspace.errors import DataError, SettingsError
from memspace.judging.design import JudgingDesign
from memspace.judging.granulated import granulated
from memspace.value import Absent
from tests.claims.synthetic import FAMILIES, zoo

SAMPLING = Sampling(("family", "data", "configuration"), FAMILIES, draws=200)
TRUTHS = [(0.7, "supported"), (-0.7, "contradicted"), (0.0, "undecided")]
PAIRED = MatchedPairs("measure", "gap", ("data",), "train_loss", 0.01)


def made(name: str, table: pl.DataFrame, arguments, sampling: Sampling = SAMPLING):
    return statistic_named(name).function(table, arguments, sampling)


def word(
    evidence, threshold: float = 0.0, contradiction: float = 0.0, direction: str = "greater", families: int = 2
) -> str:
    return verdict_of(evidence, Decision(direction, threshold, contradiction, families=families)).word


def test_every_statistic_says_what_it_cannot_show() -> None:
    assert len(declared_statistics()) == 10
    for declared in declared_statistics():
        assert declared.limits
        assert declared.estimator
        assert (declared.function.__doc__ or "").strip()


@pytest.mark.parametrize(("effect", "expected"), TRUTHS)
@pytest.mark.parametrize("judged", ["granulated", "overall", "worst", "partial"])
def test_rank_relation(judged: str, effect: float, expected: str) -> None:
    arguments = RankRelation(
        ("measure",), "gap", ("width", "rate", "decay"), ("data",), ("train_loss", "parameters"), judged
    )
    if judged == "worst":  # the least of three knobs needs more to be sure of
        effect *= 1.3
    evidence = made("rank relation", zoo(11, effect=effect), arguments)
    assert word(evidence) == expected
    assert evidence.networks == 216
    worst = evidence.readings["measure.worst sign error.mlp"][0]
    assert worst.interval[0] <= worst.value <= worst.interval[1]


def test_rank_relations_are_those_of_scipy() -> None:
    rows = zoo(1, effect=0.5, families=("mlp",)).filter(pl.col("data") == "a")
    sampling = Sampling(("family", "data", "configuration"), ("mlp",), 50)
    arguments = RankRelation(("measure",), "gap", ("width", "rate"), ("decay",), ("parameters",), "overall")
    evidence = made("rank relation", rows.filter(pl.col("decay") == 0), arguments, sampling)
    one = rows.filter(pl.col("decay") == 0)
    tau = stats.kendalltau(one["measure"], one["gap"]).statistic
    assert evidence.measures["measure"].overall.value == pytest.approx(tau)
    cells = [stats.kendalltau(c["measure"], c["gap"]).statistic for _, c in one.group_by("rate")]
    along = [stats.kendalltau(c["measure"], c["gap"]).statistic for _, c in one.group_by("width")]
    granulated = evidence.readings["measure.granulated"][0].value
    assert granulated == pytest.approx((np.mean(cells) + np.mean(along)) / 2)
    ranks = [stats.rankdata(one[c]) for c in ("measure", "gap", "parameters")]
    left = [r - np.polyval(np.polyfit(ranks[2], r, 1), ranks[2]) for r in ranks[:2]]
    assert evidence.readings["measure.partial"][0].value == pytest.approx(np.corrcoef(*left)[0, 1])


def test_granulated_tau_is_that_of_the_judging_of_measures() -> None:
    rows = zoo(1, effect=0.5, families=("mlp",)).filter(pl.col("data") == "a")
    rows = rows.with_columns(test_loss=pl.col("train_loss") + pl.col("gap"))
    design = JudgingDesign(("width", "rate", "decay"), "seed")
    judged = granulated(rows.with_columns(gap=pl.col("test_loss") - pl.col("train_loss")), "measure", design)
    assert not isinstance(judged, Absent)
    arguments = RankRelation(("measure",), "gap", ("width", "rate", "decay"))
    evidence = made("rank relation", rows, arguments, Sampling(("configuration",), ("mlp",), 50))
    overall = evidence.measures["measure"].overall
    assert overall.value == pytest.approx(judged.psi.value.value, abs=1e-6)
    width = np.ptp(overall.ends())
    assert width == pytest.approx(np.ptp(judged.psi.value.interval), rel=0.5)  # another estimator of the error


@pytest.mark.parametrize(("effect", "expected"), TRUTHS)
def test_matched_pairs(effect: float, expected: str) -> None:
    evidence = made("matched pairs", zoo(4, effect=effect), PAIRED)
    assert word(evidence, 0.5, 0.5, families=0) == expected
    factor = evidence.readings["Bayes factor"][0].value
    assert factor > 10 if expected == "supported" else factor < 1
    table = evidence.tables["pairs"]
    assert len(table["less"]) == evidence.measures[""].overall.n
    spread = evidence.readings["spread between seeds.mlp"][0].value
    assert spread == pytest.approx(0.2, rel=0.3)
    assert all(more - less >= 2 * 0.15 for less, more in zip(np.log(table["less"]), np.log(table["more"]), strict=True))


def test_a_unit_is_in_one_pair_at_most_and_pairs_are_alike() -> None:
    rows = zoo(2, families=("mlp",)).with_columns(pl.col("measure").rank().alias("place"))
    evidence = made("matched pairs", rows, MatchedPairs("place", "gap", ("data",), "train_loss", 2e-4, 2.0, False))
    table = evidence.tables["pairs"]
    found = [rows.filter(pl.col("place") == p).row(0, named=True) for side in ("less", "more") for p in table[side]]
    units = [(r["data"], r["configuration"]) for r in found]
    assert len(set(units)) == len(units)
    half = len(found) // 2
    for less, more in zip(found[:half], found[half:], strict=True):
        assert less["data"] == more["data"]
        assert abs(less["train_loss"] - more["train_loss"]) <= 2e-4


def test_pairs_cannot_be_made_without_seeds_or_of_logarithms_of_zero() -> None:
    evidence = made("matched pairs", zoo(seeds=1), PAIRED)
    assert "no unit of analysis has two seeds" in evidence.measures[""].families["mlp"].reason
    with pytest.raises(SettingsError, match="measure is not positive everywhere"):
        made("matched pairs", zoo().with_columns(measure=pl.lit(0.0)), PAIRED)


def arms(effect: float, shift: float = 0.0) -> pl.DataFrame:
    generator = np.random.default_rng(7)
    rows = []
    for family in FAMILIES:
        for seed in range(12):
            level = generator.standard_normal()
            for arm, gain in (("plain", 0.0), ("action", effect)):
                loss = float(np.exp(level + gain + 0.1 * generator.standard_normal()))
                rows.append({"family": family, "seed": seed, "arm": arm, "loss": loss, "norm": (gain != 0) * shift})
    return pl.DataFrame(rows)


@pytest.mark.parametrize(("effect", "expected"), [(-0.2, "supported"), (0.2, "contradicted"), (0.0, "undecided")])
def test_intervention(effect: float, expected: str) -> None:
    arguments = Intervention("loss", "arm", "action", "plain", ("family", "seed"), ("norm",), (0.1,), True)
    sampling = Sampling(("family", "seed"), FAMILIES)
    evidence = made("intervention", arms(effect), arguments, sampling)
    assert word(evidence, 0.0, 0.0, "less") == expected
    table = arms(effect).filter(pl.col("family") == "mlp").sort("seed")
    first, second = (np.log(table.filter(pl.col("arm") == a)["loss"].to_numpy()) for a in ("action", "plain"))
    low, high = stats.ttest_rel(first, second).confidence_interval()
    assert evidence.measures[""].families["mlp"].ends() == pytest.approx((low, high))
    assert evidence.networks == 48


def test_arms_that_differ_in_what_was_to_be_matched_are_told() -> None:
    arguments = Intervention("loss", "arm", "action", "plain", ("family", "seed"), ("norm",), (0.1,))
    sampling = Sampling(("family", "seed"), FAMILIES)
    (note, _) = made("intervention", arms(0.1, 0.5), arguments, sampling).notes
    assert note.startswith("In mlp the arms differ in norm by 0.5, more than 0.1")
    with pytest.raises(DataError, match="a pair has two networks of the arm 'action'"):
        made("intervention", arms(0.1), Intervention("loss", "arm", "action", "plain", ("family",)), sampling)


def estimates(bias: float, honest: float = 1.0) -> pl.DataFrame:
    """Three estimates of one number, with errors; the third off by a bias, all errors stated times ``honest``."""
    generator = np.random.default_rng(8)
    table = zoo(0, families=FAMILIES, seeds=1)
    true = generator.uniform(50, 100, table.height)
    columns = {}
    for k, name in enumerate("abc"):
        error = generator.uniform(1, 3, table.height)
        columns |= {
            name: true + error * generator.standard_normal(table.height) + bias * (k == 2),
            f"{name} error": error * honest,
        }
    return table.with_columns(**{k: pl.Series(v) for k, v in columns.items()})


def test_agreement_within_honest_errors_is_that_of_nearly_all() -> None:
    arguments = Agreement(("a", "b", "c"), ("a error", "b error", "c error"))
    evidence = made("agreement", estimates(0.0), arguments)
    assert evidence.measures[""].overall.value == pytest.approx(0.95, abs=0.05)
    assert word(evidence, 0.8, 0.5) == "supported"
    assert evidence.readings["|z| above 1.96, a less b.mlp"][0].value == pytest.approx(0.05, abs=0.06)
    assert evidence.readings["concordance.mlp"][0].value > 0.95
    assert sum(evidence.tables["estimates"]["agree"]) == evidence.measures[""].overall.hits


@pytest.mark.parametrize(("bias", "honest"), [(10.0, 1.0), (0.0, 0.2)])
def test_a_bias_or_errors_too_small_are_no_agreement(bias: float, honest: float) -> None:
    arguments = Agreement(("a", "b", "c"), ("a error", "b error", "c error"))
    evidence = made("agreement", estimates(bias, honest), arguments)
    assert word(evidence, 0.8, 0.5) == "contradicted"
    low, high = evidence.readings["bias, a less c.mlp"][0].interval
    assert low < -bias < high


def test_concordance_is_icc_of_absolute_agreement() -> None:
    """ICC(A,1) of the worked example of Shrout and Fleiss's data, as McGraw and Wong give it: 0.29."""
    ratings = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
    table = pl.DataFrame(
        {"family": ["mlp"] * 6, "unit": range(6)}
        | {f"r{k}": ratings[:, k] for k in range(4)}
        | {f"e{k}": np.ones(6) for k in range(4)}
    )
    arguments = Agreement(tuple(f"r{k}" for k in range(4)), tuple(f"e{k}" for k in range(4)), "concordance")
    evidence = made("agreement", table, arguments, Sampling(("unit",), ("mlp",), 200))
    assert evidence.measures[""].overall.value == pytest.approx(0.29, abs=0.005)


def three(diagonal: float, others: float, seed: int = 9) -> pl.DataFrame:
    """Three variables and three more, each tied to its own by ``diagonal`` and to the rest by ``others``."""
    table = zoo(0, seeds=1, configurations=(3, 3, 6))
    cross = np.full((3, 3), others) + (diagonal - others) * np.eye(3)
    covariance = np.block([[np.eye(3), cross], [cross.T, np.eye(3)]])
    drawn = np.random.default_rng(seed).multivariate_normal(np.zeros(6), covariance, table.height)
    return table.with_columns(**{n: pl.Series(c) for n, c in zip("abcxyz", drawn.T, strict=True)})


@pytest.mark.parametrize(
    ("diagonal", "others", "expected"), [(0.8, 0.1, "supported"), (0.05, 0.45, "contradicted"), (0.3, 0.3, "undecided")]
)
def test_ties(diagonal: float, others: float, expected: str) -> None:
    evidence = made("ties", three(diagonal, others), Ties(("a", "b", "c"), ("x", "y", "z"), ("data",)))
    assert word(evidence, families=0) == expected
    assert evidence.readings["a and x"][0].value == pytest.approx(diagonal, abs=0.2)
    turned = made("ties", three(diagonal, others), Ties(("a", "b", "c"), ("-x", "y", "z"), ("data",)))
    assert turned.readings["a and -x"][0].value == pytest.approx(-evidence.readings["a and x"][0].value)


def test_ties_are_those_of_scipy() -> None:
    rows = three(0.5, 0.2).filter((pl.col("family") == "mlp") & (pl.col("data") == "a"))
    sampling = Sampling(("family", "data", "configuration"), ("mlp",), 50)
    evidence = made("ties", rows, Ties(("a", "b"), ("x", "y")), sampling)
    assert evidence.readings["a and y"][0].value == pytest.approx(stats.spearmanr(rows["a"], rows["y"]).statistic)


def test_added_value() -> None:
    table = zoo(5, effect=0.8)
    useful = made(
        "added value", table, AddedValue(("measure", "rival"), "gap", ("parameters",), ("data",), ("measure",))
    )
    first, second = useful.measures["measure"], useful.measures["rival"]
    assert first.overall.value == pytest.approx(0.6, abs=0.15)
    assert first.families["mlp"].ends()[0] > 0.2
    assert second.families["mlp"].ends()[1] < 0.1
    assert verdict_of(useful, Decision("greater", 0.1, 0.1, families=2)).measures[0].word == "supported"


def test_errors_out_of_sample_are_those_of_regressions_fitted_again() -> None:
    from sklearn.linear_model import Ridge

    rows = zoo(5, effect=0.5, families=("mlp",)).filter(pl.col("data") == "a")
    sampling = Sampling(("family", "data", "configuration"), ("mlp",), 50)
    evidence = made("added value", rows, AddedValue(("measure",), "gap", ("parameters",)), sampling)
    x = rows.select("parameters", "measure").to_numpy()
    x = (x - x.mean(0)) / x.std(0)
    y, unit = rows["gap"].to_numpy(), rows["configuration"].to_numpy()
    errors = np.empty_like(y)
    for u in np.unique(unit):
        # The intercept is a column of ones that is not penalised, as in the statistic.
        fitted = Ridge(alpha=1.0).fit(x[unit != u], y[unit != u])
        errors[unit == u] = y[unit == u] - fitted.predict(x[unit == u])
    made_error = evidence.readings["error with measure.mlp"][0].value
    assert made_error == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-6)


def test_one_regression_of_all_families_where_each_has_few_units() -> None:
    from sklearn.linear_model import Ridge

    rows = zoo(6, effect=0.5, configurations=(2, 2, 1)).with_columns(gap=pl.col("gap").exp())
    arguments = AddedValue(("measure",), "gap", ("parameters",), ("family",), ("gap", "measure"), pooled=True)
    evidence = made("added value", rows, arguments)
    x = np.column_stack([rows["parameters"], rows["measure"].log()])
    x = (x - x.mean(0)) / x.std(0)
    y, family = rows["gap"].log().to_numpy(), rows["family"].to_numpy()
    unit = np.unique(rows.select("family", "data", "configuration").to_numpy().astype(str), axis=0, return_inverse=True)
    errors = {1: np.empty_like(y), 2: np.empty_like(y)}
    for columns, out in errors.items():
        # Two columns of families that are not penalised, as in the statistic.
        whole = np.column_stack([x[:, :columns], family == "mlp", family != "mlp"]).astype(float)
        scales = np.array([1.0] * columns + [1e5, 1e5])  # a penalty of 1e-10
        for u in np.unique(unit[1]):
            at = unit[1].flatten() == u
            fitted = Ridge(alpha=1.0, fit_intercept=False).fit((whole * scales)[~at], y[~at])
            out[at] = y[at] - fitted.predict((whole * scales)[at])
    squares = {columns: out**2 for columns, out in errors.items()}
    effects = evidence.measures["measure"]
    assert effects.overall.value == pytest.approx(1 - squares[2].mean() / squares[1].mean(), abs=1e-5)
    of = squares[2][family == "mlp"].mean() / squares[1][family == "mlp"].mean()
    assert effects.families["mlp"].value == pytest.approx(1 - of, abs=1e-5)
    assert effects.overall.n == 16


def doses(rise: float, seeds: int = 8, noise: float = 1.0) -> pl.DataFrame:
    generator = np.random.default_rng(4)
    return pl.DataFrame(
        [
            {
                "family": family,
                "seed": seed,
                "dose": dose,
                "measure": rise * dose + noise * generator.standard_normal(),
                "flat": generator.standard_normal(),
            }
            for family in FAMILIES
            for seed in range(seeds)
            for dose in (0.0, 0.3, 0.6, 0.9)
        ]
    )


BY_SEED = Sampling(("family", "seed"), FAMILIES, draws=300)
RISES = DoseResponse("dose", ("measure", "flat"), ("seed",))


@pytest.mark.parametrize(("rise", "expected"), [(3.0, "supported"), (-3.0, "contradicted"), (0.0, "undecided")])
def test_dose_response(rise: float, expected: str) -> None:
    table = doses(rise)
    evidence = made("dose response", table, RISES, BY_SEED)
    verdicts = verdict_of(evidence, Decision("greater", 0.5, 0.5, families=2)).measures
    assert [v.word for v in verdicts] == [expected, "undecided"]
    taus = [
        stats.kendalltau(t["dose"], t["measure"]).statistic
        for _, t in table.filter(pl.col("family") == "mlp").group_by("seed")
    ]
    assert evidence.measures["measure"].families["mlp"].value == pytest.approx((np.mean(taus) + 1) / 2)


def test_pairs_that_are_all_in_order_are_counted_by_seed() -> None:
    evidence = made("dose response", doses(1.0, noise=0.0), RISES, BY_SEED)
    effect = evidence.measures["measure"].families["mlp"]
    assert effect.value == 1
    assert effect.ends() == pytest.approx(stats.binomtest(8, 8).proportion_ci())
    still = made("dose response", doses(0.0, noise=0.0), RISES, BY_SEED).measures["measure"].families["mlp"]
    assert still.value == 0.5
    alone = made("dose response", doses(1.0).filter(pl.col("dose") == 0), RISES, BY_SEED)
    assert isinstance(alone.measures["measure"].overall, Absent)


def layer_table(slope: float, depth: float) -> pl.DataFrame:
    generator = np.random.default_rng(3)
    rows = []
    for family in FAMILIES:
        for network in range(12):
            for layer in range(6):
                mass = generator.standard_normal()
                cost = slope * mass + depth * layer + 0.5 * generator.standard_normal()
                rows.append({"family": family, "network": network, "layer": layer, "mass": mass, "cost": cost})
    return pl.DataFrame(rows)


@pytest.mark.parametrize(("slope", "expected"), [(1.0, "supported"), (-1.0, "contradicted"), (0.0, "undecided")])
def test_layer_ranks(slope: float, expected: str) -> None:
    sampling = Sampling(("family", "network"), FAMILIES)
    evidence = made(
        "layer ranks", layer_table(slope, -0.5), LayerRanks(("family", "network"), "mass", "cost", "layer"), sampling
    )
    assert word(evidence) == expected
    trend = evidence.readings["correlation with depth"][0]
    assert trend.interval[1] < 0  # bottom layers cost more
    table = layer_table(slope, -0.5).filter(pl.col("family") == "mlp")
    each = [stats.spearmanr(t["mass"], t["cost"]).statistic for _, t in table.group_by("network")]
    assert evidence.measures[""].families["mlp"].value == pytest.approx(np.mean(each))


def moved_table(move: float) -> pl.DataFrame:
    """A measure that keeps still, one that rescaling moves, and one that only the gain moves."""
    rows = []
    for family in FAMILIES:
        for network in range(20):
            base = 1.0 + network
            for name, factor, gain in (("none", 1.0, 1.0), ("rescaled", 1 + move, 1.0), ("gain 10", 1.0, 10.0)):
                rows.append(
                    {
                        "family": family,
                        "network": network,
                        "change": name,
                        "still": base,
                        "moving": base * factor,
                        "gained": base * gain,
                    }
                )
    return pl.DataFrame(rows)


@pytest.mark.parametrize(("move", "expected"), [(1e-6, "supported"), (0.01, "contradicted")])
def test_invariance(move: float, expected: str) -> None:
    arguments = Invariance(("still", "moving", "gained"), ("family", "network"), "change", ("rescaled",), ("gain 10",))
    evidence = made("invariance", moved_table(move), arguments, Sampling(("family", "network"), FAMILIES))
    verdict = verdict_of(evidence, Decision("greater", 0.75, 0.5, families=2))
    assert [m.word for m in verdict.measures] == ["supported", expected, "supported"]
    assert evidence.readings["gained.nuisance range"][0].value == pytest.approx(10)
    assert evidence.readings["still.nuisance range"][0].value == pytest.approx(1)
    assert evidence.readings["moving.largest movement.rescaled"][0].value == pytest.approx(move)


def test_a_measure_that_is_lost_under_a_transformation_has_moved() -> None:
    lost = moved_table(0.0).with_columns(
        still=pl.when((pl.col("change") == "rescaled") & (pl.col("network") < 10)).then(None).otherwise(pl.col("still"))
    )
    arguments = Invariance(("still",), ("family", "network"), "change", ("rescaled",))
    evidence = made("invariance", lost, arguments, Sampling(("family", "network"), FAMILIES))
    assert evidence.measures["still"].families["mlp"].value == 0.5


def seeds_table(good: str, bad: str) -> pl.DataFrame:
    """One quantity that agrees between seeds and predicts, another that does neither."""
    table = zoo(6, families=FAMILIES)
    generator = np.random.default_rng(10)
    unit = table.select(pl.struct("family", "data", "configuration").rank("dense")).to_series().to_numpy() - 1
    of = generator.standard_normal(int(unit.max()) + 1)[unit]
    noise = generator.standard_normal((3, table.height))
    return table.with_columns(
        **{
            good: pl.Series(of + 0.2 * noise[0]),
            bad: pl.Series(0.3 * of + noise[1]),
            "wanted": pl.Series(of + 0.3 * noise[2]),
        }
    )


@pytest.mark.parametrize("judged", ["both", "agreement", "prediction"])
@pytest.mark.parametrize(("good", "bad", "expected"), [("a", "b", "supported"), ("b", "a", "contradicted")])
def test_stability(judged: str, good: str, bad: str, expected: str) -> None:
    evidence = made("stability", seeds_table(good, bad), Stability("a", "b", "wanted", ("data",), judged))
    assert word(evidence) == expected
    high = evidence.readings[f"agreement of {good}"][0].value
    assert high == pytest.approx(1 / 1.04, abs=0.08)
    assert evidence.readings[f"agreement of {bad}"][0].value < 0.4


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("rank relation", RankRelation(("measure",), "gap", ("width",))),
        ("matched pairs", PAIRED),
        ("ties", Ties(("measure", "rival"), ("gap", "train_loss"))),
        ("added value", AddedValue(("measure",), "gap", ("rival",))),
        ("stability", Stability("measure", "rival", "gap")),
        ("agreement", Agreement(("measure", "rival"), ("parameters", "parameters"), "concordance")),
    ],
)
def test_few_networks_or_none_of_a_family_are_absent_with_a_reason(name: str, arguments) -> None:
    table = zoo(0, families=("mlp",), configurations=(1, 1, 2), seeds=1).filter(pl.col("data") == "a")
    sampling = Sampling(("family", "data", "configuration"), ("mlp", "transformer"), 50)
    evidence = made(name, table, arguments, sampling)
    for effects in evidence.measures.values():
        assert all(isinstance(e, Absent) and e.reason for e in effects.families.values())
    with pytest.raises(DataError, match=r"the table has no column '(gap|measure)'"):
        made(name, table.drop("gap", "measure"), arguments, sampling)


def test_rows_without_a_number_are_left_out_and_counted() -> None:
    table = zoo(1).with_columns(
        gap=pl.when(pl.col("seed") == 1).then(pl.lit(float("nan"))).otherwise(pl.col("gap")),
        measure=pl.when(pl.col("width") == 0).then(None).otherwise(pl.col("measure")),
    )
    evidence = made("rank relation", table, RankRelation(("measure",), "gap", ("rate", "decay"), ("data", "width")))
    assert evidence.networks == 72
    assert evidence.left_out == 144
    with pytest.raises(DataError, match="the column 'data' holds no numbers"):
        made("rank relation", table, RankRelation(("data",), "gap", ("rate",)))
