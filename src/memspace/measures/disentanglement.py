"""Does a layer separate known factors? Scores of its codes and Fisher orthogonality, each with a random null.

Shuffled factors show what a score gives by chance: modularity and IRS of pure noise, for instance, are far from 0.
A random rotation of the representation is the null of the scores: it keeps all information and destroys alignment.
Orthogonality of factor directions cannot have that null: under an isotropic metric a rotation leaves every angle as it
was. So its null is random directions seen through the same metric, and it answers another question: not whether units
stand for factors, but whether factors move the outputs in different ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memspace.measurement import Measurement, Unmeasured
from memspace.measures.alignment import random_cosine
from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import measure, provides
from memspace.measures.factor_angles import FactorAngles
from memspace.measures.representation import codes_of, read_layer
from memspace.measures.scores.repeated import RepeatedScores, repeat_scores, shuffled
from memspace.measures.scores.repeated import rotations as rotations_of
from memspace.measures.scores.score import Codes, Levels, Number, ScoreSettings, scores_named
from memspace.measures.values import Budget
from memspace.measures.workspace import Workspace
from memspace.progress import Progress
from memspace.task.factors import Factors
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["FACTOR_MEASURES", "Disentanglement", "LayerCodes", "disentangle", "score_codes"]

SAMPLES = 1000
ROTATIONS = 5
SHUFFLES = 5
METHODS = ("mig", "dci", "sap", "modularity", "explicitness", "factor_vae", "beta_vae", "irs", "snc")
FOLDS = 5
SECONDS = 0.15  # that the scores of one factor take a core
# Fewer votes than the 10,000 of the study: the error over a thousand inputs is many times that of the votes.
CHAPTER = ScoreSettings(points=1000, judged=500)


@dataclass(frozen=True)
class Disentanglement:
    """Scores of how far a layer separates known factors.

    Args:
        measurements: the scores and their nulls.
        unmeasured: what is absent, with reasons.
        layer: the layer's name.
        codes: what the codes are, for people.
    """

    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    layer: str
    codes: str


@dataclass(frozen=True)
class LayerCodes:
    """A layer's codes of inputs whose factors are known.

    Args:
        z: (m, d) codes of unit variance.
        v: (m, K) levels of the factors that vary.
        layer: the layer's name.
        words: what the codes are, for people.
    """

    z: Codes
    v: Levels
    layer: str
    words: str


def _codes_cost(facts: Facts) -> Stage | None:
    if not facts.described:
        return None
    # Some scores take more partitions than one, forests among them: twice the folds.
    scored = (1 + 2 * FOLDS + ROTATIONS + SHUFFLES) * facts.factors * SECONDS
    examples, why = min(SAMPLES, facts.described), "factors separated by a layer"
    return Stage("disentanglement", examples, 1, 0, 0, why, seconds=scored)


@provides(cost=_codes_cost)
def layer_codes(task: Task, factors: Factors, budget: Budget) -> LayerCodes:
    """Read the layer on a random subset of the inputs."""
    generator = torch.Generator().manual_seed(budget.seed + 10)
    chosen = torch.randperm(len(factors.values), generator=generator)[:SAMPLES]
    signal, _, layer = read_layer(task, factors.inputs[chosen], task.layer)
    z, words = codes_of(signal)
    v = factors.values[chosen].numpy().astype(np.int64)
    return LayerCodes(z, v[:, [len(np.unique(c)) > 1 for c in v.T]], layer, words)


@provides()
def factor_scores(codes: LayerCodes, budget: Budget) -> RepeatedScores | Absent:
    """Score the codes, parts of the samples, rotated codes, and codes against shuffled factors."""
    return score_codes(codes, budget)


def score_codes(
    codes: LayerCodes,
    budget: Budget,
    methods: Sequence[str] = METHODS,
    *,
    rotations: int | None = None,
    shuffles: int | None = None,
) -> RepeatedScores | Absent:
    """Score codes, parts of the samples for the error, rotated codes for the null, shuffled factors for chance.

    Args:
        codes: of a layer.
        budget: seed and progress.
        methods: names of scores.
        rotations: for the null; None: ``ROTATIONS``.
        shuffles: for the chance level; None: ``SHUFFLES``.

    Returns:
        The scores of these methods; absent where fewer than two units change, or two factors.
    """
    z, v, seed = codes.z, codes.v, budget.seed
    if z.shape[1] < 2 or v.shape[1] < 2:
        changing = f"{codes.layer} has {z.shape[1]} units that change and {v.shape[1]} factors vary"
        remedy = "name another layer, Task(layer=...), or vary more factors"
        return Absent(f"{changing}: two of each are needed", remedy)
    settings = replace(CHAPTER, seed=seed)
    turns = rotations_of(z.shape[1], ROTATIONS if rotations is None else rotations, seed + 11)
    orders = shuffled(len(z), SHUFFLES if shuffles is None else shuffles, seed + 12)
    scores = scores_named(methods)
    track = budget.progress.track
    return repeat_scores(z, v, scores, settings, folds=FOLDS, turns=turns, orders=orders, track=track)


Part = Callable[..., Value | Absent | None]


def _score_measures(name: str, number: Number, source: str) -> tuple[Part, Part, Part]:
    """Declare one score, its null and its chance level; these two are absent without a reason where the score is."""

    def score(scores: RepeatedScores, codes: LayerCodes) -> Value:
        return scores.measured(name, number, codes.words)

    def null(scores: RepeatedScores | None) -> Value | None:
        return None if scores is None else scores.null(name, number)

    def level(scores: RepeatedScores | None) -> Value | None:
        return None if scores is None else scores.chance_level(name, number)

    score.__doc__, null.__doc__ = number.meaning, "The same score of the layer after random rotations."
    level.__doc__ = "The same score against shuffled factors: what it gives by chance."
    rotated = f"the same after {ROTATIONS} random rotations; interval: 95% of single rotations"
    by_chance = f"the same with factors in {SHUFFLES} random orders; interval: 95% of single orders"
    declared: dict[str, Any] = {"chapter": "disentanglement", "unit": "1", "source": source}
    return (
        measure(f"disentanglement.{name}", estimator=number.estimator, better="larger", **declared)(score),
        measure(f"disentanglement.{name}.null", estimator=rotated, **declared)(null),
        measure(f"disentanglement.{name}.shuffled", estimator=by_chance, **declared)(level),
    )


ORTHOGONALITY = "pointwise 1 − mean |cos|"


@measure(
    "disentanglement.fisher_orthogonality",
    chapter="disentanglement",
    unit="1",
    estimator=f"{ORTHOGONALITY} of factor directions under the output's Fisher metric",
    better="larger",
)
def fisher_orthogonality(angles: FactorAngles) -> Value | Absent:
    """Whether known factors move the predictions in different ways."""
    moved = torch.isfinite(angles.output) & torch.isfinite(angles.halved)
    change = float((angles.halved - angles.output)[moved].mean())
    return _orthogonality(angles.output, f"halving the difference step moves it by {change:.1g}")


@measure(
    "disentanglement.fisher_orthogonality.null",
    chapter="disentanglement",
    unit="1",
    estimator=f"{ORTHOGONALITY} of random output directions under the same metrics",
)
def random_orthogonality(angles: FactorAngles | None) -> Value | Absent | None:
    """The same of random directions."""
    if angles is None:
        return None
    isotropic = 1 - random_cosine(angles.dimension)
    note = f"{isotropic:.2f} if the metric were isotropic in its {angles.dimension} dimensions"
    return _orthogonality(angles.null, note)


@measure(
    "disentanglement.layer_orthogonality",
    chapter="disentanglement",
    unit="1",
    estimator=f"{ORTHOGONALITY} of factor directions at the layer, Euclidean",
    better="larger",
)
def layer_orthogonality(angles: FactorAngles | None, codes: LayerCodes) -> Value | Absent | None:
    """Whether known factors move the layer in different ways."""
    if angles is None:
        return None
    flat = 1 - random_cosine(angles.width)
    note = f"a rotation of the layer leaves it; random directions in {angles.width} dimensions have {flat:.2f}"
    return _orthogonality(angles.layer, note, how=codes.layer)


def _orthogonality(each: Tensor, note: str, how: str = "") -> Value | Absent:
    """The mean over the inputs at which at least two factors move the signal."""
    moved = each[torch.isfinite(each)]
    if len(moved) < 2:
        return Absent("fewer than two factors move it at any input", "name another layer")
    return Value.mean(moved, upper=1.0, note=note, how=how)


FACTOR_MEASURES: tuple[Part, ...] = (
    *(
        made
        for s in scores_named(METHODS)
        for name, number in s.numbers.items()
        for made in _score_measures(name, number, s.source)
    ),
    fisher_orthogonality,
    random_orthogonality,
    layer_orthogonality,
)


def disentangle(task: Task, *, seed: int, progress: Progress) -> Disentanglement:
    """Measure all scores of ``task.layer`` on ``task.factors``, with nulls.

    Intervals of the scores: delete-a-fifth jackknife over the samples; of their nulls and chance levels: spread over
    rotations and orders; of orthogonality: over inputs.

    Args:
        task: with factors; without them, what comes back says why nothing was measured.
        seed: random seed.
        progress: where the work reports.

    Returns:
        the measurements, and what is absent.
    """
    workspace = Workspace({Task: task, Budget: Budget(seed, 0, progress)})
    measurements, unmeasured = workspace.measure_all(FACTOR_MEASURES)
    codes = workspace.get(LayerCodes)
    layer, words = ("", "") if isinstance(codes, Absent) else (codes.layer, codes.words)
    return Disentanglement(measurements, unmeasured, layer, words)
