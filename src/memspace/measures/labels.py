"""Which training labels are wrong: a noise model fitted to predictions that did not see the label.

Opinions z_1..z_K (log-probabilities of predictors that did not see an example's label) are weighed and calibrated
together with the noise: π = softmax(Σ_k a_k z_k + b) is the law of the *true* label, a share ε of labels is wrong, and
a wrong label of true class k reads l with chance Q_kl:

    p(observed = l) = (1 − ε) π_l + ε Σ_k π_k Q_kl.

a, b are fitted anew at every ε of a grid (profile likelihood), so that what overlapping classes explain is not read as
noise. Q is uniform, or, where held-out likelihood prefers it, estimated class by class. Probabilities are means over ε.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from memspace.measures.noise_fit import Fit, calibrated, centred, fit_calibration, transitions, uniform

__all__ = ["LabelModel", "fit_label_model"]

SHARES = (0.0, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.36, 0.43, 0.5, 0.6)
EXPECTED = 0.15  # mean of the exponential prior of ε: larger shares must be shown by the data
DROP = 3.32  # nats below the maximum: 99% for an exact likelihood; the calibration is only nearly right
CLEAR = 0.05  # overlap of classes below which a share is told from it
PREFERRED = 2.0  # nats of held-out likelihood by which a pattern of classes must be better than none
FEWEST = 12  # wrong labels expected, below which no pattern of classes is looked for
MOST = 5_000  # examples the calibration is fitted on


@dataclass(frozen=True)
class LabelModel:
    """A fitted noise model.

    Args:
        noise: ε, the share of wrong labels: mean over the examples of the probability of being wrong.
        interval: where ε lies, 95%; where it is not told from overlap, from 0 up to all that overlap might hide.
        overlap: chance that the likeliest class is not the true one, mean over the examples: what ε must be told from.
        reliable: whether ε is told from the overlap.
        pattern: ``uniform`` or ``class by class``.
        statement: one sentence of what was found.
        n: examples fitted on.
        shares, chances: grid of ε and the posterior weight of each; fits: calibration at each; towards: Q (C, C).
    """

    noise: float
    interval: tuple[float, float]
    overlap: float
    reliable: bool
    pattern: str
    statement: str
    n: int
    shares: np.ndarray
    chances: np.ndarray
    fits: tuple[Fit, ...]
    towards: np.ndarray

    def posterior(self, opinions: Tensor | Sequence[Tensor], y: Tensor) -> Tensor:
        """p(true class | input, observed label), (n, C) float64, from opinions that did not see the label."""
        z, labels = _arrays(opinions, y)
        total = np.zeros(z.shape[1:])
        for share, chance, fit in zip(self.shares, self.chances, self.fits, strict=True):
            if chance > 1e-6:
                joint = calibrated(z, fit) * transitions(share, self.towards)[:, labels].T
                total += chance * joint / np.maximum(joint.sum(1, keepdims=True), 1e-300)
        total /= np.maximum(total.sum(1, keepdims=True), 1e-300)
        return torch.from_numpy(total).to(y.device)

    def laws(self, opinions: Tensor | Sequence[Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
        """p(true class | input) and p(observed class | input), (n, C) each, whatever the label reads."""
        z, _ = _arrays(opinions, y)
        true, observed = np.zeros(z.shape[1:]), np.zeros(z.shape[1:])
        for share, chance, fit in zip(self.shares, self.chances, self.fits, strict=True):
            if chance > 1e-6:
                pi = calibrated(z, fit)
                true += chance * pi
                observed += chance * pi @ transitions(share, self.towards)
        return torch.from_numpy(true).to(y.device), torch.from_numpy(observed).to(y.device)

    def p_wrong(self, opinions: Tensor | Sequence[Tensor], y: Tensor) -> Tensor:
        """Probability that the observed label is wrong, (n,)."""
        return 1 - self.posterior(opinions, y).gather(1, y.unsqueeze(1)).squeeze(1)

    def suggested(self, opinions: Tensor | Sequence[Tensor], y: Tensor) -> Tensor:
        """The likeliest true class other than the observed label, (n,)."""
        return self.posterior(opinions, y).scatter(1, y.unsqueeze(1), -math.inf).argmax(1)


def fit_label_model(opinions: Tensor | Sequence[Tensor], y: Tensor, seed: int = 0) -> LabelModel:
    """Fit the noise model.

    Args:
        opinions: (n, C) outputs or log-probabilities, one or several, of predictors that did not see the label.
        y: (n,) observed labels.
        seed: of the halves by which a pattern of classes is judged, and of a draw where there are very many examples.
    """
    z, labels = _arrays(opinions, y)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))[:MOST]
    z, labels = z[:, order], labels[order]
    classes = z.shape[2]
    shares = np.array([s for s in SHARES if s < 0.95 * (classes - 1) / classes]) if classes > 1 else np.zeros(1)
    towards = uniform(classes)
    fits = _profile(z, labels, shares, towards)
    chosen = _pattern(z, labels, shares, towards, fits)
    if chosen is not None:
        towards, fits = chosen
    return _concluded(z, labels, shares, towards, fits, "uniform" if chosen is None else "class by class", len(y))


def _arrays(opinions: Tensor | Sequence[Tensor], y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    several = [opinions] if isinstance(opinions, Tensor) else list(opinions)
    return centred([f.detach().double().cpu().numpy() for f in several]), y.detach().cpu().numpy()


def _profile(z: np.ndarray, y: np.ndarray, shares: np.ndarray, towards: np.ndarray) -> tuple[Fit, ...]:
    """The best calibration at every share: swept up, then down, each from its neighbour's."""
    fits: list[Fit] = []
    for share in shares:
        fits.append(fit_calibration(z, y, float(share), towards, fits[-1] if fits else None))
    for k in range(len(shares) - 2, -1, -1):
        again = fit_calibration(z, y, float(shares[k]), towards, fits[k + 1])
        fits[k] = min(fits[k], again, key=lambda f: f.loss)
    return tuple(fits)


