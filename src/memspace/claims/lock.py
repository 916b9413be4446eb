"""The lock of registrations: which hash was registered when, written before any result exists."""

from __future__ import annotations

import datetime
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memspace.auditing.store import write_text
from memspace.claims.reading import LOCK
from memspace.claims.registration import Registration
from memspace.claims.store import ResultsStore
from memspace.errors import DataError, RunFolderError, SettingsError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Lock", "check_registered", "read_lock", "refuse_older", "register"]

FINISHED = "finished"  # column of the time at which a network had its results
HEADER = "# Hashes of registered claims, written by `memspace claims register` before their networks had results.\n"


@dataclass(frozen=True)
class Lock:
    """What was registered of one claim.

    Args:
        sha256: hash of the registration.
        registered: day and time, ISO 8601.
        former: hashes registered before, all of them before any result.
    """

    sha256: str
    registered: str
    former: tuple[str, ...] = ()


def read_lock(folder: Path) -> dict[str, Lock]:
    """Read the lock file of a folder of registrations.

    Args:
        folder: of the registrations.

    Returns:
        By id; nothing where there is no file.

    Raises:
        SettingsError: the file cannot be read.
    """
    path = folder / LOCK
    if not path.exists():
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return {
            id: Lock(str(one["sha256"]), str(one["registered"]), tuple(map(str, one.get("former", ()))))
            for id, one in content.items()
        }
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise SettingsError(
            f"the lock cannot be read: {reason}", where=str(path), remedy="restore it: results rest on it"
        ) from error


def register(chosen: Sequence[Registration], folder: Path, store: ResultsStore) -> list[str]:
    """Register claims that are new or were changed by their hashes, all or none.

    Args:
        chosen: the registrations.
        folder: of their files, where the lock is.
        store: that the run will use.

    Returns:
        The ids that were locked; those that were registered as they are stay.

    Raises:
        RunFolderError: the store already has results of a claim's networks.
        OutputError: the lock cannot be written.
    """
    locks = read_lock(folder)
    fresh = [r for r in chosen if r.id not in locks or locks[r.id].sha256 != r.hash()]
    for registration in fresh:
        if store.has_results(registration.population):
            raise RunFolderError(
                "a claim is registered before its networks have results, and the store already has some",
                where=registration.id,
                remedy="register it for a store without them, or with other networks",
            )
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    for registration in fresh:
        before = locks.get(registration.id)
        former = () if before is None else (*before.former, before.sha256)
        locks[registration.id] = Lock(registration.hash(), now, former)
    if fresh:
        write_text(folder / LOCK, HEADER + "".join(_entry(id, locks[id]) for id in sorted(locks)))
    return [registration.id for registration in fresh]


def _entry(id: str, lock: Lock) -> str:
    lines = [f"\n[{id}]", f'sha256 = "{lock.sha256}"', f'registered = "{lock.registered}"']
    return "\n".join([*lines, *([f"former = {json.dumps(list(lock.former))}"] if lock.former else ())]) + "\n"


def check_registered(registration: Registration, folder: Path) -> Lock:
    """Refuse a claim that was not registered as it is.

    Args:
        registration: of the claim.
        folder: of the file, where the lock is.

    Returns:
        What was registered.

    Raises:
        SettingsError: it was not registered, or changed since.
    """
    lock = read_lock(folder).get(registration.id)
    if lock is None:
        raise SettingsError(
            "the claim is not registered",
            where=registration.id,
            remedy="register it by `memspace claims register`, before its networks have results",
        )
    if lock.sha256 != registration.hash():
        raise SettingsError(
            f"the claim is not as it was registered on {lock.registered[:10]}: its hash is "
            f"{registration.hash()[:12]}, not {lock.sha256[:12]}",
            where=registration.id,
            remedy="restore the registration, or register the new one for networks without results",
        )
    return lock


def refuse_older(table: pl.DataFrame, registration: Registration, lock: Lock) -> None:
    """Refuse networks that had finished before their claim was registered, where the table says when they did.

    Args:
        table: of the population; its column ``finished`` holds times of UTC, as such or in ISO 8601.
        registration: of the claim.
        lock: what was registered.

    Raises:
        RunFolderError: a network is older than the registration.
        DataError: the column holds no times.
    """
    import polars as pl

    if FINISHED not in table.columns:
        return
    column = table[FINISHED]
    try:
        if column.dtype == pl.String:
            column = column.str.to_datetime(time_zone="UTC")
        oldest = column.dt.replace_time_zone("UTC").min()
    except (pl.exceptions.PolarsError, AttributeError) as error:
        raise DataError(
            f"the column {FINISHED!r} holds no times", where=registration.id, remedy="write times in ISO 8601"
        ) from error
    if isinstance(oldest, datetime.datetime) and oldest < datetime.datetime.fromisoformat(lock.registered):
        raise RunFolderError(
            f"a network had finished on {oldest:%Y-%m-%d %H:%M}, before the claim was registered on "
            f"{lock.registered[:16].replace('T', ' ')}",
            where=registration.id,
            remedy="judge it on networks trained since",
        )
