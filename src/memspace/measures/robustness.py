"""How much the weights may change before predictions do: Gaussian noise and rounding, predicted and measured.

To second order E KL(p_θ ‖ p_{θ+σε}) = ½σ² tr F. The prediction is made from the metric, the measurement by moving a
copy of the weights; both on the same examples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memspace.intervals import margin
from memspace.measures.sensitivity import predicted_kl
from memspace.measures.values import Budget
from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["Departure", "NoiseCurve", "departure", "noise_curve", "quantised", "sigma_at_accuracy_loss"]


@dataclass(frozen=True)
class NoiseCurve:
    """Divergence, loss and accuracy by the standard deviation σ of weight noise.

    Args:
        sigma: (S,) weight units, ascending.
        predicted: (S,) KL to second order, nats.
        kl: (S,) measured KL, nats.
        kl_error: (S,) standard errors.
        loss: (S,) nats.
        loss_error: (S,) standard errors, on draws/2 − 1 degrees of freedom.
        accuracy: (S,) shares; 0 without classes.
        accuracy_error: (S,) standard errors, on draws/2 − 1 degrees of freedom.
        draws: of the noise, both signs counted.
        n: examples.
        base_loss: without noise, nats.
        base_accuracy: without noise.
        kl_df: degrees of freedom behind ``kl_error``.
    """

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
    kl_df: int

    @property
    def kl_margin(self) -> np.ndarray:
        """Half the width of the 95% interval of ``kl``, by Student's t over pairs of draws."""
        return np.asarray(margin(self.kl_error, self.kl_df))

    @property
    def accuracy_margin(self) -> np.ndarray:
        """The same of ``accuracy``."""
        return np.asarray(margin(self.accuracy_error, self.draws // 2 - 1))


def _mean_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(1), values.std(1, ddof=1) / math.sqrt(values.shape[1])


def noise_curve(
    task: Task,
    space: ParameterSpace,
    trace: float,
    budget: Budget,
    *,
    exact_trace: bool,
    index: Tensor | None,
    predicted: tuple[float, ...],
    pairs: int,
) -> NoiseCurve:
    """Measure KL, loss and accuracy under weight noise at the σ for which ½σ² tr F equals each predicted divergence.

    Draws come in pairs ±ε, which cancels every odd order; the standard error is over pairs.

    Args:
        task: the network and its data.
        space: the parameters that move.
        trace: tr F on the same examples, nats.
        budget: seed and progress.
        exact_trace: whether ``trace`` is exact for them. Then ½σ² εᵀFε, whose mean is known, serves as a control
            variate of each pair's KL (one forward-mode product per pair). At small σ this removes most of the spread
            over directions.
        index: (m,) training examples; None: all.
        predicted: divergences predicted to second order, nats, ascending.
        pairs: draws of the noise, each with both signs.

    Returns:
        the curve over σ.
    """
    f0, y = outputs(task, task.train, index=index)
    weight = task.likelihood.weight(f0, y)
    count = float(weight.sum())
    theta = space.flat(task.model)
    generator = torch.Generator().manual_seed(budget.seed + 8)
    sigma = np.sqrt(2 * np.asarray(predicted) / trace)
    kl, loss, accuracy = (np.zeros((len(sigma), pairs)) for _ in range(3))
    quadratic = np.zeros(pairs)
    operator = FisherOperator(task, space, index=index)

    def score(state: dict[str, Tensor]) -> tuple[float, float, float]:
        f, _ = outputs(task, task.train, state=state, index=index)
        hit = task.likelihood.hits(f, y) if task.likelihood.classifies else torch.zeros_like(weight)
        return (
            float((task.likelihood.kl(f0.double(), f.double()) * weight).sum()) / len(f0),
            float(task.likelihood.nll(f.double(), y).sum()) / len(f0),
            float((hit.reshape(weight.shape[0], -1).mean(1) if hit.dim() > weight.dim() else hit * weight).sum())
            / (count if hit.dim() <= weight.dim() else len(f0)),
        )

    for pair in budget.progress.track(range(pairs), "weight noise", pairs):
        noise = torch.randn(space.size, generator=generator, dtype=torch.float64).to(theta)
        if exact_trace:
            quadratic[pair] = float(predicted_kl(operator, task, noise).mean())
        for j, s in enumerate(sigma):
            both = [score(space.unpack(theta + float(s) * sign * noise)) for sign in (1, -1)]
            kl[j, pair], loss[j, pair], accuracy[j, pair] = (sum(v) / 2 for v in zip(*both, strict=True))
    base = score({})
    controlled = exact_trace and pairs >= 4  # fewer are too few for a slope
    k, ke = _controlled(kl, sigma[:, None] ** 2 * quadratic, np.asarray(predicted)) if controlled else _mean_error(kl)
    lo, le = _mean_error(loss)
    a, ae = _mean_error(accuracy)
    df = pairs - 2 if controlled else pairs - 1
    return NoiseCurve(sigma, np.asarray(predicted), k, ke, lo, le, a, ae, 2 * pairs, len(f0), base[1], base[2], df)


def _controlled(values: np.ndarray, control: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of ``values`` (S, D) and its standard error, with a control of known ``mean`` removed by regression.

    The estimate is the regression line at the control's mean; its error, on D − 2 degrees of freedom, holds that of
    the line's slope: s² (1/D + (c̄ − μ)²/Σ(c − c̄)²).
    """
    count = values.shape[1]
    centred = control - control.mean(1, keepdims=True)
    square = np.maximum((centred**2).sum(1), 1e-300)
    slope = (values * centred).sum(1) / square
    away = control.mean(1) - np.broadcast_to(mean, control.shape[:1])
    rest = values - values.mean(1, keepdims=True) - slope[:, None] * centred
    spread = (rest**2).sum(1) / (count - 2)
    return values.mean(1) - slope * away, np.sqrt(spread * (1 / count + away**2 / square))


@dataclass(frozen=True)
class Departure:
    """The predicted KL from which prediction and measurement differ by more than a given share.

    Args:
        value: nats; None: prediction and measurement agree over the whole curve.
        low: lower end of the 95% interval, nats.
        high: upper end; infinite where the difference is not certain within the curve.
    """

    value: float | None
    low: float
    high: float


def departure(curve: NoiseCurve, share: float = 0.1) -> Departure:
    """Find where the second order stops being accurate.

    Args:
        curve: predicted and measured divergence.
        share: relative difference that counts as accurate.

    Returns:
        the divergence, with an interval from that of the measured KL.
    """
    off = np.abs(curve.kl / curve.predicted - 1)
    half = curve.kl_margin / curve.predicted
    low, high = _last_crossing(curve, off + half, share), _last_crossing(curve, np.maximum(off - half, 0), share)
    top = float(curve.predicted[-1])
    return Departure(_last_crossing(curve, off, share), top if low is None else low, math.inf if high is None else high)


def _last_crossing(curve: NoiseCurve, off: np.ndarray, share: float) -> float | None:
    """The predicted KL above which ``off`` stays over ``share`` (interpolated in its logarithm), or None."""
    over = off > share
    if not over[-1]:
        return None
    if over.all():
        return float(curve.predicted[0])
    first = len(over) - int(np.argmin(over[::-1]))
    x = np.log(curve.predicted[first - 1 : first + 1])
    d = off[first - 1 : first + 1]
    return float(np.exp(x[0] + (share - d[0]) / (d[1] - d[0]) * (x[1] - x[0])))


def sigma_at_accuracy_loss(curve: NoiseCurve, loss: float = 0.01) -> tuple[float, tuple[float, float] | None] | None:
    """Find the σ at which the mean accuracy has fallen by a given amount, interpolated in log σ.

    Args:
        curve: accuracy by σ.
        loss: fall of the accuracy.

    Returns:
        σ with its 95% interval, from that of the accuracies; the interval is None where an end lies outside the curve.
        None where accuracy never falls so far.
    """
    drop = curve.base_accuracy - curve.accuracy
    half = curve.accuracy_margin
    value, low, high = (_first_fall(curve, d, loss) for d in (drop, drop + half, drop - half))
    if value is None:
        return None
    return value, None if low is None or high is None else (low, high)


def _first_fall(curve: NoiseCurve, drop: np.ndarray, loss: float) -> float | None:
    over = np.nonzero(drop >= loss)[0]
    if len(over) == 0 or over[0] == 0:
        return None
    k = int(over[0])
    x = np.log(curve.sigma[k - 1 : k + 1])
    return float(np.exp(x[0] + (loss - drop[k - 1]) / (drop[k] - drop[k - 1]) * (x[1] - x[0])))


def quantised(task: Task, space: ParameterSpace, bits: int) -> dict[str, Tensor]:
    """Round weight matrices to few bits: symmetric, one scale per output row.

    Args:
        task: the network.
        space: the parameters.
        bits: of a weight, sign included.

    Returns:
        name → rounded matrix; vectors are left out.
    """
    levels = 2 ** (bits - 1) - 1
    out = {}
    for name, p in space.parameters(task.model).items():
        w = p.detach()
        if w.dim() < 2:
            continue
        scale = w.flatten(1).abs().amax(1).clamp_min(1e-30) / levels
        scale = scale.reshape(-1, *([1] * (w.dim() - 1)))
        out[name] = (w / scale).round().clamp(-levels, levels) * scale
    return out


def split(data: Data | None, fallback: Data) -> tuple[Data, str]:
    """Return the test data where there are any, else the training data.

    Args:
        data: test data or None.
        fallback: training data.

    Returns:
        the data, and ``"test"`` or ``"training"``.
    """
    return (data, "test") if data is not None else (fallback, "training")
