"""Verdicts as a file: what a run found, with the hashes of all it rests on, and the comparison of two of them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memspace.auditing.decode import decode
from memspace.auditing.results import clean
from memspace.auditing.store import write_text
from memspace.claims.control import PermutedControl
from memspace.claims.verdict import FamilyVerdict, MeasureVerdict
from memspace.errors import RunFolderError
from memspace.value import Value

__all__ = ["SCHEMA", "VERDICTS", "VerdictRecord", "differences", "read_verdicts", "write_verdicts"]

VERDICTS = "verdicts.json"
SCHEMA = 1  # raised whenever the file changes incompatibly
SAME = 1e-6  # relative: other machines add in another order


@dataclass(frozen=True)
class VerdictRecord:
    """A verdict with all it rests on.

    Args:
        id: of the claim.
        title: of the claim.
        sha256: hash of the registration.
        registered: when it was registered.
        store: digest of the store.
        version: of memspace.
        statistic: its name.
        estimator: how it is computed.
        unit: of the effects.
        word: supported, contradicted or undecided.
        measures: the verdict on every measure and family.
        control: on permuted outcomes.
        networks: rows that were used.
        paragraph: what it means.
    """

    id: str
    title: str
    sha256: str
    registered: str
    store: str
    version: str
    statistic: str
    estimator: str
    unit: str
    word: str
    measures: tuple[MeasureVerdict, ...]
    control: PermutedControl
    networks: int
    paragraph: str

    @property
    def effects(self) -> dict[str, FamilyVerdict]:
        """Every effect by ``measure, family``; the one over all families as ``measure, overall``."""
        return {
            ", ".join(filter(None, (m.measure, v.family or "overall"))): v
            for m in self.measures
            for v in (m.overall, *m.families)
        }

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            The fields, nested.
        """
        return dict(clean(asdict(self)))


def write_verdicts(path: Path, records: Sequence[VerdictRecord], created: str) -> None:
    """Write a file of verdicts.

    Args:
        path: of the file.
        records: in order.
        created: time, ISO 8601.

    Raises:
        OutputError: it cannot be written.
    """
    content = {"schema": SCHEMA, "created": created, "claims": [record.to_dict() for record in records]}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_verdicts(path: Path) -> tuple[VerdictRecord, ...]:
    """Read a file of verdicts.

    Args:
        path: of the file.

    Returns:
        The verdicts.

    Raises:
        RunFolderError: it is not there, damaged, or of another version.
    """
    try:
        return _records(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunFolderError(
            f"the verdicts cannot be read: {reason}", where=str(path), remedy="write them by `memspace claims run`"
        ) from error


def _records(content: Any) -> tuple[VerdictRecord, ...]:
    if not isinstance(content, dict) or not isinstance(content.get("claims"), list):
        raise ValueError("it holds no claims")
    if content.get("schema") != SCHEMA:
        raise ValueError(f"its schema is {content.get('schema')!r}, not {SCHEMA}")
    return tuple(decode(VerdictRecord, one, f"claims[{k}]") for k, one in enumerate(content["claims"]))


def differences(first: VerdictRecord, second: VerdictRecord) -> list[str]:
    """Compare two verdicts on one claim: hash, words, effects with intervals, and whether the control holds.

    Args:
        first: recomputed.
        second: stored.

    Returns:
        What differs, a clause each; nothing where the one reproduces the other.
    """
    clauses = []
    for name in ("sha256", "store", "word"):
        a, b = getattr(first, name), getattr(second, name)
        if a != b:
            clauses.append(f"{name} is {a[:12]}, not {b[:12]}")
    if first.control.holds != second.control.holds:
        clauses.append("the control does not come out alike")
    if first.effects.keys() != second.effects.keys():
        clauses.append("other measures or families were judged")
    for name in sorted(first.effects.keys() & second.effects.keys()):
        a, b = first.effects[name], second.effects[name]
        if a.word != b.word:
            clauses.append(f"{name} is {a.word}, not {b.word}")
        if not all(math.isclose(x, y, rel_tol=SAME, abs_tol=SAME) for x, y in zip(_of(a), _of(b), strict=True)):
            clauses.append(f"the effect of {name} is {_of(a)[0]:.6g}, not {_of(b)[0]:.6g}")
    return clauses


def _of(verdict: FamilyVerdict) -> tuple[float, float, float]:
    """Value and ends, 0 where there are none."""
    effect = verdict.effect or Value(0.0, 0)
    return (effect.value, *(effect.interval or (0.0, 0.0)))
