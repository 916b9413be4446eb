"""Scores on constructed codes, against the peer and by chance, and how often their intervals and nulls are right."""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.peers.disent_metrics import load_metrics
from benchmarks.table import Row, mean_interval
from memspace.intervals import margin
from memspace.measures.scores.every_score import standardised
from memspace.measures.scores.mig import mig
from memspace.measures.scores.repeated import FOLDS, repeat_scores, rotations, shuffled
from memspace.measures.scores.sap import sap
from memspace.measures.scores.score import Codes, Levels, ScoreSettings, scores_named
from memspace.value import Value

__all__ = ["rows"]

SIZES = (3, 4, 5)
FAST = ("mig", "modularity", "factor_vae", "irs", "snc", "sap", "beta_vae", "explicitness")
SLOW = ("dci", "nk")
ROWS = (200, 1000)
VOTES = ScoreSettings(points=1000, judged=500)
LEAST = 0.93  # share of intervals that hold the mean; 0.95 less the error of 200 trials


def rows(arguments: argparse.Namespace) -> list[Row]:
    trials = 10 if arguments.small else 200
    made = _known() + _peer() + _levels_by_chance(3 if arguments.small else 20)
    for size, kind in itertools.product(ROWS, CODES):
        made += _coverage(FAST, size, trials, kind)
        if arguments.slow and kind != "exact":
            for name in SLOW:
                made += _coverage((name,), size, 3 if arguments.small else 60, kind)
    return made + _null_rate(trials)


def _levels(generator: np.random.Generator, size: int) -> Levels:
    return np.stack([generator.integers(0, s, size) for s in SIZES], 1).astype(np.int64)


def _noisy(generator: np.random.Generator, v: Levels, noise: float) -> Codes:
    return standardised(standardised(v.astype(float)) + noise * generator.standard_normal(v.shape))


def _rotated(generator: np.random.Generator, v: Levels) -> Codes:
    return _noisy(generator, v, 0.5) @ rotations(v.shape[1], 1, 5)[0]


CODES: dict[str, Callable[[np.random.Generator, Levels], Codes]] = {
    "noisy": lambda generator, v: _noisy(generator, v, 0.5),
    "rotated": _rotated,
    "noise": lambda generator, v: standardised(generator.standard_normal(v.shape)),
    "exact": lambda _, v: standardised(v.astype(float)),
}


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


def _levels_by_chance(trials: int) -> list[Row]:
    """What shuffled factors give noisy codes, next to what codes of the same law have that are made of other inputs."""
    scores = scores_named(FAST)
    made = []
    for size in ROWS:
        unrelated: dict[str, list[float]] = {}
        levels: dict[str, list[float]] = {}
        for trial in range(trials):
            generator = np.random.default_rng((size, trial, 1))
            v = _levels(generator, size)
            settings = replace(VOTES, seed=trial)
            v_shuffled = v[shuffled(size, 1, trial)[0]]
            noisy, others = (_noisy(generator, levels_of, 0.5) for levels_of in (v, _levels(generator, size)))
            pairs = ((noisy, v_shuffled, levels), (others, v, unrelated))
            for (z, factors, into), s in itertools.product(pairs, scores):
                for name, value in s.compute(z, factors, settings).items():
                    into.setdefault(name, []).append(value)
        for name, values in levels.items():
            apart = abs(float(np.mean(values)) - float(np.mean(unrelated[name])))
            detail = f"codes of other inputs have {np.mean(unrelated[name]):.3f}"
            quantity = f"{name} by chance: shuffled factors, {size} rows"
            made.append(Row("scores", quantity, "other inputs ± 0.1", *mean_interval(values), apart < 0.1, detail))
    return made


def _coverage(names: Sequence[str], size: int, trials: int, kind: str) -> list[Row]:
    """How often the interval of one sample has the mean over samples; those marked not reliable are left out."""
    scores = scores_named(names)
    numbers = {name: number for s in scores for name, number in s.numbers.items()}
    measured: dict[str, list[Value]] = {name: [] for name in numbers}
    without: dict[str, list[float]] = {name: [] for name in numbers}  # errors without the least one of 1/n
    for trial in range(trials):
        generator = np.random.default_rng((size, trial))
        v = _levels(generator, size)
        repeated = repeat_scores(CODES[kind](generator, v), v, scores, replace(VOTES, seed=trial))
        for name, number in numbers.items():
            measured[name].append(repeated.measured(name, number))
            without[name].append(math.sqrt((FOLDS - 1) * float(repeated.parts[name].var(1).mean())))
    made = []
    for name, values in measured.items():
        reliable = [k for k, v in enumerate(values) if v.reliable and v.interval is not None]
        truth = float(np.mean([values[k].value for k in reliable])) if reliable else math.nan
        held = [low - 1e-12 <= truth <= high + 1e-12 for low, high in (values[k].interval for k in reliable)]  # type: ignore[misc]
        narrow = [abs(values[k].value - truth) <= margin(without[name][k], FOLDS - 1) for k in reliable]
        share = float(np.mean(held)) if held else math.nan
        least = LEAST - math.sqrt(LEAST * (1 - LEAST) / max(len(held), 1))
        detail = f"{len(held)} intervals, mean {truth:.3f}"
        if held and np.mean(narrow) < share:
            detail += f"; without the least error of 1/n {np.mean(narrow):.2f}"
        quantity = f"coverage of {name}, {kind} codes, {size} rows"
        made.append(Row("scores", quantity, "≥ 0.93", share, None, None, share >= least if held else None, detail))
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
