"""What a setting may be, said once for the Python interface and the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from memspace.errors import SettingsError

__all__ = ["BYTES", "COUNT", "DAMPING", "DRAW", "POSITIVE", "SEED", "SHARE", "SIZE", "WHOLE", "Limit", "one_of"]


@dataclass(frozen=True)
class Limit:
    """A range of numbers.

    Args:
        low, high: its ends, both inside unless ``below`` says that ``high`` is not.
        whole: only whole numbers; one written as 4.0 counts as 4.
        below: values are smaller than ``high``.
    """

    low: float
    high: float
    whole: bool = False
    below: bool = False

    def __call__(self, value: Any, name: str, where: str = "settings") -> Any:
        """The value as an int or a float.

        Args:
            name: of the setting, as the user writes it; where: it was given, for the message.

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
        """As a call, where None is allowed too."""
        return None if value is None else self(value, name)

    def _refused(self, what: str, where: str) -> SettingsError:
        kind = "a whole number" if self.whole else "a number"
        if self.high == math.inf or (self.whole and self.high >= 2**31):
            span = f"of {self.low:g} or more"
        else:
            span = f"from {self.low:g} to {'below ' if self.below else ''}{self.high:g}"
        return SettingsError(what, where=where, remedy=f"give {kind} {span}")


SEED = Limit(0, 2**31 - 1, whole=True)  # room for the offsets that are added, within what numpy's generators take
BYTES = Limit(1, 2**60, whole=True)
COUNT = Limit(1, 2**31, whole=True)
WHOLE = Limit(0, 2**31, whole=True)
SHARE = Limit(0, 1, below=True)
DRAW = Limit(0, 2**53, whole=True)  # seeds of single draws: a setting with the offsets added
# A float32 engine divides by N·γ and multiplies by it: within these ends neither leaves the finite numbers.
DAMPING = Limit(1e-30, 1e30)
POSITIVE = Limit(1e-300, 1e300)
SIZE = Limit(0, 1e300)


def one_of(value: Any, known: tuple[str, ...], name: str) -> str:
    """The value where it is one of the known words.

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
