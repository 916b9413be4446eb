"""A combination of measures that orders networks which differ in a single knob.

A fit to the gaps of all networks learns what sets data sets and sizes apart: that is most of the variance, and says
little of two networks of one task. So measures and gaps are taken as differences from the mean of their block, the
networks that are varied around one centre, and the gap's differences are fitted by ridge regression (fixed effects of
the blocks). A group (a family) is left out in turn: no network and no group is ordered by a fit that has seen it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from memspace.frames import polars
from memspace.judging.design import JudgingDesign
from memspace.judging.features import measure_features
from memspace.judging.regression import penalties
from memspace.judging.tables import gap_of, networks, settings
from memspace.value import Absent

if TYPE_CHECKING:
    import polars as pl

__all__ = ["measured_everywhere", "order_within"]

Floats = NDArray[np.float64]


def measured_everywhere(table: pl.DataFrame, measures: Sequence[str]) -> list[str]:
    """List the measures that every network of a table has, and finite.

    Args:
        table: one row a network.
        measures: their columns.

    Returns:
        Names, in the order given.
    """
    return [name for name in measures if table[name].is_finite().fill_null(False).all()]


def order_within(
    table: pl.DataFrame,
    measures: Sequence[str],
    design: JudgingDesign,
    *,
    within: str = "block",
    learned_from: pl.Series | None = None,
) -> pl.Series | Absent:
    """Combine measures to a column that orders the networks of a block by their gap.

    Args:
        table: one row a network; all have all measures and the gap.
        measures: columns.
        design: of the table; the values of ``design.left_out`` are left out in turn.
        within: column of the blocks; each lies in one group.
        learned_from: (n,) truth values, the networks that may be learned from; None: all.

    Returns:
        (n,) predicted differences of the gap; their level means nothing. Absent where a part has fewer than two groups
        or nothing to be made of.
    """
    read = networks(table, design, measures)
    gap, x = gap_of(read, design), measure_features(read, measures)
    block = settings(read, (within,)).ravel()
    labels = settings(read, (design.group,)).ravel()
    unit = np.unique(settings(read, design.knobs), axis=0, return_inverse=True)[1].ravel()
    usable = np.isfinite(gap)
    if learned_from is not None:
        usable &= learned_from.to_numpy().astype(bool)
    if len(np.unique(labels[usable])) < 2 or not x.shape[1]:
        return Absent("a combination needs measures on two groups of networks", f"add values of {design.group}")
    group = np.unique(labels[usable], return_inverse=True)[1].ravel()
    differences = _centred(x[usable], block[usable])
    apart = _centred(gap[usable][:, None], block[usable])[:, 0]
    penalty = penalties(differences, apart, group, unit[usable])
    combined = np.full(len(gap), np.nan)
    for g, label in enumerate(np.unique(labels[usable])):
        train = group != g
        fit = Ridge(alpha=penalty[g] * int(train.sum()), solver="svd").fit(differences[train], apart[train])
        combined[labels == label] = fit.predict(x[labels == label])
    made: pl.Series = polars().Series("order", combined).fill_nan(None)
    return made


def _centred(columns: Floats, block: NDArray[np.int64]) -> Floats:
    """Columns less the mean of their block."""
    which = np.unique(block, return_inverse=True)[1].ravel()
    sums = np.zeros((int(which.max()) + 1, columns.shape[1]))
    np.add.at(sums, which, columns)
    return columns - (sums / np.bincount(which)[:, None])[which]
