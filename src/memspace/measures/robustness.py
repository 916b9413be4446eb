"""How much the weights may move before the memory suffers: Gaussian noise and rounding, predicted and measured.

To second order E KL(p_θ ‖ p_{θ+σε}) = ½σ² tr F. The prediction is made from the metric, the measurement by moving a
copy of the weights; both on the same examples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memspace.passes.outputs import outputs
from memspace.progress import Progress
from memspace.task.data import Data
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["NoiseCurve", "departure", "noise_curve", "quantised", "sigma_at_accuracy_loss"]


@dataclass(frozen=True)
class NoiseCurve:
    """Per σ: predicted and measured KL (nats), its standard error, loss and accuracy with standard errors."""

    sigma: np.ndarray
    predicted: np.ndarray
    kl: np.ndarray
    kl_error: np.ndarray
    loss: np.ndarray
    loss_error: np.ndarray
    accuracy: np.ndarray
    accuracy_error: np.ndarray
    draws: int
    n: int
    base_loss: float
    base_accuracy: float


def _mean_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(1), values.std(1, ddof=1) / math.sqrt(values.shape[1])


def noise_curve(
    task: Task,
    space: ParameterSpace,
    trace: float,
    *,
    index: Tensor | None,
    predicted: tuple[float, ...],
    pairs: int,
    seed: int,
    progress: Progress,
) -> NoiseCurve:
    """KL, loss and accuracy under weight noise at the σ for which ½σ² tr F equals each of ``predicted`` (nats).

    Draws come in pairs ±ε, which cancels every odd order; the standard error is over pairs.

    Args:
        trace: tr F on the same examples.
    """
    f0, y = outputs(task, task.train, index=index)
    weight = task.likelihood.weight(f0, y)
    count = float(weight.sum())
    theta = space.flat(task.model)
    generator = torch.Generator().manual_seed(seed)
    sigma = np.sqrt(2 * np.asarray(predicted) / trace)
    kl, loss, accuracy = (np.zeros((len(sigma), pairs)) for _ in range(3))

    def score(state: dict[str, Tensor]) -> tuple[float, float, float]:
        f, _ = outputs(task, task.train, state=state, index=index)
        hit = (task.likelihood.predict(f) == y).to(f.dtype) if task.likelihood.classifies else torch.zeros_like(weight)
        return (
            float((task.likelihood.kl(f0.double(), f.double()) * weight).sum()) / len(f0),
            float(task.likelihood.nll(f.double(), y).sum()) / len(f0),
            float((hit.reshape(weight.shape[0], -1).mean(1) if hit.dim() > weight.dim() else hit * weight).sum())
            / (count if hit.dim() <= weight.dim() else len(f0)),
        )

    for pair in progress.track(range(pairs), "weight noise", pairs):
        noise = torch.randn(space.size, generator=generator, dtype=torch.float64).to(theta)
        for j, s in enumerate(sigma):
            both = [score(space.unpack(theta + float(s) * sign * noise)) for sign in (1, -1)]
            kl[j, pair], loss[j, pair], accuracy[j, pair] = (sum(v) / 2 for v in zip(*both, strict=True))
    base = score({})
    k, ke = _mean_error(kl)
    lo, le = _mean_error(loss)
    a, ae = _mean_error(accuracy)
    return NoiseCurve(sigma, np.asarray(predicted), k, ke, lo, le, a, ae, 2 * pairs, len(f0), base[1], base[2])


def departure(curve: NoiseCurve, share: float = 0.1) -> float | None:
    """The predicted KL (nats) beyond which measured and predicted differ by more than ``share``; None if never."""
    ratio = curve.kl / curve.predicted
    off = np.abs(ratio - 1) > share
    if not off.any():
        return None
    first = len(off) - int(np.argmin(off[::-1])) if not off.all() else 0
    if first >= len(off):
        return None
    if first == 0:
        return float(curve.predicted[0])
    x = np.log(curve.predicted[first - 1 : first + 1])
    d = np.abs(ratio[first - 1 : first + 1] - 1)
    return float(np.exp(x[0] + (share - d[0]) / (d[1] - d[0]) * (x[1] - x[0])))


def sigma_at_accuracy_loss(curve: NoiseCurve, loss: float = 0.01) -> float | None:
    """σ at which the mean accuracy has fallen by ``loss`` (interpolated in log σ); None where it never does."""
    drop = curve.base_accuracy - curve.accuracy
    over = np.nonzero(drop >= loss)[0]
    if len(over) == 0 or over[0] == 0:
        return None
    k = int(over[0])
    x = np.log(curve.sigma[k - 1 : k + 1])
    return float(np.exp(x[0] + (loss - drop[k - 1]) / (drop[k] - drop[k - 1]) * (x[1] - x[0])))


def quantised(task: Task, bits: int) -> dict[str, Tensor]:
    """The trainable weights rounded to ``bits`` bits: symmetric, one scale per output row; vectors are left alone."""
    levels = 2 ** (bits - 1) - 1
    out = {}
    for name, p in task.model.named_parameters():
        w = p.detach()
        if not p.requires_grad or w.dim() < 2:
            continue
        scale = w.flatten(1).abs().amax(1).clamp_min(1e-30) / levels
        scale = scale.reshape(-1, *([1] * (w.dim() - 1)))
        out[name] = (w / scale).round().clamp(-levels, levels) * scale
    return out


def split(data: Data | None, fallback: Data) -> tuple[Data, str]:
    """Test data where there are any, else the training data, with the word for it."""
    return (data, "test") if data is not None else (fallback, "training")
