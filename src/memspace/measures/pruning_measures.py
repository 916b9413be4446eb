"""What can be cut: accuracy against weights kept, by several methods, each measured on a pruned copy.

Compensated pruning reads a few hundred examples' rows and measures its objective on as many, so that it costs less than
one epoch whatever the data's size. Where even that is too expensive, it is left out with a reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.errors import NonFiniteError
from memspace.measures.compensated import CHANGE, CHOICE, Pruned, PruneSettings, schedule
from memspace.measures.cost import EIGH, Facts, Stage
from memspace.measures.declaration import measure, provides, truth
from memspace.measures.efficiency import Needed, PruningCurve, accuracy_curve, needed_share, prunable, pruning_curve
from memspace.measures.filters import filtered_layers, prune_filters
from memspace.measures.needs import needing
from memspace.measures.pruning import prune
from memspace.measures.robustness import split
from memspace.measures.values import Budget, Curvature, TrainingOutputs
from memspace.passes.space import ParameterSpace
from memspace.task.data import Data
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = [
    "ACCURACY_COST",
    "CURVE_MEASURES",
    "ByFilters",
    "ByFisher",
    "ByFisherInverse",
    "ByMagnitude",
    "MethodCurve",
    "PruningJudge",
    "every_curve",
    "least_share",
]

ACCURACY_COST = 0.01  # of accuracy: what pruning or rounding may cost before a person would notice it in use
MOST_JUDGED = 10_000  # examples a pruned copy is judged on
KEPT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
INVERSE = (1.0, 0.5, 0.2, 0.1, 0.05)  # shares of compensated pruning, a round or two each
ROWS, EXAMPLES = 300, 300  # Fisher rows a round, examples its objective is measured on
AFFORDABLE = 2e7  # rows × weights: beyond, a round costs seconds on a core
STATED = (0.5, 0.2, 0.1)  # shares at which accuracy (or loss) is a measurement of its own


@dataclass(frozen=True)
class PruningJudge:
    """The examples on which pruned copies are judged.

    Args:
        data: test data, or training data without them.
        index: (m,) positions in ``data``.
        word: ``"test"`` or ``"training"``.
    """

    data: Data
    index: Tensor
    word: str


@dataclass(frozen=True)
class MethodCurve:
    """Accuracy and loss by the share of weights that one method keeps.

    Args:
        curve: over the shares.
    """

    curve: PruningCurve


class ByMagnitude(MethodCurve):
    """The smallest weights go first."""


class ByFisher(MethodCurve):
    """The weights of least ½ F_ii θ_i² go first: optimal brain damage."""


class ByFisherInverse(MethodCurve):
    """Weights go with the least change that the others cannot make up for: optimal brain surgery."""


class ByFilters(MethodCurve):
    """Whole filters go, those nearest to the geometric median first."""


@provides()
def pruning_judge(task: Task) -> PruningJudge:
    """Choose the examples: of the test data where there are any."""
    data, word = split(task.test, task.train)
    return PruningJudge(data, torch.arange(min(len(data), MOST_JUDGED)), word)


def _simple_cost(facts: Facts) -> Stage:
    return Stage("pruning", min(facts.judged, MOST_JUDGED), len(KEPT), 0, 0, "accuracy against weights kept")


@provides(cost=_simple_cost)
def by_magnitude(task: Task, space: ParameterSpace, judge: PruningJudge, budget: Budget) -> ByMagnitude:
    """Cut by magnitude."""
    return ByMagnitude(_by_saliency(task, space, space.flat(task.model).abs(), "magnitude", judge, budget))


@provides(cost=_simple_cost)
def by_fisher(task: Task, space: ParameterSpace, curvature: Curvature, judge: PruningJudge, budget: Budget) -> ByFisher:
    """Cut by the Fisher diagonal."""
    theta = space.flat(task.model)
    saliency = 0.5 * curvature.diagonal.to(theta) * theta.square()
    return ByFisher(_by_saliency(task, space, saliency, "Fisher (OBD)", judge, budget))


def _by_saliency(
    task: Task, space: ParameterSpace, saliency: Tensor, method: str, judge: PruningJudge, budget: Budget
) -> PruningCurve:
    return pruning_curve(
        task, space, saliency, method, data=judge.data, index=judge.index, kept=KEPT, progress=budget.progress
    )


def _inverse_cost(facts: Facts) -> list[Stage]:
    if ROWS * facts.parameters > AFFORDABLE:
        return []
    rounds = len(schedule(INVERSE[1:], PruneSettings().step))
    tried = 1 + rounds * (1 + len(CHOICE) * len(CHANGE))
    examples, read = min(facts.n, EXAMPLES), min(facts.n, ROWS)
    exact = facts.n * facts.outputs * facts.positions <= ROWS
    per_example = facts.outputs * facts.positions if exact else max(1, ROWS // facts.n)
    forwards, backwards = facts.read(per_example, facts.proofs(read, per_example))
    rows = read * per_example
    # A Gram matrix a round and a choice, and an inverse's diagonal a choice.
    work = 2 * rounds * ((1 + 3 * len(CHOICE)) * rows**2 * facts.parameters + (1 + len(CHOICE)) * EIGH * rows**3)
    judged = min(facts.judged, MOST_JUDGED)
    return [
        Stage("compensated pruning", examples, tried, rounds, 0, "least change by the other weights", work=work),
        Stage("its Fisher rows", read, rounds * forwards, rounds * backwards, 0, "the metric after each round"),
        Stage("its networks", judged, len(INVERSE), 0, 0, "accuracy against weights kept"),
    ]


@provides(cost=_inverse_cost)
def by_fisher_inverse(
    task: Task, space: ParameterSpace, judge: PruningJudge, budget: Budget
) -> ByFisherInverse | Absent:
    """Cut with compensation, where that is affordable."""
    if ROWS * space.size > AFFORDABLE:
        reason = f"{ROWS} Fisher rows of {space.size:,} weights would cost more than an audit should"
        return Absent(reason, "run `memspace prune TASK --method fisher-inverse`")
    settings = PruneSettings(rows=ROWS, examples=EXAMPLES)
    try:
        networks = prune(task, space, "fisher-inverse", INVERSE[1:], surgery=settings)
        return ByFisherInverse(_of_networks(task, space, networks, "Fisher inverse (OBS)", judge, budget))
    except NonFiniteError:  # a weight divided by its own norm, for one
        reason = "with whole rows of weights at zero the network gives no finite outputs"
        return Absent(reason, "remove the weights' parametrisation before pruning")


def _filter_cost(facts: Facts) -> Stage | None:
    if not facts.filters:
        return None
    return Stage("filters", min(facts.judged, MOST_JUDGED), len(KEPT), 0, 0, "accuracy against filters kept")


@provides(cost=_filter_cost)
def by_filters(task: Task, space: ParameterSpace, judge: PruningJudge, budget: Budget) -> ByFilters | Absent:
    """Cut whole filters, where there are convolutions."""
    if not any(b.rule.filters for b in filtered_layers(space)):
        return Absent()
    networks = prune_filters(task, space, prunable(space, task), KEPT[1:])
    return ByFilters(_of_networks(task, space, networks, "filters by geometric median", judge, budget))


def _of_networks(
    task: Task, space: ParameterSpace, networks: Sequence[Pruned], method: str, judge: PruningJudge, budget: Budget
) -> PruningCurve:
    """The curve of pruned networks, with the whole one first."""
    shares = [1.0, *(p.share for p in networks)]
    flats = [space.flat(task.model), *(p.flat for p in networks)]
    return accuracy_curve(
        task, space, flats, method, data=judge.data, index=judge.index, kept=shares, progress=budget.progress
    )


def every_curve(*methods: MethodCurve | None) -> list[PruningCurve]:
    """Return the curves of the methods that could be measured.

    Args:
        methods: of each method, or None.

    Returns:
        the curves in order.
    """
    return [m.curve for m in methods if m is not None]


@dataclass(frozen=True)
class LeastShare:
    """The smallest share of weights that some method needs.

    Args:
        needed: the share, its lower end and the method.
        methods: how many were tried.
        n: examples.
    """

    needed: Needed
    methods: int
    n: int


@provides()
def least_share(
    magnitude: ByMagnitude, fisher: ByFisher, inverse: ByFisherInverse | None, filters: ByFilters | None
) -> LeastShare | Absent:
    """Choose among the methods."""
    curves = every_curve(magnitude, fisher, inverse, filters)
    needed = needed_share(curves, ACCURACY_COST)
    if needed is None:
        return Absent("the output law has no classes, so no accuracy", "read the loss curve")
    return LeastShare(needed, len(curves), curves[0].n)


@measure(
    "efficiency.smallest_share",
    chapter="efficiency",
    unit="1",
    estimator=f"smallest share of weights kept that the examples confirm to be within {ACCURACY_COST:.0%} of the "
    "accuracy, no retraining",
    better="smaller",
    shown="share",
)
@truth()
def smallest_share(least: LeastShare, judge: PruningJudge) -> Value:
    """Share of the weights that must stay; the others can be cut."""
    return _stated(least.needed, least.n, f"{least.methods} methods, {least.n:,} {judge.word} examples")


def _stated(needed: Needed, n: int, how: str) -> Value:
    note = "" if needed.share < 1 else f"{n:,} examples confirm no cut"
    return Value(needed.share, n, (needed.low, needed.share), how=how, note=note)


Part = Callable[..., Value | None]


def _measures_of(kind: type[MethodCurve], key: str, source: str = "") -> tuple[Part, ...]:
    """Declare what is measured of one method: the share it needs, and accuracy or loss at three shares."""
    confirmed = f"smallest share of weights kept that the examples confirm to be within {ACCURACY_COST:.0%}"

    @measure(
        f"efficiency.{key}.smallest_share",
        chapter="efficiency",
        unit="1",
        estimator=f"{confirmed} of the accuracy, no retraining",
        source=source,
        better="smaller",
        shown="share",
    )
    @needing(method=kind)
    @truth()
    def share(method: MethodCurve, judge: PruningJudge) -> Value | None:
        """Share of the weights that must stay by this method."""
        curve = method.curve
        needed = needed_share([curve], ACCURACY_COST)
        if needed is None:
            return None
        return _stated(needed, curve.n, f"a grid of {len(curve.kept)}, {curve.n:,} {judge.word} examples")

    return (share, *(_declared_at(kind, key, stated, classes) for stated in STATED for classes in (True, False)))


def _declared_at(kind: type[MethodCurve], key: str, kept: float, classes: bool) -> Part:
    """Declare the accuracy, or without classes the loss, at one share of weights."""
    what, unit = ("accuracy", "1") if classes else ("loss", "nats")

    @measure(
        f"efficiency.{key}.{what}_at_{int(100 * kept)}",
        chapter="efficiency",
        unit=unit,
        estimator=f"pruned copy, {kept:.0%} of the weights kept",
        better="larger" if classes else "smaller",
        shown="share" if classes else "number",
    )
    @needing(method=kind | None)
    @truth()
    def at(task: Task, method: MethodCurve | None, judge: PruningJudge, outputs: TrainingOutputs) -> Value | None:
        """Accuracy, or loss without classes, with this share of the weights."""
        if method is None or task.likelihood.classifies != classes:
            return None
        return _at_share(method.curve, kept, judge.word, "" if classes else outputs.per)

    return at


def _at_share(curve: PruningCurve, kept: float, word: str, per: str) -> Value | None:
    if kept not in curve.kept:
        return None
    k = curve.kept.tolist().index(kept)
    value, ends = (curve.accuracy, curve.accuracy_ends) if len(curve.accuracy) else (curve.loss, curve.loss_ends)
    interval = (float(ends[k, 0]), float(ends[k, 1]))
    known = math.isfinite(sum(interval))
    note = "" if known else "too few examples for an interval"
    how = f"{word} data"
    return Value(float(value[k]), curve.n, interval if known else None, how=how, reliable=known, note=note, per=per)


CURVE_MEASURES: tuple[Part, ...] = (
    *_measures_of(ByMagnitude, "magnitude"),
    *_measures_of(ByFisher, "fisher", "lecun1990"),
    *_measures_of(ByFisherInverse, "fisher_inverse", "hassibi1993"),
    *_measures_of(ByFilters, "filters", "he2019"),
)
