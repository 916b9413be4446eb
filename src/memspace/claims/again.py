"""Verdicts judged again: the same store and registration must give the same word and the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from memspace.claims.reading import REGISTERED
from memspace.claims.record import VERDICTS, VerdictRecord, differences, read_verdicts
from memspace.claims.run import AnyStore, ClaimResults, judge_claims
from memspace.errors import RunFolderError, SettingsError
from memspace.progress import Progress

__all__ = ["SHIPPED", "judged_again", "recorded", "shipped_verdicts"]

SHIPPED = Path(__file__).parent / "shipped"  # verdicts of the standard zoo, with its store
LEAST = 8  # digits that name a hash


def shipped_verdicts(path: Path | None = None) -> tuple[VerdictRecord, ...]:
    """Read verdicts.

    Args:
        path: of the file or of its folder; the package's own unless given.

    Returns:
        The verdicts; none where the package has none.

    Raises:
        RunFolderError: the file that was named cannot be read.
    """
    if path is None:
        shipped = SHIPPED / VERDICTS
        return read_verdicts(shipped) if shipped.exists() else ()
    return read_verdicts(path / VERDICTS if path.is_dir() else path)


def recorded(records: Sequence[VerdictRecord], *, id: str = "", sha256: str = "") -> VerdictRecord:
    """Find the verdict on a claim.

    Args:
        records: to look through.
        id: of the claim, or a beginning that only one has; not used where a hash is given.
        sha256: hash of its registration, or its first digits.

    Returns:
        The verdict.

    Raises:
        SettingsError: there is none, or more than one.
    """
    if sha256:
        if len(sha256) < LEAST:
            raise SettingsError("the hash is too short", where="--hash", remedy=f"give at least {LEAST} digits")
        matching = [r for r in records if r.sha256.startswith(sha256.lower())]
    else:
        matching = [r for r in records if r.id == id] or [r for r in records if id and r.id.startswith(id)]
    if len(matching) != 1:
        listed = ", ".join(f"{r.id} ({r.sha256[:12]})" for r in records) or "there is no verdict at all"
        what = f"there are {len(matching)} verdicts on" if matching else "there is no verdict on"
        raise SettingsError(f"{what} {(sha256 or id)[:60]!r}", where="verdicts", remedy=f"choose one of: {listed}")
    return matching[0]


def judged_again(
    record: VerdictRecord,
    *,
    store: AnyStore | Sequence[AnyStore] | None = None,
    registered: str | Path | None = None,
    progress: Progress | None = None,
) -> ClaimResults:
    """Judge a claim again and compare with the verdict that was written.

    Args:
        record: the verdict.
        store: of the networks, or several; the package's own unless given.
        registered: folder of registrations; the package's own unless given.
        progress: where the work reports.

    Returns:
        The verdict again.

    Raises:
        RunFolderError: it comes out otherwise.
        SettingsError: the package ships no store and none is given.
    """
    if store is None:
        if not SHIPPED.is_dir():
            raise SettingsError("no store is shipped", where="memspace.claims", remedy="give one with --store")
        store = SHIPPED
    results = judge_claims([record.id], store=store, registered=registered or REGISTERED, progress=progress)
    clauses = differences(results.claims[0].record, record)
    if clauses:
        raise RunFolderError(
            f"the verdict is not reproduced: {'; '.join(clauses[:3])}",
            where=record.id,
            remedy="judge it from the store and the registration it was written for",
        )
    return results
