"""Which training labels are wrong: a noise model fitted to predictions that did not see the label.

Opinions z_1..z_K (log-probabilities of predictors that did not see an example's label) are weighed and calibrated
together with the noise: π = softmax(Σ_k a_k z_k + b) is the law of the *true* label, a share ε of labels is wrong, and
a wrong label of true class k reads l with chance Q_kl:

    p(observed = l) = (1 − ε) π_l + ε Σ_k π_k Q_kl.

a, b are fitted again at every ε of a grid (profile likelihood), so that overlap of classes does not count as noise.
Probabilities are means over ε and over the patterns Q of ``measures.noise_patterns``, by their evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from memspace.measures.noise_fit import calibrated, centred, posterior, transitions
from memspace.measures.noise_patterns import TEMPER, Hypothesis, hypotheses

__all__ = ["LabelModel", "fit_label_model"]

DROP = 3.32  # nats below the maximum: 99% for an exact likelihood; the calibration is only nearly right
CLEAR = 0.05  # overlap of classes below which a share can be distinguished from it
MOST = 5_000  # examples the calibration is fitted on
NEGLIGIBLE = 1e-6  # chance of a hypothesis that is left out of means


@dataclass(frozen=True)
class LabelModel:
    """A fitted noise model.

    Args:
        noise: ε, the share of wrong labels: mean over the examples of the probability of being wrong.
        interval: where ε lies, 95%; where overlap may explain it, from 0 to all that overlap might hide.
        overlap: chance that the likeliest class is not the true one, mean over the examples: what ε must exceed.
        reliable: whether ε can be distinguished from the overlap.
        statement: one sentence of what was found.
        n: examples fitted on.
        hypotheses: patterns of wrong labels, each at a grid of ε, with their probabilities.
    """

    noise: float
    interval: tuple[float, float]
    overlap: float
    reliable: bool
    statement: str
    n: int
    hypotheses: tuple[Hypothesis, ...]

    @property
    def pattern(self) -> str:
        """The likeliest pattern."""
        return max(self.hypotheses, key=lambda h: float(h.chances.sum())).pattern

    def posterior(self, opinions: Tensor | Sequence[Tensor], y: Tensor) -> Tensor:
        """Compute p(true class | input, observed label), the mean over hypotheses by their evidence.

        Args:
            opinions: (n, C) outputs or log-probabilities, one or several, of predictors that did not see the label.
            y: (n,) observed labels.

        Returns:
            (n, C) float64.
        """
        z, labels = _arrays(opinions, y)
        total = np.zeros(z.shape[1:])
        for h, k in self._considered():
            total += h.chances[k] * _posterior(z, labels, h, k)
        total /= np.maximum(total.sum(1, keepdims=True), 1e-300)
        return torch.from_numpy(total).to(y.device)

    def laws(self, opinions: Tensor | Sequence[Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
        """Compute p(true class | input) and p(observed class | input), whatever the label reads.

        Args:
            opinions: as :meth:`posterior`.
            y: (n,) observed labels; not used for the laws, only for their device.

        Returns:
            two tables (n, C) float64: of the true and of the observed class.
        """
        z, _ = _arrays(opinions, y)
        true, observed, total = np.zeros(z.shape[1:]), np.zeros(z.shape[1:]), 0.0
        for h, k in self._considered():
            pi = calibrated(z, h.fits[k])
            true += h.chances[k] * pi
            observed += h.chances[k] * pi @ transitions(float(h.shares[k]), h.towards)
            total += h.chances[k]
        return torch.from_numpy(true / total).to(y.device), torch.from_numpy(observed / total).to(y.device)

    def admitted_laws(self, opinions: Tensor | Sequence[Tensor], y: Tensor) -> Iterator[Tensor]:
        """Iterate over p(true class | input) under every hypothesis that the labels do not exclude.

        Args:
            opinions: as :meth:`posterior`.
            y: (n,) observed labels; only for their device.

        Yields:
            (n, C) float64.
        """
        z, _ = _arrays(opinions, y)
        for h, k in self._admitted():
            yield torch.from_numpy(calibrated(z, h.fits[k])).to(y.device)

    def admitted_posteriors(self, opinions: Tensor | Sequence[Tensor], y: Tensor) -> Iterator[Tensor]:
        """Iterate over :meth:`posterior` under every hypothesis that the labels do not exclude.

        Args:
            opinions: as :meth:`posterior`.
            y: (n,) observed labels.

        Yields:
            (n, C) float64.
        """
        z, labels = _arrays(opinions, y)
        for h, k in self._admitted():
            yield torch.from_numpy(_posterior(z, labels, h, k)).to(y.device)

    def p_wrong(self, opinions: Tensor | Sequence[Tensor], y: Tensor) -> Tensor:
        """Compute the probability that the observed label is wrong.

        Args:
            opinions: as :meth:`posterior`.
            y: (n,) observed labels.

        Returns:
            (n,) float64.
        """
        return 1 - self.posterior(opinions, y).gather(1, y.unsqueeze(1)).squeeze(1)

    def suggested(self, opinions: Tensor | Sequence[Tensor], y: Tensor) -> Tensor:
        """Return the likeliest true class other than the observed label.

        Args:
            opinions: as :meth:`posterior`.
            y: (n,) observed labels.

        Returns:
            (n,) classes.
        """
        return self.posterior(opinions, y).scatter(1, y.unsqueeze(1), -math.inf).argmax(1)

    def _admitted(self) -> Iterator[tuple[Hypothesis, int]]:
        best = min(float(h.score.min()) for h in self.hypotheses)
        for h in self.hypotheses:
            for k in np.flatnonzero(h.score <= best + TEMPER * DROP):
                yield h, int(k)

    def _considered(self) -> Iterator[tuple[Hypothesis, int]]:
        for h in self.hypotheses:
            for k in np.flatnonzero(h.chances > NEGLIGIBLE):
                yield h, int(k)


def fit_label_model(opinions: Tensor | Sequence[Tensor], y: Tensor, seed: int = 0) -> LabelModel:
    """Fit the noise model.

    Args:
        opinions: (n, C) outputs or log-probabilities, one or several, of predictors that did not see the label.
        y: (n,) observed labels.
        seed: random seed of the order of examples: of the halves that judge a pattern, and of the draw from very many.

    Returns:
        the model, with the share of wrong labels.
    """
    z, labels = _arrays(opinions, y)
    order = np.random.default_rng(seed).permutation(len(labels))[:MOST]
    z, labels = z[:, order], labels[order]
    patterns = hypotheses(z, labels)
    low, high, mode, likeliest = _range(patterns)
    overlap = float((1 - calibrated(z, likeliest[0].fits[likeliest[1]]).max(1)).mean())
    made = LabelModel(0.0, (0.0, 0.0), overlap, False, "", len(y), patterns)
    noise = float(made.p_wrong([torch.from_numpy(o) for o in z], torch.from_numpy(labels)).mean())
    reliable = overlap <= max(CLEAR, mode) and len(labels) >= 30 and len(np.unique(labels)) > 1
    interval, statement = _concluded(noise, (low, high), mode, overlap, reliable)
    return replace(made, noise=noise, interval=interval, reliable=reliable, statement=statement)


def _range(found: tuple[Hypothesis, ...]) -> tuple[float, float, float, tuple[Hypothesis, int]]:
    """Lowest and highest share within ``DROP`` of the best, the best share, and the hypothesis nearest to it."""
    curves = []
    for h in found:
        fine = np.linspace(0.0, float(h.shares[-1]), 3001)
        curves.append((h, fine, PchipInterpolator(h.shares, h.score)(fine) if len(h.shares) > 1 else h.score))
    h, fine, curve = min(curves, key=lambda c: float(c[2].min()))
    best, mode = float(curve.min()), float(fine[int(curve.argmin())])
    inside = np.concatenate([fine[: len(c)][c <= best + TEMPER * DROP] for _, fine, c in curves])
    return float(inside.min()), float(inside.max()), mode, (h, int(np.abs(h.shares - mode).argmin()))


def _concluded(
    noise: float, ends: tuple[float, float], mode: float, overlap: float, reliable: bool
) -> tuple[tuple[float, float], str]:
    """The interval of the share, and the sentence."""
    low, high = ends
    if reliable and low > 0:
        interval = (min(low, noise), max(high, noise))
        return interval, f"{noise:.1%} of the labels look wrong ({interval[0]:.1%} to {interval[1]:.1%})"
    if reliable:
        interval = (0.0, max(min(1.0, high + overlap), noise))
        return interval, f"no sign of wrong labels; at most {interval[1]:.1%}"
    interval = (0.0, max(min(1.0, mode + overlap), high, noise))
    return interval, (
        f"wrong labels cannot be separated from overlapping classes: even the likeliest class is wrong "
        f"for {overlap:.0%} of the examples, so up to {interval[1]:.0%} of the labels may be wrong"
    )


def _posterior(z: np.ndarray, labels: np.ndarray, h: Hypothesis, k: int) -> np.ndarray:
    """p(true class | input, observed label) under one hypothesis, (n, C)."""
    return posterior(z, labels, h.fits[k], float(h.shares[k]), h.towards)


def _arrays(opinions: Tensor | Sequence[Tensor], y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    several = [opinions] if isinstance(opinions, Tensor) else list(opinions)
    return centred([f.detach().double().cpu().numpy() for f in several]), y.detach().cpu().numpy()
