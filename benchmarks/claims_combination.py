"""The recommended combinations against every single measure: worst environment, rank correlation, a family left out.

``order`` orders the networks of a star; its form was chosen on the zoo ``standard`` among eight. So it is tried on
networks that had no part in the choice, those of the zoo ``factors``, which the shipped tables hold.
"""

from __future__ import annotations

import argparse
import math

import polars as pl

from benchmarks.claims_workloads import networks, place
from benchmarks.table import Row
from memspace.judging.environments import SignError, sign_error
from memspace.judging.granulated import Granulated, granulated
from memspace.judging.kendall import kendall
from memspace.judging.prediction import compare_predictions
from memspace.judging.resampling import Correlation
from memspace.value import Absent, Value
from memspace.verbs.judge import LEVEL, ORDER, RECOMMENDED, JudgedZoo, combinations_of, design_of, judge_zoo

__all__ = ["rows"]

RIVALS = {"sharpness": "sharpness.", "CKA": "similarity.cka", "gradient–weight alignment": "alignment."}
OURS = ("complexity.", "volume.", "action.", "fisher.", "generalisation.", "memory.", "depth.", "damping.")
OTHER = "factors"
SINGLES = ("complexity.fisher_rao", "fisher.trace", "norms.stable_rank")  # measured in both zoos


def rows(arguments: argparse.Namespace) -> list[Row]:
    draws, name = (100, "small") if arguments.small else (1000, "standard")
    results = judge_zoo(place(arguments), zoo=name, families=True, draws=draws)
    judged = {r["measure"]: r for r in results.judgement.frame.to_dicts()}
    return [
        *_worst(judged),
        *_correlations(results, judged),
        *_against(results.table, list(judged), draws),
        *(_elsewhere(networks_of_both(arguments)) if arguments.shipped else []),
    ]


def networks_of_both(arguments: argparse.Namespace) -> pl.DataFrame:
    """Those the order is learned from, and the others."""
    every = networks(arguments, also=OTHER)
    return every.filter(pl.col("moment") == 1.0, "fitted", pl.col("start") == "fresh", ~pl.col("permuted"))


def _worst(judged: dict[str, dict[str, float | None]]) -> list[Row]:
    """Sign error in the worst environment, of the combinations and the best single measures."""
    singles = {n: r.get("settings_error_worst") for n, r in judged.items() if n not in (LEVEL, ORDER)}
    ranked = sorted((e, n) for n, e in singles.items() if e is not None)
    published = next(((e, n) for e, n in ranked if not n.startswith(OURS)), (math.nan, "none"))
    mine = judged[ORDER].get("settings_error_worst")
    made = [
        _row("order: worst-environment sign error", "< 1", judged[ORDER], "settings_error_worst", _under(mine, 1.0)),
        Row(
            "combination",
            "order: below the best published measure in its worst environment",
            f"< {published[0]:.3f}",
            math.nan if mine is None else mine,
            None,
            None,
            _under(mine, published[0]),
            published[1],
        ),
        _row("level: worst-environment sign error", "", judged[LEVEL], "settings_error_worst", None),
    ]
    return made + [
        Row("combination", f"single measure {k}", "", e, None, None, None, n) for k, (e, n) in enumerate(ranked[:5], 1)
    ]


def _under(value: float | None, limit: float) -> bool:
    return value is not None and value < limit


def _correlations(results: JudgedZoo, judged: dict[str, dict[str, float | None]]) -> list[Row]:
    made = []
    for name in (ORDER, LEVEL):
        made.append(_row(f"{name}: τ over all networks", "", judged[name], "tau", None))
        made.append(_row(f"{name}: granulated τ", "", judged[name], "psi", None))
        within = {f: next(r for r in j.frame.to_dicts() if r["measure"] == name) for f, j in results.families.items()}
        family = min(within, key=lambda f: within[f]["psi"] if within[f].get("psi") is not None else 0.0)
        made.append(_row(f"{name}: granulated τ in the worst family, {family}", "", within[family], "psi", None))
    return made


def _against(table: pl.DataFrame, names: list[str], draws: int) -> list[Row]:
    """Error of prediction on a family left out, less that of each rival on the same networks."""
    design = design_of(table)
    chosen = [n for n in RECOMMENDED if n in table.columns]
    made = [_change("hyper-parameters alone", compare_predictions(table, chosen, [], design, draws=draws))]
    for label, beginning in RIVALS.items():
        for rival in (n for n in names if n.startswith(beginning)):
            for knobs, words in ((True, "both with hyper-parameters"), (False, "both alone")):
                change = compare_predictions(table, chosen, [rival], design, knobs=knobs, draws=draws)
                made.append(_change(f"{label} ({rival}), {words}", change))
    return made


def _elsewhere(table: pl.DataFrame) -> list[Row]:
    """The order on networks of another zoo, learned from the first one's other families."""
    if OTHER not in table["zoo"].to_list():
        return []
    columns = combinations_of(table, design_of(table), learned_from=table["zoo"] != OTHER)
    other = table.with_columns(**columns).filter(pl.col("zoo") == OTHER)
    design = design_of(other)
    made = []
    for name in (ORDER, *SINGLES):
        tau, along = kendall(other, name, design), granulated(other, name, design)
        errors = sign_error(other, name, design, environments="settings")
        made.append(_valued(f"{name} on {OTHER}: τ", tau.value if isinstance(tau, Correlation) else tau))
        psi = along.psi.value if isinstance(along, Granulated) else along
        made.append(_valued(f"{name} on {OTHER}: granulated τ", psi))
        worst = errors.worst if isinstance(errors, SignError) else errors
        made.append(_valued(f"{name} on {OTHER}: worst-environment sign error", worst))
    return made


def _valued(quantity: str, value: Value | Absent) -> Row:
    if isinstance(value, Absent):
        return Row("combination", quantity, "", math.nan, None, None, None, value.reason)
    low, high = value.interval or (None, None)
    return Row("combination", quantity, "", value.value, low, high, None)


def _change(label: str, change: object) -> Row:
    quantity = f"level: RMSE on a family left out, less that of {label}"
    if isinstance(change, Absent):
        return Row("combination", quantity, "< 0", math.nan, None, None, None, change.reason)
    rmse: Value = change.rmse  # type: ignore[attr-defined]
    low, high = rmse.interval or (None, None)
    return Row("combination", quantity, "< 0", rmse.value, low, high, high is not None and high < 0)


def _row(quantity: str, goal: str, judged: dict[str, float | None], name: str, met: bool | None) -> Row:
    value = judged.get(name)
    low, high = judged.get(f"{name}_low"), judged.get(f"{name}_high")
    return Row("combination", quantity, goal, math.nan if value is None else value, low, high, met)
