"""How many examples occur twice: within the training data, and between them and the test data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from memspace.measures.declaration import measure
from memspace.value import Absent, Value

__all__ = [
    "ACROSS",
    "MEASURES",
    "WITHIN",
    "LeakedExamples",
    "Pairs",
    "RepeatedExamples",
    "beyond_chance_across",
    "beyond_chance_within",
    "exact_across",
    "exact_within",
    "near_across",
    "near_within",
]

WITHIN, ACROSS = "train", "train-test"
EXACT = "equal inputs, byte by byte"
NEAR = "nearest neighbours by cosine"
BEYOND = "near pairs less the most that chance gives"


@dataclass(frozen=True)
class Pairs:
    """Suspected pairs, exact ones first, then by rising chance.

    Args:
        table: see :class:`memspace.auditing.duplicates.Duplicates`.
        within: ``train`` or ``train-test``.
        exact: how many are equal.
        near: how many are near, or why that was not searched for.
        beyond: how many near ones more than chance gives; None where near ones were not searched for.
    """

    table: Mapping[str, list[Any]]
    within: str
    exact: Value
    near: Value | Absent
    beyond: Value | None

    def __len__(self) -> int:
        return len(self.table["kind"])

    def places(self, kind: str, column: str) -> list[int]:
        """Return the entries of a column for pairs of one kind.

        Args:
            kind: ``exact`` or ``near``.
            column: ``train_index`` or ``other_index``.

        Returns:
            numbers of examples, as the user counts them.
        """
        return [int(i) for k, i in zip(self.table["kind"], self.table[column], strict=True) if k == kind]


@dataclass(frozen=True)
class RepeatedExamples:
    """Training examples that occur twice.

    Args:
        pairs: of training examples.
    """

    pairs: Pairs


@dataclass(frozen=True)
class LeakedExamples:
    """Test examples that are training examples, or look like them.

    Args:
        pairs: of a training and a test example.
    """

    pairs: Pairs


@measure("duplicates.exact.train", chapter="stored", unit="pairs", estimator=EXACT)
def exact_within(repeated: RepeatedExamples) -> Value:
    """Training examples that are copies of others."""
    return repeated.pairs.exact


@measure("duplicates.near.train", chapter="stored", unit="pairs", estimator=NEAR, source="facco2017")
def near_within(repeated: RepeatedExamples) -> Value | Absent:
    """Pairs of training examples that the network hardly distinguishes."""
    return repeated.pairs.near


@measure("duplicates.near.train.beyond_chance", chapter="stored", unit="pairs", estimator=BEYOND, source="garwood1936")
def beyond_chance_within(repeated: RepeatedExamples) -> Value | None:
    """Near pairs beyond the most that chance gives."""
    return repeated.pairs.beyond


@measure("duplicates.exact.train-test", chapter="stored", unit="pairs", estimator=EXACT)
def exact_across(leaked: LeakedExamples) -> Value:
    """Test examples that are copies of training examples."""
    return leaked.pairs.exact


@measure("duplicates.near.train-test", chapter="stored", unit="pairs", estimator=NEAR, source="facco2017")
def near_across(leaked: LeakedExamples) -> Value | Absent:
    """Test examples that the network hardly distinguishes from training examples."""
    return leaked.pairs.near


@measure(
    "duplicates.near.train-test.beyond_chance", chapter="stored", unit="pairs", estimator=BEYOND, source="garwood1936"
)
def beyond_chance_across(leaked: LeakedExamples) -> Value | None:
    """Near pairs beyond the most that chance gives."""
    return leaked.pairs.beyond


Counts = tuple[
    Callable[..., Any], Callable[..., Any], Callable[..., Any]
]  # of exact pairs, of near ones, beyond chance

MEASURES: dict[str, Counts] = {
    WITHIN: (exact_within, near_within, beyond_chance_within),
    ACROSS: (exact_across, near_across, beyond_chance_across),
}
