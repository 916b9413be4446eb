"""Complexity of a trained network, in four readings that are always told apart (see docs/theory.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memspace.metric.metric import FisherMetric
from memspace.task.likelihood import Likelihood

__all__ = [
    "Spectrum",
    "description_bits",
    "fisher_rao_norm",
    "gain_curve",
    "information_bits",
    "spectrum_summary",
]

LN2 = math.log(2.0)


def fisher_rao_norm(likelihood: Likelihood, f: Tensor, y: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
    """Per-example terms of θᵀFθ: with the model's Fisher information, and the empirical form, (n,) nats each.

    Args:
        moved: Jθ per example, (n, ..., C). Liang et al. 2019, eq. 8 (the empirical form is theirs).
    """
    f, moved = f.double(), moved.double()
    weight = likelihood.weight(f, y).unsqueeze(-1)
    exact = (moved * likelihood.fisher_matvec(f, moved) * weight).flatten(1).sum(1)
    residual = (likelihood.residual(f, y) * moved).flatten(1).sum(1)
    return exact, residual.square()


def gain_curve(likelihood: Likelihood, f: Tensor, y: Tensor, moved: Tensor, gains: np.ndarray) -> np.ndarray:
    """θᵀFθ after the last layer is multiplied by each gain c: accuracy never changes, every Fisher quantity does."""
    out = []
    for c in gains:
        exact, _ = fisher_rao_norm(likelihood, c * f.double(), y, c * moved.double())
        out.append(float(exact.mean()))
    return np.asarray(out)


def information_bits(metric: FisherMetric, damping: float) -> float:
    """½ Σ log2(1 + λ_k/γ), γ = α/N: what the data told the weights under the prior N(0, I/α), in bits."""
    return metric.trace(lambda x: torch.log1p(x / damping)).value / (2 * LN2)


def description_bits(
    loss: float, n: int, theta: Tensor, metric: FisherMetric, damping: float
) -> tuple[float, float, float]:
    """Bits to send the labels with this network: residual loss, weights against the prior, their precision.

    The Laplace evidence code: N·L + ½ α‖θ‖² + ½ log det(I + F/γ), α = Nγ (MacKay 1992).
    """
    residual = n * loss / LN2
    prior = 0.5 * n * damping * float(theta.double().square().sum()) / LN2
    return residual, prior, information_bits(metric, damping)


@dataclass(frozen=True)
class Spectrum:
    """Readings of a set of eigenvalues; ``flat`` is the share of the P directions below 1e-6 of the largest."""

    largest: float
    trace: float
    effective_rank: float
    participation: float
    flat: float


def spectrum_summary(values: Tensor, size: int) -> Spectrum:
    """From the non-zero eigenvalues of F (the other of the P are zero)."""
    v = values.double().clamp_min(0)
    total, top = float(v.sum()), float(v.max()) if len(v) else 0.0
    if total <= 0:
        return Spectrum(0.0, 0.0, 0.0, 0.0, 1.0)
    p = v / total
    entropy = -float((p * torch.log(p.clamp_min(1e-300))).sum())
    strong = int((v > 1e-6 * top).sum())
    return Spectrum(top, total, math.exp(entropy), total**2 / float(v.square().sum()), 1 - strong / size)
