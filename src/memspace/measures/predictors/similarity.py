"""How alike networks become that differ in the seed alone, on the training data."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from memspace.measures.declaration import measure
from memspace.measures.predictors.values import Sisters
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["debiased_cka", "debiased_hsic"]

FEWEST = 4  # rows that an unbiased estimate needs


@measure(
    "similarity.cka",
    chapter="predictors",
    unit="1",
    estimator="linear CKA of the last representation, without bias, mean over networks of other seeds",
    source="kornblith2019, song2012",
    better="larger",
)
def cka(sisters: Sisters) -> Value | Absent:
    """Whether other seeds lead to the same representation of the training data, up to a rotation."""
    if len(sisters.hidden) < FEWEST:
        return Absent(f"fewer than {FEWEST} examples were read", "read more examples")
    values = [debiased_cka(sisters.hidden, hidden) for hidden, _ in sisters.others]
    if not all(map(math.isfinite, values)):
        return Absent("all examples have one representation", "train the networks")
    return _over_networks(values)


@measure(
    "similarity.disagreement",
    chapter="predictors",
    unit="1",
    estimator="share of training predictions that another seed decides otherwise, mean over networks",
    source="jiang2022",
    better="smaller",
    shown="share",
)
def disagreement(task: Task, sisters: Sisters) -> Value | Absent:
    """How many training predictions hang on the seed."""
    law = task.likelihood
    if not law.classifies:
        return Absent("predictions are no decisions", "read a classifier")
    decided = law.predict(sisters.outputs)
    shares = [float((law.predict(f) != decided).double().mean()) for _, f in sisters.others]
    return _over_networks(shares, lower=0.0, upper=1.0)


@measure(
    "similarity.output_distance",
    chapter="predictors",
    unit="nats^½",
    estimator="mean Fisher–Rao distance of training predictions from those of another seed, mean over networks",
    source="rao1945",
    better="smaller",
)
def output_distance(task: Task, sisters: Sisters) -> Value:
    """How far apart the predictions are that other seeds lead to."""
    distances = [task.likelihood.distance(sisters.outputs, f) for _, f in sisters.others]
    return _over_networks([float(d.mean()) for d in distances], lower=0.0)


def debiased_hsic(a: Tensor, b: Tensor) -> float:
    """Compute the unbiased estimate of the Hilbert–Schmidt independence criterion (Song et al. 2012, eq. 5).

    Args:
        a: (m, d) features, m ≥ 4; the kernel is linear.
        b: (m, d') features of the same examples.

    Returns:
        in squared units of both features; zero on average where they are independent.
    """
    m = len(a)
    # The estimate does not depend on the means; without them it loses fewer digits.
    first, second = (_without_diagonal(x - x.mean(0)) for x in (a.double(), b.double()))
    both, apart = (first * second).sum(), first.sum() * second.sum()
    shared = first.sum(0) @ second.sum(0)
    return float((both + apart / ((m - 1) * (m - 2)) - 2 * shared / (m - 2)) / (m * (m - 3)))


def debiased_cka(a: Tensor, b: Tensor) -> float:
    """Compute centred kernel alignment from unbiased estimates.

    Args:
        a: (m, d) features, m ≥ 4.
        b: (m, d') features of the same examples.

    Returns:
        at most about 1; zero on average where they are independent; NaN where one is constant.
    """
    sizes = debiased_hsic(a, a), debiased_hsic(b, b)
    return debiased_hsic(a, b) / math.sqrt(sizes[0] * sizes[1]) if min(sizes) > 0 else math.nan


def _without_diagonal(x: Tensor) -> Tensor:
    gram = x @ x.t()
    return gram - torch.diag(gram.diagonal())


def _over_networks(values: list[float], **bounds: Any) -> Value:
    """The mean over other networks; the interval is over these."""
    if len(values) == 1:
        return Value(values[0], 1, reliable=False, note="one other network tells nothing about the spread of seeds")
    return Value.mean(values, **bounds)
