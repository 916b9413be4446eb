"""A derivative compared with central differences of its function: once per network, in float64.

Derivatives of derivatives go through rules of torch that nothing else uses, and some are silently wrong. A central
difference needs no rule. Along a direction with steps h and h/2 its error falls by four where the function is smooth.
Where a kink (of a ReLU) lies in between, the two differences disagree and the direction shows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Curve", "Difference", "against_differences"]

Curve = Callable[[float], Tensor]  # t ↦ value at θ + t·d

STEP = 1e-6  # relative to ‖θ‖: error of a difference about STEP², of rounding eps/STEP; few kinks lie in between
SMOOTH = 1e-4  # relative: differences at two steps that agree to this are taken as right
ALLOWED = 1e-3  # of the size of a derivative


@dataclass(frozen=True)
class Difference:
    """Result of the comparison.

    Args:
        off: distance of the derivative from the difference, relative to the larger.
        tried: number of directions read.
    """

    off: float
    tried: int

    @property
    def right(self) -> bool:
        """Whether derivative and difference agree."""
        return self.off <= ALLOWED


def against_differences(curves: Iterable[tuple[Curve, Tensor, float]]) -> Difference | None:
    """Compare a derivative with differences along the first direction where the function is smooth.

    Args:
        curves: for every direction the function along it, its claimed derivative at 0 in the shape of a value, and the
            size below which a derivative is rounding.

    Returns:
        The comparison; None where no direction is smooth (kinks everywhere).
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
