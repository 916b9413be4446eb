"""The spectrum of F that a random wide network must have (Karakida et al. 2019).

For weights N(0, σ_w²/fan-in), biases N(0, σ_b²), independent standard inputs and a linear output with unit Gaussian
noise, the rows of the root of F are nearly orthogonal between outputs. Between examples their inner products
concentrate on two numbers, κ₁ (an example with itself) and κ₂ (with another). The Gram matrix of the rows then has one
large eigenvalue per output, and mean, second moment and maximum follow. Deviations shrink as 1/width. The prediction
holds at initialisation only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["ACTIVATIONS", "Activation", "MeanField", "mean_field"]

_Array = npt.NDArray[np.float64]
Moment = Callable[[float, float], float]


@dataclass(frozen=True)
class Activation:
    """Moments of an activation φ at Gaussian u, v of variance q and covariance c, as functions of (q, c).

    Args:
        value: E φ(u)φ(v).
        slope: E φ'(u)φ'(v).
    """

    value: Moment
    slope: Moment


def _relu(q: float, c: float) -> float:
    r = min(1.0, c / q)
    return q / (2 * math.pi) * (math.sqrt(1 - r * r) + r * (math.pi / 2 + math.asin(r)))


def _relu_slope(q: float, c: float) -> float:
    return (math.pi / 2 + math.asin(min(1.0, c / q))) / (2 * math.pi)


def _erf(q: float, c: float) -> float:
    return 2 / math.pi * math.asin(c / (1 + q))


def _erf_slope(q: float, c: float) -> float:
    return 2 / math.pi / math.sqrt((1 + q) ** 2 - c * c)


def _quadrature(fn: Callable[[_Array], _Array]) -> Moment:
    """E fn(u) fn(v) by Gauss–Hermite: u and v share a part of variance c and have independent ones of q − c."""
    x, w = np.polynomial.hermite_e.hermegauss(64)
    w = w / w.sum()

    def moment(q: float, c: float) -> float:
        shared, independent = math.sqrt(max(c, 0.0)), math.sqrt(max(q - abs(c), 0.0))
        inner = fn(shared * x[:, None] + independent * x[None, :]) @ w
        return float(w @ inner**2)

    return moment


ACTIVATIONS = {
    "relu": Activation(_relu, _relu_slope),
    "erf": Activation(_erf, _erf_slope),  # erf(x/√2)
    "tanh": Activation(_quadrature(np.tanh), _quadrature(lambda x: 1 - np.tanh(x) ** 2)),
    "linear": Activation(lambda q, c: c, lambda q, c: 1.0),
}


@dataclass(frozen=True)
class MeanField:
    """Predicted statistics of the eigenvalues of F over all P parameters; unit nats per unit parameter².

    Args:
        mean: tr F / P.
        second_moment: tr F² / P.
        largest: the largest eigenvalue; about ``outputs`` of them lie there.
        learning_rate: 2/largest, above which gradient descent on the squared error does not converge.
        kappa: (κ₁, κ₂).
    """

    mean: float
    second_moment: float
    largest: float
    learning_rate: float
    kappa: tuple[float, float]


def mean_field(
    widths: Sequence[int],
    outputs: int,
    examples: int,
    *,
    activation: str = "relu",
    weight_variance: float = 2.0,
    bias_variance: float = 0.0,
) -> MeanField:
    """Compute the prediction for a fully connected network with a linear output.

    Where κ₂ is 0 (odd activation, no bias) no eigenvalue stands out and ``largest`` is only a lower bound.

    Args:
        widths: of the input and every hidden layer, (M_0, ..., M_{L-1}); all large.
        outputs: C, small compared with the widths.
        examples: N.
        activation: a key of ``ACTIVATIONS``.
        weight_variance: σ_w², weights having variance σ_w²/fan-in.
        bias_variance: σ_b².

    Returns:
        The predicted statistics, to leading order in 1/width.

    Raises:
        ValueError: no hidden layer, an unknown activation, or a size below 1.
    """
    if len(widths) < 2 or min(*widths, outputs, examples) < 1:
        raise ValueError(f"mean field needs an input, a hidden layer and sizes of at least 1, got {tuple(widths)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; one of {', '.join(ACTIVATIONS)}")
    phi = ACTIVATIONS[activation]
    same, cross = [1.0], [0.0]  # mean φ² of a layer's units, and mean product between two examples; the input's first
    slopes: list[tuple[float, float]] = []
    for _ in widths[1:]:
        q, c = weight_variance * same[-1] + bias_variance, weight_variance * cross[-1] + bias_variance
        same.append(phi.value(q, q))
        cross.append(phi.value(q, c))
        slopes.append((phi.slope(q, q), phi.slope(q, c)))
    back, back_cross = [1.0], [1.0]  # squared cotangent of a layer, summed over units; the output's first
    for slope, slope_cross in reversed(slopes):
        back.append(weight_variance * back[-1] * slope)
        back_cross.append(weight_variance * back_cross[-1] * slope_cross)
    # Inner products of two rows, Σ over layers of fan-in × forward × backward.
    norm = sum(m * b * a for m, b, a in zip(widths, reversed(back), same, strict=True))
    inner = sum(m * b * a for m, b, a in zip(widths, reversed(back_cross), cross, strict=True))
    size = sum(a * b for a, b in pairwise(widths))  # to leading order
    n = examples
    largest = (inner * (n - 1) + norm) / n
    second = outputs * ((n - 1) / n * inner**2 + norm**2 / n) / size
    scale = widths[0] / size
    return MeanField(outputs * norm / size, second, largest, 2 / largest, (norm * scale, inner * scale))
