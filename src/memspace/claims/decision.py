"""What counts as supported, contradicted and undecided: numbers that are registered before the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from memspace.arguments import check_fields
from memspace.errors import SettingsError
from memspace.limits import COUNT, PART, WHOLE, one_of

__all__ = ["CONTRADICTED", "DIRECTIONS", "SUPPORTED", "UNDECIDED", "Decision"]

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
DIRECTIONS = ("greater", "less")
CORRECTED = ("families", "measures")


@dataclass(frozen=True)
class Decision:
    """The rule from an effect's interval to a word.

    With the direction ``greater``, the claim is supported where the whole interval lies above ``threshold``,
    contradicted where it lies below ``contradiction``, else undecided; ``less`` is the mirror image.

    Args:
        direction: the side on which the claim holds: ``greater`` or ``less``.
        threshold: the effect that the claim must exceed.
        contradiction: the effect on whose other side the claim is refuted; the null value, or the threshold itself
            where an effect that is too small refutes it.
        null: the effect where nothing is there; outcomes permuted between networks have it.
        families: how many families must be supported, none being contradicted; 0: the mean over families decides,
            unless a family is judged the other way round.
        measures: how many of the statistic's measures must be supported, none being contradicted.
        alpha: 1 − level of the intervals, both tails together.
        corrected: what is corrected for: ``families`` (Holm 1979), ``measures`` (Benjamini & Hochberg 1995).

    Raises:
        SettingsError: a value is out of its range, or the bounds contradict each other.
    """

    direction: str
    threshold: float
    contradiction: float
    null: float = 0.0
    families: Annotated[int, WHOLE] = 0
    measures: Annotated[int, COUNT] = 1
    alpha: Annotated[float, PART] = 0.05
    corrected: tuple[str, ...] = CORRECTED

    def __post_init__(self) -> None:
        check_fields(self)
        one_of(self.direction, DIRECTIONS, "direction")
        for word in self.corrected:
            one_of(word, CORRECTED, "corrected")
        wrong = self.contradiction > self.threshold if self.greater else self.contradiction < self.threshold
        if wrong:
            raise SettingsError(
                f"an effect between {self.threshold:g} and {self.contradiction:g} would support and contradict",
                where="decision.contradiction",
                remedy="put it on the other side of the threshold",
            )

    @property
    def greater(self) -> bool:
        """Whether larger effects support the claim."""
        return self.direction == "greater"

    def in_words(self) -> str:
        """Describe the rule in sentences.

        Returns:
            Three sentences.
        """
        beyond, short = ("above", "below") if self.greater else ("below", "above")
        level = f"{100 * (1 - self.alpha):g}% interval"
        rule = (
            f"Supported where the whole {level} lies {beyond} {self.threshold:g}, "
            f"contradicted where it lies {short} {self.contradiction:g}, else undecided."
        )
        if self.families:
            many = "one family" if self.families == 1 else f"{self.families} families"
            rule += f" The claim as a whole needs {many} supported and none contradicted; the reverse contradicts it."
        else:
            rule += " The mean over families decides, unless a family is judged the other way round."
        names = {"families": "families by Holm's method", "measures": "measures by Benjamini and Hochberg's"}
        how = " and ".join(names[word] for word in CORRECTED if word in self.corrected)
        return f"{rule} " + (f"Corrected for the number of {how}." if how else "Not corrected for multiplicity.")
