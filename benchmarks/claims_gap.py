"""Whether the intervals of ``predict-gap`` cover: stars, families and data sets that the calibration never saw."""

from __future__ import annotations

import argparse
import math

from benchmarks.claims_workloads import networks
from benchmarks.table import Row
from memspace.gap.coverage import coverage
from memspace.gap.fit import LEVEL
from memspace.value import Absent
from memspace.zoo.gap import gap_table

__all__ = ["rows"]

WITHIN = 0.05  # of the level
MOMENTS = (1.0, 0.1)
LEFT_OUT = {"block": "a star", "data": "a data set", "family": "a family"}
GOALS = ("block", "data")


def rows(arguments: argparse.Namespace) -> list[Row]:
    measured = networks(arguments)
    out = []
    for moment in MOMENTS:
        table = gap_table(measured, moment, arguments.data_root)
        for column, words in LEFT_OUT.items():
            for only_reliable in (False, True):
                share = coverage(table, column, only_reliable=only_reliable)
                which = ", networks inside the calibration's range" if only_reliable else ""
                quantity = f"coverage at {moment:g} of training, {words} left out{which}"
                out.append(_row(quantity, share, column in GOALS and moment == 1.0))
    return out


def _row(quantity: str, share: object, judged: bool) -> Row:
    goal = f"{LEVEL - WITHIN:g} to {LEVEL + WITHIN:g}" if judged else ""
    if isinstance(share, Absent):
        return Row("gap", quantity, goal, math.nan, None, None, False if judged else None, share.reason)
    value, (low, high) = share.value, share.interval or (None, None)  # type: ignore[attr-defined]
    met = abs(value - LEVEL) <= WITHIN + 1e-12 if judged else None
    return Row("gap", quantity, goal, value, low, high, met, share.how)  # type: ignore[attr-defined]
