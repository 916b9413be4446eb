"""Which training labels are wrong: a noise model fitted to out-of-sample predictions.

The observed label is the true one with probability 1 − ε, else any other class alike. With out-of-sample class
probabilities π = softmax(f/τ) for the *true* label, p(observed = y) = (1 − ε) π_y + ε/(C−1) (1 − π_y). (ε, τ) are
fitted by maximum likelihood on the observed labels alone; Bayes' rule then gives each label's chance of being wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

__all__ = ["LabelModel", "fit_label_model", "join_opinions"]


@dataclass(frozen=True)
class LabelModel:
    """A fitted noise model.

    Args:
        noise: ε, share of wrong labels; temperature: τ.
        noise_error: standard error of ε from the likelihood's curvature.
        n: examples fitted on.
    """

    noise: float
    temperature: float
    noise_error: float
    n: int

    def posterior(self, f: Tensor, y: Tensor) -> Tensor:
        """p(true class | input, observed label), (n, C) float64, from out-of-sample outputs f."""
        pi = torch.softmax(f.double() / self.temperature, -1)
        c = f.shape[-1]
        seen = torch.full_like(pi, self.noise / (c - 1))
        seen.scatter_(1, y.unsqueeze(1), 1 - self.noise)
        joint = pi * seen
        return joint / joint.sum(-1, keepdim=True).clamp_min(1e-300)

    def p_wrong(self, f: Tensor, y: Tensor) -> Tensor:
        """Probability that the observed label is wrong, (n,)."""
        return 1 - self.posterior(f, y).gather(1, y.unsqueeze(1)).squeeze(1)

    def suggested(self, f: Tensor, y: Tensor) -> Tensor:
        """The likeliest class other than the observed label, (n,)."""
        return f.scatter(1, y.unsqueeze(1), -math.inf).argmax(1)


def fit_label_model(
    f: Tensor, y: Tensor, *, noise: float | None = None, noise_error: float | None = None
) -> LabelModel:
    """Fit (ε, τ) to out-of-sample outputs ``f`` (n, C) and observed labels ``y`` by maximum likelihood.

    Args:
        noise: ε where it is known from elsewhere (with its standard error); then only τ is fitted.

    ε is kept in [1e-4, ½] and τ in [0.05, 20].
    """
    fixed = noise
    c = f.shape[1]
    scores, labels = f.detach().double().cpu().numpy(), y.cpu().numpy()
    rows = np.arange(len(labels))

    def unpack(z: np.ndarray) -> tuple[float, float]:
        share = fixed if fixed is not None else 0.5 / (1 + math.exp(-float(z[0])))
        return share, math.exp(float(z[1]))

    def chosen(temperature: float) -> tuple[np.ndarray, np.ndarray]:
        """π of the observed label, and its derivative by log τ."""
        logits = scores / temperature
        weights = np.exp(logits - logits.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        pi = weights[rows, labels]
        return pi, pi * ((weights * logits).sum(1) - logits[rows, labels])

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        noise, temperature = unpack(z)
        pi, slope = chosen(temperature)
        p = np.maximum((1 - noise) * pi + noise / (c - 1) * (1 - pi), 1e-300)
        by_noise = -((1 - pi) / (c - 1) - pi) / p
        by_temperature = -(1 - noise - noise / (c - 1)) * slope / p
        inner = 0.0 if fixed is not None else noise * (1 - 2 * noise)
        return float(-np.log(p).mean()), np.array([by_noise.mean() * inner, by_temperature.mean()])

    bounds = [(-8.5, 8.5), (math.log(0.05), math.log(20.0))]
    best = min(
        (
            minimize(objective, np.array([z0, t0]), jac=True, method="L-BFGS-B", bounds=bounds)
            for z0, t0 in ((-4.0, 0.0), (-1.4, 1.0))
        ),
        key=lambda r: float(r.fun),
    )
    noise, temperature = unpack(best.x)
    if fixed is not None:
        return LabelModel(noise, temperature, noise_error if noise_error is not None else math.nan, len(f))
    pi, _ = chosen(temperature)
    p = (1 - noise) * pi + noise / (c - 1) * (1 - pi)
    score = (-pi + (1 - pi) / (c - 1)) / np.maximum(p, 1e-300)
    information = float(np.square(score).sum())
    return LabelModel(noise, temperature, information**-0.5 if information > 0 else math.nan, len(f))


def join_opinions(
    leave_one_out: Tensor, y: Tensor, refits: Tensor | None = None, trajectory: Tensor | None = None
) -> tuple[LabelModel, Tensor]:
    """One label model of several opinions: their tempered log-probabilities are added (a product of experts).

    Only refits did not see the label: where there are any, the others are tempered at their ε, since what leaks of a
    label into an opinion would pass for a smaller share of wrong ones. For the same reason ε stays theirs in the end
    where a trajectory is among the opinions.

    Args:
        leave_one_out: (n, C) outputs; y: (n,) observed labels.
        refits: (n, C) outputs of networks that did not see the example.
        trajectory: (n, C) outputs averaged over the training.

    Returns:
        The model, and the joined outputs (n, C) it judges by.
    """
    first = None if refits is None else fit_label_model(refits, y)
    known: dict[str, float] = {} if first is None else {"noise": first.noise, "noise_error": first.noise_error}
    joined = torch.zeros_like(leave_one_out, dtype=torch.float64)
    if first is not None and refits is not None:
        joined += torch.log_softmax(refits.double() / first.temperature, -1)
    for f in (leave_one_out, trajectory):
        if f is not None:
            joined += torch.log_softmax(f.double() / fit_label_model(f, y, **known).temperature, -1)
    return fit_label_model(joined, y, **({} if trajectory is None else known)), joined
