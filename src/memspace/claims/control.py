"""The control of a claim: its statistic on outcomes permuted between networks, where its answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from memspace.claims.decision import CONTRADICTED, SUPPORTED
from memspace.claims.evidence import Evidence
from memspace.claims.registration import ControlDesign, Registration
from memspace.claims.sampling import codes_of, columns_of
from memspace.claims.verdict import ClaimVerdict, verdict_of
from memspace.value import Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["MISSING", "PermutedControl", "permuted", "run_control"]

MISSING = "missing"


@dataclass(frozen=True)
class PermutedControl:
    """What the control found.

    Args:
        repeats: permutations.
        decided: share of them whose verdict was not undecided; where the claim is false of permuted outcomes, share
            that were supported.
        nominal: the share that may be.
        excluding: share of family effects whose 95% interval did not hold the null value; None where the claim is
            false of permuted outcomes, whose effect is then not the null value.
        holds: whether the interval of ``decided`` reaches down to the nominal share.
        zoo: verdict on the registered zoo trained on permuted labels; ``missing`` where the store has none of it; empty
            where none is registered.
    """

    repeats: int
    decided: Value
    nominal: float
    excluding: Value | None
    holds: bool
    zoo: str = ""

    def in_words(self) -> str:
        """Describe the control in a sentence or two.

        Returns:
            Sentences.
        """
        low, high = self.decided.interval or (0.0, 1.0)
        what = "supported" if self.excluding is None else "decided"
        text = (
            f"With outcomes permuted between networks, {100 * self.decided.value:.1f}% of {self.repeats} runs came out "
            f"{what} (95% interval {100 * low:.1f} to {100 * high:.1f}%; at most {100 * self.nominal:g}% may): "
            + ("the control holds." if self.holds else "the control fails, and the verdict is not to be trusted.")
        )
        if self.excluding is not None:
            text += f" The intervals missed the null value {100 * self.excluding.value:.1f}% of the time."
        if self.zoo == MISSING:
            text += " The store has no networks trained on permuted labels."
        elif self.zoo:
            text += f" On networks trained on permuted labels the claim is {self.zoo}."
        return text


def permuted(
    table: pl.DataFrame, design: ControlDesign, unit: tuple[str, ...], generator: np.random.Generator
) -> pl.DataFrame:
    """Reorder outcomes at random between units of analysis that share what the design names.

    Units are shuffled whole where they have equally many rows, so that what seeds of one unit share stays together;
    else the rows of the shuffled units are laid one after the other over those of the units as they were.

    Args:
        table: of the population.
        design: which columns, within which others.
        unit: columns that together name the unit of analysis.
        generator: of the permutation.

    Returns:
        The table with the outcomes of other rows.
    """
    columns_of(table, [*design.permute, *design.within, *unit])
    strata, units = codes_of(table, design.within), codes_of(table, unit)
    source = np.arange(table.height)
    for stratum in np.unique(strata):
        at = np.flatnonzero(strata == stratum)
        ordered = at[np.argsort(units[at], kind="stable")]
        members = [ordered[units[ordered] == u] for u in np.unique(units[ordered])]
        shuffled = generator.permutation(len(members))
        if len(members) == 1:  # rows of one unit have only each other to change with
            source[ordered] = generator.permutation(ordered)
        else:
            source[ordered] = np.concatenate([members[k] for k in shuffled])
    return table.with_columns(table[name].gather(source) for name in design.permute)


def run_control(
    registration: Registration,
    table: pl.DataFrame,
    statistic: Callable[[pl.DataFrame, int], Evidence],
    advance: Callable[[], None] = lambda: None,
) -> PermutedControl:
    """Repeat the statistic on permuted outcomes.

    Args:
        registration: of the claim.
        table: its population.
        statistic: from a table and the seed of its resamples to evidence.
        advance: called after every repetition.

    Returns:
        How often it decided.
    """
    design, decision = registration.control, registration.decision
    false = design.truth == "false"
    verdicts: list[ClaimVerdict] = []
    for repeat in range(design.repeats):
        generator = np.random.default_rng([registration.seed, repeat])
        shuffled = permuted(table, design, registration.unit, generator)
        verdicts.append(verdict_of(statistic(shuffled, registration.seed + 1 + repeat), decision))
        advance()
    wrong = (SUPPORTED,) if false else (SUPPORTED, CONTRADICTED)
    decided = Value.share(sum(v.word in wrong for v in verdicts), n=design.repeats)
    low = decided.interval[0] if decided.interval is not None else 0.0
    nominal = decision.alpha / 2 if false else decision.alpha
    return PermutedControl(
        design.repeats, decided, nominal, None if false else _excluding(verdicts, decision.null), low <= nominal
    )


def _excluding(verdicts: list[ClaimVerdict], null: float) -> Value:
    """How often the interval of a family's effect missed the null value; effects of one repetition belong together."""
    missed: list[float] = []
    repeat_of: list[int] = []
    for repeat, verdict in enumerate(verdicts):
        for family in (f for m in verdict.measures for f in m.families):
            if family.effect is not None and family.effect.interval is not None:
                low, high = family.effect.interval
                missed.append(float(not low <= null <= high))
                repeat_of.append(repeat)
    return Value.share(missed, groups=repeat_of)
