"""Linear predictions of left-out groups in every resample at once: the fit is repeated, not only its errors.

Of networks drawn again the fit differs too. An interval that holds the predictions takes the luck of one fit, which
all networks of a left-out group share, for knowledge: by it a measure of pure noise improved the prediction of four
groups in a third of trials. Every group's products XᵀCX and XᵀCy are summed by resample; the fit without a group is
one small system each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GroupKFold

__all__ = ["penalties", "predicted", "repeated"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
PENALTIES = np.logspace(-4, 3, 15)  # times the number of networks
NEARLY = 1e-10  # the penalty that stands for none, where columns may be linearly dependent
AT_ONCE = 2**23  # numbers in the products of all resamples of one group


def penalties(x: Floats, y: Floats, group: Codes, unit: Codes) -> Floats:
    """Choose the penalty of ridge regression for every group that is left out, inside its training part.

    Args:
        x: (n, columns).
        y: (n,).
        group: (n,) number of the group, from 0.
        unit: (n,) number of the configuration.

    Returns:
        (groups,) the penalty a network, with the smallest error on groups that are left out of the training part in
        turn, or parts of its configurations where there are fewer than three.
    """
    chosen = np.empty(int(group.max()) + 1)
    for g in range(len(chosen)):
        inside = group != g
        inner = group[inside] if len(np.unique(group[inside])) > 2 else unit[inside]
        error = np.zeros(len(PENALTIES))
        if len(np.unique(inner)) < 2:  # one configuration says nothing of what varies: shrink to its mean
            chosen[g] = PENALTIES[-1]
            continue
        for fit, test in GroupKFold(min(5, len(np.unique(inner)))).split(inner, groups=inner):
            rows, out = np.flatnonzero(inside)[fit], np.flatnonzero(inside)[test]
            model = Ridge(alpha=PENALTIES * len(rows), solver="svd").fit(
                x[rows], np.repeat(y[rows, None], len(PENALTIES), 1)
            )
            error += ((model.predict(x[out]).reshape(len(out), -1) - y[out, None]) ** 2).sum(0)
        chosen[g] = PENALTIES[int(np.argmin(error))]
    return chosen


def predicted(x: Floats, y: Floats, group: Codes, penalty: Floats | None) -> Floats:
    """Predict every group from all others.

    Args:
        x: (n, columns).
        y: (n,).
        group: (n,) number of the group, from 0.
        penalty: (groups,) penalty a network, or None for least squares.

    Returns:
        (n,) predictions.
    """
    result = np.empty(len(y))
    for g in range(int(group.max()) + 1):
        inside = group != g
        model = LinearRegression() if penalty is None else Ridge(alpha=penalty[g] * int(inside.sum()), solver="svd")
        result[~inside] = model.fit(x[inside], y[inside]).predict(x[~inside])
    return result


def repeated(x: Floats, y: Floats, group: Codes, penalty: Floats | None, counts: Floats) -> Floats:
    """Predict every group from all others in every resample.

    Args:
        x: (n, columns), of unit scale.
        y: (n,).
        group: (n,) number of the group, from 0.
        penalty: as for :func:`predicted`; chosen once, for the table.
        counts: (resamples, n) how often each network counts.

    Returns:
        (resamples, n) predictions, whether or not the network was drawn.
    """
    groups = int(group.max()) + 1
    full = np.concatenate([np.ones((len(x), 1)), x], 1)
    size = full.shape[1]
    result = np.empty((len(counts), len(y)))
    step = max(1, AT_ONCE // (groups * size**2))
    for start in range(0, len(counts), step):
        part = counts[start : start + step]
        square, across, number = [], [], []
        for g in range(groups):
            rows = full[group == g]
            weights = part[:, group == g]
            square.append((weights @ (rows[:, :, None] * rows[:, None]).reshape(len(rows), -1)).reshape(-1, size, size))
            across.append((weights * y[group == g]) @ rows)
            number.append(weights.sum(1))
        whole, target, total = sum(square), sum(across), sum(number)
        for g in range(groups):
            count = total - number[g]
            shrink = np.ones(size) * (NEARLY if penalty is None else penalty[g])
            shrink[0] = NEARLY
            system = whole - square[g] + count[:, None, None] * np.diag(shrink) + NEARLY * np.eye(size)
            weights = np.linalg.solve(system, (target - across[g])[:, :, None])[:, :, 0]
            result[start : start + step, group == g] = weights @ full[group == g].T
    return result
