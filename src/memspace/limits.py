"""What a setting may be, said once for the Python interface and the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from memspace.errors import SettingsError

__all__ = [
    "BYTES",
    "CHANCE",
    "COUNT",
    "DAMPING",
    "DRAW",
    "KEPT",
    "PART",
    "POSITIVE",
    "RANKED",
    "SEED",
    "SEVERAL",
    "SHARE",
    "SIZE",
    "WHOLE",
    "Limit",
    "one_of",
]


@dataclass(frozen=True)
class Limit:
    """A range of numbers.

    Args:
        low: its lower end, inside.
        high: its upper end, inside unless ``below`` says that it is not.
        whole: only whole numbers; one written as 4.0 counts as 4.
        below: values are smaller than ``high``.
    """

    low: float
    high: float
    whole: bool = False
    below: bool = False

    def __call__(self, value: Any, name: str, where: str = "settings") -> Any:
        """Check a value.

        Args:
            value: a number, or a tensor or array that holds one.
            name: of the setting, as the user writes it.
            where: it was given, for the message.

        Returns:
            The value as an int or a float.

        Raises:
            SettingsError: it is no number, or out of range.
        """
        number = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise self._refused(f"{name} is {_short(value)}, not a number", where)
        if not (self.low <= number <= self.high) or (self.below and number == self.high):
            raise self._refused(f"{name} is out of range: {_short(value)}", where)
        if self.whole:
            if number != math.floor(number):
                raise self._refused(f"{name} is {_short(value)}, not a whole number", where)
            return int(number)
        return float(number)

    def optional(self, value: Any, name: str) -> Any:
        """Check a value that may be None.

        Args:
            value: a number, a tensor or array that holds one, or None.
            name: of the setting, as the user writes it.

        Returns:
            The value as an int or a float, or None.
        """
        return None if value is None else self(value, name)

    @property
    def span(self) -> str:
        """The range in words: ``of 1 or more``, ``from 0 to below 1``."""
        if self.high == math.inf or (self.whole and self.high >= 2**31 - 1):
            return f"of {self.low:g} or more"
        return f"from {self.low:g} to {'below ' if self.below else ''}{self.high:g}"

    def _refused(self, what: str, where: str) -> SettingsError:
        kind = "a whole number" if self.whole else "a number"
        return SettingsError(what, where=where, remedy=f"give {kind} {self.span}")


SEED = Limit(0, 2**31 - 1, whole=True)  # room for the offsets that are added, within what numpy's generators take
BYTES = Limit(1, 2**60, whole=True)
COUNT = Limit(1, 2**31, whole=True)
WHOLE = Limit(0, 2**31, whole=True)
SEVERAL = Limit(2, 2**31, whole=True)  # a spread needs two
RANKED = Limit(10, 2**31, whole=True)  # an order of fewer says nothing
SHARE = Limit(0, 1, below=True)
PART = Limit(1e-9, 1, below=True)  # a share that is neither nothing nor all
KEPT = Limit(1e-9, 1)  # a share that may be all
CHANCE = Limit(1e-300, 1, below=True)
DRAW = Limit(0, 2**53, whole=True)  # seeds of single draws: a setting with the offsets added
# A float32 engine divides by N·γ and multiplies by it: within these ends neither leaves the finite numbers.
DAMPING = Limit(1e-30, 1e30)
POSITIVE = Limit(1e-300, 1e300)
SIZE = Limit(0, 1e300)


def one_of(value: Any, known: tuple[str, ...], name: str) -> str:
    """Check that a value is one of the known words.

    Args:
        value: what was given.
        known: the words.
        name: what they are, for the message.

    Returns:
        The value.

    Raises:
        SettingsError: it is none of them.
    """
    if isinstance(value, str) and value in known:
        return value
    raise SettingsError(
        f"there is no {name} {_short(value)}", where="settings", remedy=f"give one of {', '.join(known)}"
    )


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
