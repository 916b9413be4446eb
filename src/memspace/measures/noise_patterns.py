"""Where wrong labels may go, and how likely each pattern and each share of them is, given the labels.

Three patterns: a wrong label may be any other class alike; one class alone has them all (of two classes); or each class
has a rate and a target of its own, estimated from the labels. None is chosen: they are weighted by their evidence, the
likelihood averaged over the share. That of an estimated pattern is taken on labels it was not estimated on. All
likelihoods are raised to the power ``TEMPER``: predictions of different examples come from the same few networks and
their calibration is only nearly right, so that n labels carry less information than n independent ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memspace.measures.noise_fit import Fit, fit_calibration, posterior, uniform

__all__ = ["Hypothesis", "hypotheses"]

Floats = NDArray[np.float64]

SHARES = (0.0, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.36, 0.43, 0.5, 0.6)
EXPECTED = 0.15  # mean of the exponential prior of ε: larger shares must be shown by the data
TEMPER = 0.5  # chosen on benchmarks/noise_trial.py: at 1 the probabilities were too sure, at 0.25 shares too vague
MOST_WRONG = 0.95  # times the share at which a label would carry no information about its class
HALF = 0.5  # a pattern of classes by which more than half of a class is wrong would rename it
LIKELY_SHARE = 0.1  # the share at which rates and targets are estimated where none is seen under the uniform pattern
A_FEW = 5  # labels of a class from which it is known that most of them can't be wrong
PRIOR_WRONG = 2.0  # wrong labels a class is taken to have beforehand, at the common rate


@dataclass(frozen=True)
class Hypothesis:
    """One pattern at every share ε of a grid.

    Args:
        pattern: ``uniform``, ``one class`` or ``class by class``.
        towards: (C, C) rates: p(observed | true) is (1 − ε) I + ε ``towards``. Rows add up to 1; a diagonal that is
            not 0 belongs to a class with more or fewer wrong labels than others.
        shares: (G,) the grid.
        fits: the calibration of greatest likelihood at each share.
        score: (G,) −log density of pattern and share given the labels, up to a constant common to all hypotheses.
        chances: (G,) probability of pattern and share; over all hypotheses they add up to 1.
    """

    pattern: str
    towards: Floats
    shares: Floats
    fits: tuple[Fit, ...]
    score: Floats
    chances: Floats


@dataclass(frozen=True)
class _Profile:
    pattern: str
    towards: Floats
    shares: Floats
    fits: tuple[Fit, ...]
    evidence: float


def hypotheses(z: Floats, y: NDArray[np.int64]) -> tuple[Hypothesis, ...]:
    """Fit all patterns that the number of classes and labels admits.

    Args:
        z: (K, n, C) opinions, centred.
        y: (n,) observed labels.

    Returns:
        the patterns, weighted by their evidence.
    """
    classes, n = z.shape[2], len(y)
    flat = uniform(classes)
    patterns = [_profiled(z, y, "uniform", flat)]
    groups = [[0]]
    if classes == 2 and min(np.bincount(y, minlength=2)) > 0:
        patterns += [_profiled(z, y, "one class", _one_class(k, y)) for k in (0, 1)]
        groups.append([1, 2])
    elif classes > 2 and classes**2 <= n:
        patterns.append(_estimated(z, y, flat, patterns[0]))
        groups.append([1])
    prior = np.zeros(len(patterns))
    for group in groups:
        prior[group] = 1 / len(group)
    return _weighed(patterns, prior)


def _weighed(found: list[_Profile], prior: Floats) -> tuple[Hypothesis, ...]:
    evidence = np.array([p.evidence for p in found]) + np.log(prior)
    weight = np.exp(evidence - evidence.max())
    weight /= weight.sum()
    made = []
    for profile, share in zip(found, weight, strict=True):
        log_density, width = _log_density(profile.fits, profile.shares)
        # Its own evidence, not that of the profile: an estimated pattern is weighed by less than it fits.
        log_density = log_density - _evidence(profile.fits, profile.shares) + math.log(max(share, 1e-300))
        chances = np.exp(log_density) * width
        made.append(Hypothesis(profile.pattern, profile.towards, profile.shares, profile.fits, -log_density, chances))
    return tuple(made)


def _log_density(fits: tuple[Fit, ...], shares: Floats) -> tuple[Floats, Floats]:
    """Logarithm of likelihood^TEMPER × prior at every share, and the width of ε that each stands for."""
    width = np.gradient(shares) if len(shares) > 1 else np.ones(1)
    return -TEMPER * np.array([f.loss for f in fits]) - shares / EXPECTED - math.log(EXPECTED), width


def _profiled(z: Floats, y: NDArray[np.int64], pattern: str, towards: Floats, step: int = 1) -> _Profile:
    """The best calibration at every share, swept up and then down, each from its neighbour's; and the evidence."""
    shares = _grid(towards)[::step]
    fits: list[Fit] = []
    for share in shares:
        fits.append(fit_calibration(z, y, float(share), towards, fits[-1] if fits else None))
    for k in range(len(shares) - 2, -1, -1):
        again = fit_calibration(z, y, float(shares[k]), towards, fits[k + 1])
        fits[k] = min(fits[k], again, key=lambda f: f.loss)
    return _Profile(pattern, towards, shares, tuple(fits), _evidence(tuple(fits), shares))


