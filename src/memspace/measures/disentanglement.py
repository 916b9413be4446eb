"""Does a layer separate known factors? MIG, DCI, SAP and Fisher orthogonality, each with a random null.

A random rotation of the representation is the null of MIG, DCI and SAP: it keeps all information and destroys
alignment. Orthogonality of factor directions cannot have that null: under an isotropic metric a rotation leaves every
angle as it was. So its null is random directions seen through the same metric, and it answers another question: not
whether units stand for factors, but whether factors move the outputs in different ways.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memspace.intervals import around
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.alignment import Codes, Levels, dci, mig, random_cosine, sap
from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import measure, provides
from memspace.measures.factor_angles import FactorAngles
from memspace.measures.representation import codes_of, read_layer
from memspace.measures.values import Budget
from memspace.measures.workspace import Workspace
from memspace.progress import Progress
from memspace.task.factors import Factors
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["FACTOR_MEASURES", "Disentanglement", "FactorScores", "LayerCodes", "disentangle", "score_codes"]

SAMPLES = 1000
ROTATIONS = 5
METHODS = ("mig", "dci", "sap")
FOLDS = 5
FEWEST = 100  # inputs: below, a bin of MIG's histograms has fewer than five and a held-out half is too small
SECONDS = 0.1  # that the scores of one factor take a core
FORESTS = "random forests, 50 trees, half the samples held out"
SCORES = {  # suffix → estimator, source
    "mig": ("20-bin histograms", "chen2018a"),
    "dci": (FORESTS, "eastwood2018"),
    "dci.completeness": (FORESTS, "eastwood2018"),
    "dci.informativeness": (FORESTS, "eastwood2018"),
    "sap": ("linear SVM, half the samples held out", "kumar2018"),
}


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


@dataclass(frozen=True)
class FactorScores:
    """Scores of the codes by suffix.

    Args:
        value: of all samples.
        parts: of the samples without each of :data:`FOLDS` parts.
        rotated: after each of :data:`ROTATIONS` random rotations.
        n: samples.
    """

    value: Mapping[str, float]
    parts: Mapping[str, np.ndarray]
    rotated: Mapping[str, np.ndarray]
    n: int


def _codes_cost(facts: Facts) -> Stage | None:
    if not facts.described:
        return None
    scored = (1 + FOLDS + ROTATIONS) * facts.factors * SECONDS
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
def factor_scores(codes: LayerCodes, budget: Budget) -> FactorScores | Absent:
    """Score the codes, parts of the samples, and rotated codes."""
    return score_codes(codes, budget)


def score_codes(
    codes: LayerCodes, budget: Budget, methods: Sequence[str] = METHODS, *, rotations: int = ROTATIONS
) -> FactorScores | Absent:
    """Score codes, parts of the samples for the error, and rotated codes for the null.

    Args:
        codes: of a layer.
        budget: seed and progress.
        methods: of ``METHODS``.
        rotations: for the null.

    Returns:
        The scores of these methods; absent where fewer than two units change, or two factors.
    """
    z, v, seed = codes.z, codes.v, budget.seed
    if z.shape[1] < 2 or v.shape[1] < 2:
        changing = f"{codes.layer} has {z.shape[1]} units that change and {v.shape[1]} factors vary"
        remedy = "name another layer, Task(layer=...), or vary more factors"
        return Absent(f"{changing}: two of each are needed", remedy)
    fold = np.arange(len(z)) % FOLDS
    jobs: list[Callable[[], dict[str, float]]] = [lambda: _scores(z, v, seed, methods)]
    jobs += [lambda k=k: _scores(z[fold != k], v[fold != k], seed, methods) for k in range(FOLDS)]  # type: ignore[misc]
    turned = _rotations(z.shape[1], seed + 11, rotations)
    jobs += [lambda q=q: _scores(z @ q, v, seed, methods) for q in turned]  # type: ignore[misc]
    whole, *others = [job() for job in budget.progress.track(jobs, "disentanglement scores", len(jobs))]
    parts, rotated = others[:FOLDS], others[FOLDS:]
    return FactorScores(
        whole,
        {key: np.asarray([scores[key] for scores in parts]) for key in whole},
        {key: np.asarray([scores[key] for scores in rotated]) for key in whole},
        len(z),
    )


def _rotations(width: int, seed: int, count: int) -> list[Codes]:
    generator = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        q, r = np.linalg.qr(generator.standard_normal((width, width)))
        out.append(q * np.sign(np.diag(r)))
    return out


def _scores(z: Codes, v: Levels, seed: int, methods: Sequence[str]) -> dict[str, float]:
    scores: dict[str, float] = {}
    if "mig" in methods:
        scores["mig"] = mig(z, v)
    if "dci" in methods:
        scores |= zip(("dci", "dci.completeness", "dci.informativeness"), dci(z, v, seed), strict=True)
    if "sap" in methods:
        scores["sap"] = sap(z, v, seed)
    return scores


def _doubt(score: float, n: int) -> str:
    """Why a score is not reliable; empty where it is."""
    if not math.isfinite(score):
        return "no code is informative about any factor"
    return "" if n >= FEWEST else f"made of {n} inputs; {FEWEST} or more are needed"


def one_more(values: np.ndarray) -> tuple[float, float] | None:
    """Predict where one more draw of a score in [0, 1] falls in 95 of 100 cases, from a few draws.

    Args:
        values: (R,) draws.

    Returns:
        the interval, by Student's t; None where the spread is unknown.
    """
    # The mean of so few has an error of its own: √(1 + 1/n) times the spread, by Student's t.
    spread = float(values.std(ddof=1)) * math.sqrt(1 + 1 / len(values))
    if not math.isfinite(spread):
        return None
    return around(float(values.mean()), spread, len(values) - 1, lower=0.0, upper=1.0)


Part = Callable[..., Value | Absent | None]


def _score_measures(key: str) -> tuple[Part, Part]:
    """Declare one score and its null; where the score is absent with a reason, so is the null, without one."""
    estimator, source = SCORES[key]
    name, chapter = f"disentanglement.{key}", "disentanglement"

    @measure(name, chapter=chapter, unit="1", estimator=estimator, source=source, better="larger")
    def score(scores: FactorScores, codes: LayerCodes) -> Value:
        """How far known factors lie along single units of the layer."""
        value, parts = scores.value[key], scores.parts[key]
        error = math.sqrt((FOLDS - 1) / FOLDS * float(((parts - parts.mean()) ** 2).sum()))
        ends = around(value, error, FOLDS - 1, lower=0.0, upper=1.0) if math.isfinite(error) else None
        reliable = math.isfinite(value + error) and scores.n >= FEWEST
        return Value(value, scores.n, ends, how=codes.words, reliable=reliable, note=_doubt(value + error, scores.n))

    rotated = f"the same after {ROTATIONS} random rotations; interval: 95% of single rotations"

    @measure(f"{name}.null", chapter=chapter, unit="1", estimator=rotated, source=source)
    def null(scores: FactorScores | None) -> Value | None:
        """The same score of the layer after random rotations."""
        if scores is None:
            return None
        values = scores.rotated[key]
        ends = one_more(values)
        return Value(float(values.mean()), scores.n, ends, reliable=ends is not None and scores.n >= FEWEST)

    return score, null


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
    *(made for key in SCORES for made in _score_measures(key)),
    fisher_orthogonality,
    random_orthogonality,
    layer_orthogonality,
)


def disentangle(task: Task, *, seed: int, progress: Progress) -> Disentanglement:
    """Measure all scores of ``task.layer`` on ``task.factors``, with nulls.

    Intervals of MIG, DCI and SAP: delete-a-fifth jackknife over the samples; of their nulls: spread over rotations;
    of orthogonality: over inputs.

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
