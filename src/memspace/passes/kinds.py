"""The kinds of cotangent by name, with the number that some of them have: ``mc:4``, ``topk:0.01``.

Statistics and metrics hold a kind as a string, so that it can stand in a table and in a stored stage.
"""

from __future__ import annotations

from dataclasses import dataclass

from memspace.errors import SettingsError

__all__ = ["KINDS", "Kind"]

KINDS = ("exact", "mc", "topk", "empirical", "jacobian", "given")


@dataclass(frozen=True)
class Kind:
    """A kind as name and number.

    Args:
        name: one of ``KINDS``.
        samples: labels drawn per example (``mc``).
        share: of the trace of every position's H that merging classes may lose (``topk``).

    Raises:
        SettingsError: an unknown name, fewer than one sample, or a share outside [0, 1).
    """

    name: str
    samples: int = 1
    share: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in KINDS:
            raise SettingsError(
                f"unknown kind {self.name!r}; one of {', '.join(KINDS)}", where="kind", remedy="give one of these"
            )
        if self.samples < 1:
            raise SettingsError(
                f"at least one sampled label per example is needed, got {self.samples}",
                where="samples",
                remedy="give one or more",
            )
        if not 0 <= self.share < 1:
            raise SettingsError(
                f"the share of the trace that may be lost must be in [0, 1), got {self.share}",
                where="lost",
                remedy="give a number from 0 to below 1",
            )

    @staticmethod
    def of(text: str) -> Kind:
        """Read a kind from its string, the inverse of ``str``.

        Args:
            text: such as ``mc:4``.

        Returns:
            The kind.
        """
        name, _, number = text.partition(":")
        if name == "mc" and number:
            return Kind(name, samples=int(number))
        if name == "topk":
            return Kind(name, share=float(number))
        return Kind(text)

    def __str__(self) -> str:
        if self.name == "mc" and self.samples > 1:
            return f"mc:{self.samples}"
        return f"topk:{self.share!r}" if self.name == "topk" else self.name

    @property
    def several(self) -> bool:
        """Whether the number of cotangents grows with the number of outputs."""
        return self.name in ("exact", "topk", "jacobian")
