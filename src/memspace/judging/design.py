"""Which columns of a table of networks are hyper-parameters, and which gap is to be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memspace.arguments import check_fields
from memspace.errors import SettingsError

__all__ = ["GAPS", "JudgingDesign"]

# Columns whose difference, first less second, is the gap: positive where test data fare worse.
GAPS = {"loss": ("test_loss", "train_loss"), "accuracy": ("train_accuracy", "test_accuracy")}


@dataclass(frozen=True)
class JudgingDesign:
    """How the networks of a table were made, and the gap that is judged.

    Networks that agree in every knob are one *configuration*; they differ by their seed. Configurations, not
    networks, are what intervals resample.

    Args:
        knobs: columns of hyper-parameters, numbers or strings, without the seed; null is a setting like any other.
        seed: column of the seed, None where every configuration has one network.
        gap: ``"loss"``, test_loss − train_loss in nats, or ``"accuracy"``, train_accuracy − test_accuracy as a share.
        tested: number of test examples behind ``test_accuracy``: by it differences of accuracy gaps are told from
            noise where signs are counted (Dziugaite et al. 2020).
        error: column with the standard error of each network's gap, used for the same where there is one.
        left_out: column whose values are left out in turn where the gap is predicted; the first knob by default.
        given: columns that partial correlations are given besides the knobs' own.
    """

    knobs: tuple[str, ...]
    seed: str | None = None
    gap: Literal["loss", "accuracy"] = "loss"
    tested: int | None = None
    error: str | None = None
    left_out: str | None = None
    given: tuple[str, ...] = ("train_loss",)

    def __post_init__(self) -> None:
        check_fields(self)
        where = "memspace.judging.JudgingDesign"
        object.__setattr__(self, "knobs", tuple(self.knobs))
        object.__setattr__(self, "given", tuple(self.given))
        if not self.knobs or len(set(self.knobs)) < len(self.knobs):
            raise SettingsError(
                f"the knobs are {list(self.knobs)}", where=where, remedy="name each hyper-parameter once, one at least"
            )
        if self.seed in self.knobs:
            raise SettingsError(
                f"{self.seed} is seed and knob at once", where=where, remedy="leave it out of the knobs"
            )
        if self.gap not in GAPS:
            raise SettingsError(f"the gap is {self.gap!r}", where=where, remedy="give 'loss' or 'accuracy'")
        if self.tested is not None and self.tested < 1:
            raise SettingsError(f"tested is {self.tested}", where=where, remedy="give the number of test examples")

    @property
    def group(self) -> str:
        """The column whose values are left out in turn."""
        return self.left_out or self.knobs[0]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the table must have for the design alone."""
        extra = (self.seed, self.error, self.left_out)
        return tuple(dict.fromkeys((*self.knobs, *GAPS[self.gap], *(c for c in extra if c is not None))))
