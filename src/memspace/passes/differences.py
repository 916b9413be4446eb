"""A derivative held against differences of what it is the derivative of: once per network, in float64.

Derivatives of derivatives go through rules of torch that nothing else uses, and some are wrong without a word. A
central difference needs no rule. Along a direction d with steps h and h/2 its error falls by four where the function is
smooth; where a kink (of a ReLU) lies in between the two disagree and the direction says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Curve", "Difference", "against_differences"]

Curve = Callable[[float], Tensor]  # t ↦ value at θ + t·d

STEP = 1e-6  # relative to ‖θ‖: error of a difference about STEP², of rounding eps/STEP; few kinks lie in between
SMOOTH = 1e-4  # two steps that agree to this are believed
ALLOWED = 1e-3  # of the size of a derivative


@dataclass(frozen=True)
class Difference:
    """``off``: how far the derivative is from the difference, relative to the larger; ``tried``: directions read."""

    off: float
    tried: int

    @property
    def right(self) -> bool:
        """Whether they agree."""
        return self.off <= ALLOWED


def against_differences(curves: Iterable[tuple[Curve, Tensor, float]]) -> Difference | None:
    """The first direction along which differences can be believed; None where there is none (kinks everywhere).

    Args:
        curves: for each direction the function along it, its claimed derivative at 0 in the shape of a value, and the
            size that counts as nothing (rounding of what cancels).
    """
    for tried, (at, claimed, least) in enumerate(curves, start=1):
        wide, narrow = (_central(at, h) for h in (STEP, STEP / 2))
        size = max(float(narrow.norm()), float(claimed.double().norm()), least)
        if not size > 0:
            return Difference(0.0, tried)
        if float((wide - narrow).norm()) <= SMOOTH * size:
            return Difference(float((narrow - claimed.double()).norm()) / size, tried)
    return None


def _central(at: Curve, h: float) -> Tensor:
    # Gradients stay as they are: what is computed without them is a constant for forward mode (``written_out``).
    return (at(h).detach().double() - at(-h).detach().double()) / (2 * h)
