"""Scores on constructed codes, against the peer, and how often their intervals and nulls are right."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np

from benchmarks.peers.disent_metrics import load_metrics
from benchmarks.table import Row
from memspace.measures.scores.every_score import standardised
from memspace.measures.scores.mig import mig
from memspace.measures.scores.repeated import repeat_scores, rotations
from memspace.measures.scores.sap import sap
from memspace.measures.scores.score import Codes, Levels, ScoreSettings, scores_named

__all__ = ["rows"]

SIZES = (3, 4, 5)
FAST = ("mig", "modularity", "factor_vae", "irs", "snc", "sap", "beta_vae", "explicitness")
VOTES = ScoreSettings(points=1000, judged=500)


def rows(arguments: argparse.Namespace) -> list[Row]:
    trials = 10 if arguments.small else 200
    made = _known() + _peer()
    for size in (200, 1000):
        made += _coverage(size, trials, "noisy", lambda g, v: _noisy(g, v, 0.5))
        made += _coverage(size, trials, "rotated", lambda g, v: _noisy(g, v, 0.5) @ rotations(v.shape[1], 1, 5)[0])
    return made + _null_rate(trials)


def _levels(generator: np.random.Generator, size: int) -> Levels:
    return np.stack([generator.integers(0, s, size) for s in SIZES], 1).astype(np.int64)


def _noisy(generator: np.random.Generator, v: Levels, noise: float) -> Codes:
    return standardised(standardised(v.astype(float)) + noise * generator.standard_normal(v.shape))


def _known() -> list[Row]:
    """Units that are the factors score 1, and units of noise what chance gives."""
    generator = np.random.default_rng(0)
    v = _levels(generator, 1000)
    exact, noise = standardised(v.astype(float)), generator.standard_normal(v.shape)
    made = []
    for s in scores_named(("mig", "dci", "modularity", "factor_vae", "beta_vae", "irs", "snc")):
        value = s.compute(exact, v, VOTES)[s.name]
        made.append(Row("scores", f"{s.name} of the factors themselves", "≥ 0.97", value, None, None, value >= 0.97))
    for name, chance in (("factor_vae", 1 / 3), ("beta_vae", 1 / 3), ("snc", 0.0), ("mig", 0.0), ("explicitness", 0.5)):
        value = scores_named((name,))[0].compute(noise, v, VOTES)[name]
        goal = f"{chance:.2f} ± 0.1"
        made.append(Row("scores", f"{name} of noise", goal, value, None, None, abs(value - chance) < 0.1))
    return made


def _peer() -> list[Row]:
    metrics = load_metrics("_mig", "_sap")
    if metrics is None:
        return [Row("scores", "largest difference from disent", "≤ 1e-6", math.nan, None, None, None, "not installed")]
    generator = np.random.default_rng(1)
    v = _levels(generator, 1000)
    z = _noisy(generator, v, 0.5)
    parts = (z[:500].T, v[:500].T, z[500:].T, v[500:].T)
    theirs = {
        "mig": float(metrics["_mig"]._compute_mig(z.T, v.T)["mig.discrete_score"]),
        "sap": float(metrics["_sap"]._compute_sap(*parts, False)["sap.score"]),
    }
    made = []
    for name, ours in (("mig", mig(z, v)), ("sap", sap(z, v))):
        apart = abs(ours - theirs[name])
        made.append(Row("scores", f"difference of {name} from disent", "≤ 1e-6", apart, None, None, apart <= 1e-6))
    return made


def _coverage(size: int, trials: int, kind: str, codes: Callable[[np.random.Generator, Levels], Codes]) -> list[Row]:
    """How often the interval of one sample has the mean over samples; those marked not reliable are left out."""
    scores = scores_named(FAST)
    numbers = {name: number for s in scores for name, number in s.numbers.items()}
    ends: dict[str, list[tuple[float, float] | None]] = {name: [] for name in numbers}
    values: dict[str, list[float]] = {name: [] for name in numbers}
    for trial in range(trials):
        generator = np.random.default_rng((size, trial))
        v = _levels(generator, size)
        repeated = repeat_scores(codes(generator, v), v, scores, ScoreSettings(points=1000, judged=500, seed=trial))
        for name, number in numbers.items():
            value = repeated.measured(name, number)
            values[name].append(value.value)
            ends[name].append(value.interval if value.reliable else None)
    made = []
    for name in numbers:
        truth = float(np.mean(values[name]))
        judged = [low <= truth <= high for low, high in filter(None, ends[name])]
        share = float(np.mean(judged)) if judged else math.nan
        least = 0.95 - 2 * math.sqrt(0.95 * 0.05 / max(len(judged), 1))
        quantity = f"coverage of {name}, {kind} codes, {size} rows"
        made.append(Row("scores", quantity, "≥ 0.95", share, None, None, share >= least, f"{len(judged)} intervals"))
    return made


def _null_rate(trials: int) -> list[Row]:
    """Isotropic codes turned at random are as good as any rotation of them: one in twenty is beyond all nineteen."""
    scores = scores_named(("mig",))
    chances = []
    for trial in range(trials):
        generator = np.random.default_rng((7, trial))
        v = _levels(generator, 200)
        first, *others = rotations(v.shape[1], 20, trial)
        white = _white(_noisy(generator, v, 0.3)) @ first
        chances.append(repeat_scores(white, v, scores, VOTES, folds=2, turns=others).chance("mig"))
    rate = float(np.mean(np.array(chances) <= 0.05))
    most = 0.05 + 2 * math.sqrt(0.05 * 0.95 / trials)
    return [Row("scores", "rate at which MIG is beyond its null by chance", "= 0.05", rate, None, None, rate <= most)]


def _white(z: Codes) -> Codes:
    u, _, vh = np.linalg.svd(z - z.mean(0), full_matrices=False)
    return math.sqrt(len(z)) * u @ vh
