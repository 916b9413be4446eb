"""A claim as registered: what is asked of which networks, and what will count as an answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Annotated, Any

from memspace.arguments import check_fields
from memspace.claims.decision import Decision
from memspace.claims.population import Population
from memspace.claims.power import SampleSize
from memspace.errors import SettingsError
from memspace.limits import SEED, SEVERAL, WHOLE, one_of

__all__ = ["ControlDesign", "Heading", "Registration", "StatisticCall"]

ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
TRUTHS = ("null", "false")


@dataclass(frozen=True)
class ControlDesign:
    """How a claim's statistic is tried where its answer is known.

    Args:
        permute: columns of outcomes that are permuted between networks, rows together.
        within: columns within whose equal values they are permuted.
        repeats: permutations.
        draws: resamples of the bootstrap in each; 0: as many as in the run.
        truth: what holds of permuted outcomes: ``null``: the effect is the decision's null value; ``false``: the claim
            does not hold, and may rightly be contradicted.
        zoo: name of a zoo trained on permuted labels, whose verdict is given too; empty without one.

    Raises:
        SettingsError: nothing is permuted, or a value is out of its range.
    """

    permute: tuple[str, ...]
    within: tuple[str, ...] = ("family",)
    repeats: Annotated[int, SEVERAL] = 200
    draws: Annotated[int, WHOLE] = 0
    truth: str = "null"
    zoo: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        one_of(self.truth, TRUTHS, "truth")
        if not self.permute:
            raise SettingsError("no column is permuted", where="control.permute", remedy="name the outcome")


@dataclass(frozen=True)
class StatisticCall:
    """A declared statistic with its arguments.

    Args:
        name: of the statistic.
        arguments: an instance of the dataclass that it declares.
    """

    name: str
    arguments: Any


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What a registration says above its sections.

    Args:
        id: for example ``"06-matched-pairs"``.
        title: a few words.
        claim: the sentence of the paper, in our own words.
        hypothesis: what would be seen if it were true.
        unit: columns that together name the unit of analysis, for example the configuration that seeds share.
        caveats: what the experiment cannot show, a sentence each.
        draws: resamples of the bootstrap.
        seed: of resampling and permutations.

    Raises:
        SettingsError: a field is of the wrong type or range, or empty.
    """

    id: str
    title: str
    claim: str
    hypothesis: str
    unit: tuple[str, ...]
    caveats: tuple[str, ...] = ()
    draws: Annotated[int, SEVERAL] = 1000
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if not ID.fullmatch(self.id):
            raise SettingsError(
                f"{self.id[:60]!r} is no id", where="id", remedy="write small letters, digits and single hyphens"
            )
        for name in ("title", "claim", "hypothesis"):
            if not getattr(self, name).strip():
                raise SettingsError(f"the {name} is empty", where=name, remedy="write it")
        if not self.unit:
            raise SettingsError("there is no unit of analysis", where="unit", remedy="name at least one column")


@dataclass(frozen=True, kw_only=True)
class Registration(Heading):
    """A claim as written down before the run: its heading and its sections.

    Args:
        statistic: what is computed.
        population: of which networks.
        sample: how many, and why so many.
        decision: what counts as an answer.
        control: how the statistic is tried on permuted outcomes.

    Raises:
        SettingsError: sections contradict each other, or the stated power is not that of the sample.
    """

    statistic: StatisticCall
    population: Population
    sample: SampleSize
    decision: Decision
    control: ControlDesign

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decision.families > len(self.population.families):
            raise SettingsError(
                f"{self.decision.families} families of {len(self.population.families)} must be supported",
                where="decision.families",
                remedy="ask for fewer",
            )
        beyond = (self.sample.effect > self.decision.threshold) == self.decision.greater
        if not beyond or self.sample.effect == self.decision.threshold:
            raise SettingsError(
                f"the assumed effect {self.sample.effect:g} does not support the claim",
                where="sample.effect",
                remedy=f"assume one {self.decision.direction} than the threshold",
            )
        self.sample.check(self.decision.threshold, self.decision.alpha)

    def to_dict(self) -> dict[str, Any]:
        """Give the content in plain types, defaults filled in.

        Returns:
            The fields, nested.
        """
        content = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        content["statistic"] = {"name": self.statistic.name, **_plain(self.statistic.arguments)}
        return content

    def hash(self) -> str:
        """Compute the SHA-256 of the meaning: of the content as canonical JSON, whatever the file's layout.

        Returns:
            Hexadecimal digits.
        """
        text = json.dumps(_joined(self.to_dict()), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(part) for name, part in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _joined(value: Any) -> Any:
    """Texts without their line breaks: a sentence means the same however it is broken."""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, dict):
        return {k: _joined(v) for k, v in value.items()}
    return [_joined(v) for v in value] if isinstance(value, list) else value