def _pattern(
    z: np.ndarray, y: np.ndarray, shares: np.ndarray, flat: np.ndarray, fits: tuple[Fit, ...]
) -> tuple[np.ndarray, tuple[Fit, ...]] | None:
    """Q estimated class by class, where it predicts labels it was not estimated on better than a uniform one."""
    classes = z.shape[2]
    likely = int(np.argmin([f.loss + s / EXPECTED for f, s in zip(fits, shares, strict=True)]))
    if classes < 3 or classes**2 > len(y) or max(shares[likely], 0.05) * len(y) < FEWEST:
        return None
    start = max(float(shares[likely]), 0.05)
    half = np.arange(len(y)) % 2 == 0
    gain = 0.0
    for one, other in ((half, ~half), (~half, half)):
        towards = _estimated(z[:, one], y[one], start, flat)
        coarse = shares[::2]
        losses = [min(f.loss for f in _profile(z[:, other], y[other], coarse, q)) for q in (flat, towards)]
        gain += losses[0] - losses[1]
    if gain < PREFERRED:
        return None
    towards = _estimated(z, y, start, flat)
    return towards, _profile(z, y, shares, towards)


def _estimated(z: np.ndarray, y: np.ndarray, share: float, flat: np.ndarray, rounds: int = 8) -> np.ndarray:
    """Q by expectation maximisation at a share, shrunk to uniform by as much as one wrong label a class."""
    classes, towards, fit = z.shape[2], flat, None
    for _ in range(rounds):
        fit = fit_calibration(z, y, share, towards, fit)
        joint = calibrated(z, fit) * transitions(share, towards)[:, y].T
        posterior = joint / np.maximum(joint.sum(1, keepdims=True), 1e-300)
        counts = np.stack([posterior[y == k].sum(0) for k in range(classes)], 1)  # true by observed
        np.fill_diagonal(counts, 0.0)
        towards = (counts + flat) / (counts.sum(1, keepdims=True) + 1)
    return towards


def _concluded(
    z: np.ndarray,
    y: np.ndarray,
    shares: np.ndarray,
    towards: np.ndarray,
    fits: tuple[Fit, ...],
    pattern: str,
    n: int,
) -> LabelModel:
    score = np.array([f.loss for f in fits]) + shares / EXPECTED
    if len(shares) > 1:
        fine = np.linspace(0.0, shares[-1], 3001)
        curve = PchipInterpolator(shares, score)(fine)
        mode, inside = float(fine[curve.argmin()]), fine[curve <= curve.min() + DROP]
        low, high = float(inside.min()), float(inside.max())
        chances = np.exp(score.min() - score) * np.gradient(shares)
    else:
        mode, low, high, chances = 0.0, 0.0, 0.0, np.ones(1)
    chances = chances / chances.sum()
    best = fits[int(np.argmin(np.abs(shares - mode)))]
    overlap = float((1 - calibrated(z, best).max(1)).mean())
    made = LabelModel(0.0, (0.0, 0.0), overlap, False, pattern, "", n, shares, chances, fits, towards)
    device_free = [torch.from_numpy(opinion) for opinion in z]
    noise = float(made.p_wrong(device_free, torch.from_numpy(y)).mean())
    reliable = overlap <= max(CLEAR, mode) and len(y) >= 30 and len(np.unique(y)) > 1
    if reliable and low > 0:
        interval = (min(low, noise), max(high, noise))
        statement = f"{noise:.1%} of the labels look wrong ({interval[0]:.1%} to {interval[1]:.1%})"
    elif reliable:
        interval = (0.0, max(min(1.0, high + overlap), noise))
        statement = f"no sign of wrong labels; at most {interval[1]:.1%}"
    else:
        interval = (0.0, max(min(1.0, mode + overlap), high, noise))
        statement = (
            f"wrong labels can't be told from classes that overlap: even the likeliest class is wrong for "
            f"{overlap:.0%} of the examples, so up to {interval[1]:.0%} of the labels may be wrong"
        )
    return LabelModel(noise, interval, overlap, reliable, pattern, statement, n, shares, chances, fits, towards)
