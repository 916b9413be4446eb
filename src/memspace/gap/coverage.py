"""How often the interval holds the gap of networks of a group that no part of the calibration has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from memspace.errors import MemspaceError
from memspace.gap.domain import NetworkFacts
from memspace.gap.fit import LEVEL, fit_gap
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["coverage"]


def coverage(
    table: pl.DataFrame,
    left_out: str = "block",
    *,
    group: str = "block",
    level: float = LEVEL,
    law: str = "categorical",
    only_reliable: bool = False,
) -> Value | Absent:
    """Leave groups of networks out of the whole calibration in turn, and count how often the interval holds the gap.

    Args:
        table: as :func:`~memspace.gap.fit.fit_gap` takes it.
        left_out: column whose values are left out in turn: stars, families, data sets.
        group: column that the calibration leaves out inside.
        level: of the intervals.
        law: name of the output law of all networks.
        only_reliable: count the networks alone that the calibration says it covers.

    Returns:
        The share, with an interval over what was left out; absent where fewer than two are left out, or none of the
        networks can be predicted.
    """
    names = table[left_out].unique(maintain_order=True).to_list()
    if len(names) < 2:
        return Absent(f"all networks have the same {left_out}", "leave out a column that takes several values")
    inside_interval: list[float] = []
    labels: list[str] = []
    for name in names:
        inside = np.array([v == name for v in table[left_out].to_list()])
        try:
            model = fit_gap(table.filter(~inside), group=group, level=level, law=law)
        except MemspaceError as error:
            return Absent(f"without {name} nothing can be calibrated: {error.what}", error.remedy)
        for row in table.filter(inside).iter_rows(named=True):
            measures = {p: float(row[p]) for p in model.predictors if row.get(p) is not None}
            try:
                predicted = model.predict(measures, NetworkFacts(law, int(row["outputs"]), bool(row["sequence"])))
            except MemspaceError:
                continue  # it lacks a measure: nothing is predicted, and nothing can be wrong
            low, high = predicted.test_loss_interval
            if row["test_loss"] is not None and (predicted.reliable or not only_reliable):
                inside_interval.append(float(low <= row["test_loss"] <= high))
                labels.append(str(name))
    if not inside_interval:
        return Absent("no network that was left out could be predicted", "measure more networks")
    counted = "networks inside the calibration's range" if only_reliable else "networks"
    how = f"{len(set(labels))} values of {left_out} left out in turn; {counted}"
    return Value.share(np.array(inside_interval), groups=labels, how=how)