def _evidence(fits: tuple[Fit, ...], shares: Floats) -> float:
    log_density, width = _log_density(fits, shares)
    peak = float(log_density.max())
    return peak + math.log(float((np.exp(log_density - peak) * width).sum()))


def _renames(z: Floats, y: NDArray[np.int64], profile: _Profile, k: int) -> bool:
    """Whether most labels of some class that has a few are wrong by the k-th share of a profile."""
    right = posterior(z, y, profile.fits[k], float(profile.shares[k]), profile.towards)[np.arange(len(y)), y]
    size = np.bincount(y, minlength=z.shape[2])
    mean = np.bincount(y, right, z.shape[2]) / np.maximum(size, 1)
    return bool((mean[size >= A_FEW] < HALF).any())


def _grid(towards: Floats) -> Floats:
    """Shares at which every class keeps some right labels, and more of them than chance would give."""
    classes = len(towards)
    if classes < 2:
        return np.zeros(1)
    most = MOST_WRONG * (classes - 1) / classes
    rates = 1 - np.diag(towards)
    if rates.max() > 1:
        most = min(most, HALF / float(rates.max()))
    return np.array([s for s in SHARES if s <= most])


def _one_class(k: int, y: NDArray[np.int64]) -> Floats:
    """Of two classes: all wrong labels belong to class k."""
    rate = len(y) / float((y == k).sum())
    towards = np.eye(2)
    towards[k, k], towards[k, 1 - k] = 1 - rate, rate
    return towards


def _estimated(z: Floats, y: NDArray[np.int64], flat: Floats, under_uniform: _Profile) -> _Profile:
    """Rates and targets class by class, with the evidence of either half's labels under the other half's estimate."""
    log_density, width = _log_density(under_uniform.fits, under_uniform.shares)
    share = max(float(under_uniform.shares[int((log_density + np.log(width)).argmax())]), LIKELY_SHARE)
    half = np.arange(len(y)) % 2 == 0
    gain = 0.0
    for one, other in ((half, ~half), (~half, half)):
        towards = _rates(z[:, one], y[one], share, flat)
        plain, shaped = (_profiled(z[:, other], y[other], "", q, 2).evidence for q in (flat, towards))
        gain += shaped - plain
    profile = _profiled(z, y, "class by class", _rates(z, y, share, flat))
    admitted = next((k for k in range(1, len(profile.shares)) if _renames(z, y, profile, k)), len(profile.shares))
    return replace(
        profile, shares=profile.shares[:admitted], fits=profile.fits[:admitted], evidence=under_uniform.evidence + gain
    )


def _rates(z: Floats, y: NDArray[np.int64], share: float, flat: Floats, rounds: int = 8) -> Floats:
    """Rates and targets by expectation maximisation at a share, shrunk to the common rate and to uniform targets."""
    classes, towards, fit = z.shape[2], flat, None
    for _ in range(rounds):
        fit = fit_calibration(z, y, share, towards, fit)
        true = posterior(z, y, fit, share, towards)
        counts = np.stack([true[y == k].sum(0) for k in range(classes)], 1)  # true by observed
        size = counts.sum(1)
        np.fill_diagonal(counts, 0.0)
        wrong = counts.sum(1)
        common = wrong.sum() / max(size.sum(), 1e-9)
        rate = (wrong + PRIOR_WRONG) / (common * size + PRIOR_WRONG)
        rate *= size.sum() / max(float((rate * size).sum()), 1e-9)
        target = (counts + flat) / (counts.sum(1, keepdims=True) + 1)
        towards = rate[:, None] * target + np.diag(1 - rate)
    return towards
