"""The recommended combination against every single measure: worst environment, rank correlation, a family left out."""

from __future__ import annotations

import argparse
import math

from benchmarks.claims_workloads import OUT, trained
from benchmarks.table import Row
from memspace.judging.prediction import compare_predictions
from memspace.value import Absent, Value
from memspace.verbs.judge import COMBINATION, RECOMMENDED, design_of, judge_zoo, networks_of
from memspace.zoo.store import ZooStore

__all__ = ["rows"]

RIVALS = {"sharpness": "sharpness.", "CKA": "similarity.cka", "gradient–weight alignment": "alignment.gradient_weights"}


def rows(arguments: argparse.Namespace) -> list[Row]:
    trained(arguments)
    folder = OUT / ("zoo-small" if arguments.small else "zoo-standard")
    results = judge_zoo(folder, families=True, draws=100 if arguments.small else 1000)
    judged = {r["measure"]: r for r in results.judgement.frame.to_dicts()}
    mine = judged[COMBINATION]
    singles = {n: r["settings_error_worst"] for n, r in judged.items() if n != COMBINATION}
    best = min((e, n) for n, e in singles.items() if e is not None)
    worst = mine["settings_error_worst"]
    below = worst is not None and worst < best[0]
    family = min((j.frame.to_dicts()[-1]["psi"] or 0.0, f) for f, j in results.families.items())
    out = [
        _row("worst-environment sign error", "< 1", mine, "settings_error_worst", worst is not None and worst < 1),
        Row("combination", "least of single measures", "", best[0], None, None, below, best[1]),
        _row("τ over all networks", "", mine, "tau", None),
        Row("combination", "granulated τ in the worst family", "", family[0], None, None, None, family[1]),
    ]
    return out + _against(ZooStore(folder), list(judged))


def _against(store: ZooStore, names: list[str]) -> list[Row]:
    """Error of prediction on a family left out, less that of each rival on the same networks."""
    table = networks_of(store)
    design = design_of(table)
    chosen = [n for n in RECOMMENDED if n in table.columns]
    rows = [_change("hyper-parameters alone", compare_predictions(table, chosen, [], design))]
    for label, beginning in RIVALS.items():
        rivals = [n for n in names if n.startswith(beginning)]
        for rival in rivals[:1] if label != "sharpness" else rivals:
            rows.append(_change(f"{label} ({rival})", compare_predictions(table, chosen, [rival], design)))
    return rows


def _change(label: str, change: object) -> Row:
    quantity = f"RMSE on a family left out, less that of {label}"
    if isinstance(change, Absent):
        return Row("combination", quantity, "< 0", math.nan, None, None, None, change.reason)
    rmse: Value = change.rmse  # type: ignore[attr-defined]
    low, high = rmse.interval or (None, None)
    return Row("combination", quantity, "< 0", rmse.value, low, high, high is not None and high < 0)


def _row(quantity: str, goal: str, judged: dict[str, float | None], name: str, met: bool | None) -> Row:
    value = judged[name]
    low, high = judged.get(f"{name}_low"), judged.get(f"{name}_high")
    return Row("combination", quantity, goal, math.nan if value is None else value, low, high, met)
