"""The limit of many layers: a residual network with one smooth velocity field against the differential equation.

h_{l+1} = h_l + v(l/L, h_l)/L is Euler's method for ḣ = v(t, h), so outputs and depth action differ from those of the
flow by O(1/L) (E 2017; Chen et al. 2018b).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchdiffeq import odeint

from memspace.action.kinetic import steps_of

__all__ = ["ContinuousLimit", "continuous_limit"]

Field = Callable[[Tensor, Tensor], Tensor]  # (t, h) ↦ velocity


@dataclass(frozen=True)
class ContinuousLimit:
    """Residual networks of growing depth against the flow.

    Args:
        layers: L of each.
        outputs: largest difference of h_L over examples and features, relative to the flow's largest entry.
        actions: difference of the mean action, relative.
        action: of the flow, ∫ ½‖ḣ‖² dt, mean over examples.
    """

    layers: tuple[int, ...]
    outputs: tuple[float, ...]
    actions: tuple[float, ...]
    action: float

    def order(self, errors: Sequence[float]) -> float:
        """Measure how fast errors fall between the last two depths.

        Args:
            errors: one per depth.

        Returns:
            1 where they halve as L doubles; NaN without errors.
        """
        a, b = errors[-2:]
        return math.log(a / b) / math.log(self.layers[-1] / self.layers[-2]) if min(a, b) > 0 else math.nan


def continuous_limit(
    field: Field, h: Tensor, layers: Sequence[int] = (8, 16, 32, 64), *, tolerance: float = 1e-10
) -> ContinuousLimit:
    """Compare h_{l+1} = h_l + v/L with ḣ = v over unit time (Dormand–Prince 5(4)).

    Args:
        field: (t, h) ↦ v, smooth; for a module, ``lambda t, h: module(h)``.
        h: where both start, (n, ...).
        layers: depths, growing.
        tolerance: of the ODE solver.

    Returns:
        Errors of outputs and action at every depth.

    Raises:
        ValueError: fewer than two depths.
    """
    if len(layers) < 2:
        raise ValueError(f"an order takes two depths, got {list(layers)}")
    h = h.double()
    with torch.no_grad():
        end, flow_actions = _flow(field, h, tolerance)
        action = float(flow_actions.mean())
        outputs, actions = [], []
        for count in layers:
            states = [h]
            for k in range(count):
                states.append(states[-1] + field(torch.tensor(k / count, dtype=h.dtype), states[-1]) / count)
            outputs.append(float((states[-1] - end).abs().max() / end.abs().max()))
            actions.append(abs(float(steps_of(tuple(states)).action.mean()) / action - 1))
    return ContinuousLimit(tuple(layers), tuple(outputs), tuple(actions), action)


def _flow(field: Field, h: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Where the flow ends, and ∫ ½‖ḣ‖² dt of every example, solved along."""

    def both(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        v = field(t, state[0])
        return v, v.square().flatten(1).sum(1) / 2

    at = torch.tensor([0.0, 1.0], dtype=h.dtype)
    start = (h, torch.zeros(len(h), dtype=h.dtype))
    ends, actions = odeint(both, start, at, rtol=tolerance, atol=tolerance, method="dopri5")
    return ends[-1], actions[-1]
