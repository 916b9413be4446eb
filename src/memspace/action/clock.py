"""Whether the sum of learning rates is a time: along θ̇ = −∇L the loss falls by ‖∇L‖² per unit of it.

Adam and its kin divide the gradient by its own size: their rates say how far a weight moves and not for how long.
Momentum walks 1/(1−μ) times as far as its rates say. The natural gradient's rates are a time too, its own; it is known
by name only, since other optimisers buy by chance what it would buy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor

__all__ = ["TIMED", "no_time"]

TIMED = ("SGD", "NaturalGradient")  # what Run.optimiser says of those whose rates are a time
OFF = 2.0  # factor that the loss bought may differ by from what such steps buy
PART = 0.8  # of the loss bought that is looked at: what is left to buy at last is as small as the noise


def no_time(rates: Sequence[float], time: Sequence[float], loss: Tensor, optimiser: str = "") -> str:
    """Say why the recorded times are no time in which a gradient is followed.

    Args:
        rates: ‖∇L‖² of the training loss at every checkpoint.
        time: recorded time at every checkpoint.
        loss: (S,) nats, of some of the training examples.
        optimiser: as the recording names it; empty: not known, judged by what the steps bought.

    Returns:
        The reason; empty where the times are one.
    """
    if optimiser:
        return "" if optimiser in TIMED else f"the learning rates of {optimiser} are no time"
    bought = (loss[0] - loss).tolist()
    most = max(bought)
    if most <= 0:
        return "the loss did not fall, which would tell whether the learning rates are a time"
    end = next(k for k, b in enumerate(bought) if b >= PART * most)
    due = [(time[k + 1] - time[k]) * (rates[k] + rates[k + 1]) / 2 for k in range(end)]
    cuts = [0]
    for share in (1 / 3, 2 / 3, 1.0):  # spans in each of which about as much was bought
        cuts += [k for k in [next(k for k, b in enumerate(bought) if b >= share * bought[end])] if k > cuts[-1]]
    for a, b in itertools.pairwise(cuts):
        expected = sum(due[a:b])
        if not expected / OFF <= bought[b] - bought[a] <= expected * OFF:
            return (
                "the loss did not fall at the rate at which steps along the gradient lower it in the recorded time: "
                "the learning rates of this optimiser are none"
            )
    return ""
