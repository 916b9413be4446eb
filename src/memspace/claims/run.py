"""A run: claims judged from a store, with a page, and verdicts judged again."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memspace.arguments import typed
from memspace.auditing.store import write_text
from memspace.claims.control import MISSING, run_control
from memspace.claims.evidence import Evidence
from memspace.claims.lock import check_registered, refuse_older
from memspace.claims.paragraph import paragraph_on
from memspace.claims.reading import REGISTERED, chosen_registrations
from memspace.claims.record import VERDICTS, VerdictRecord, write_verdicts
from memspace.claims.registration import Registration
from memspace.claims.sampling import Sampling
from memspace.claims.statistic import statistic_named
from memspace.claims.store import JoinedStores, ParquetStore, ResultsStore, holding
from memspace.claims.verdict import verdict_of
from memspace.display import Columns, Quantity, Shown
from memspace.encoders.results import EncoderResults, is_encoder_store
from memspace.encoders.store import EncoderStore
from memspace.errors import DataError, SettingsError
from memspace.files import writing
from memspace.measurement import Measurement, Unmeasured, stated
from memspace.progress import Progress, Silent
from memspace.value import Absent
from memspace.version import VERSION
from memspace.zoo.results import ZooResults, is_zoo
from memspace.zoo.store import ZooStore

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ClaimResults", "JudgedClaim", "judge", "judge_claims", "opened_store", "verdict_rows"]


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its verdict and the evidence behind it.

    Args:
        registration: of the claim.
        record: the verdict as it is written.
        evidence: what the statistic found.
    """

    registration: Registration
    record: VerdictRecord
    evidence: Evidence

    def quantities(self) -> list[Measurement | Unmeasured]:
        """Give every effect and reading as a measurement.

        Returns:
            Named ``effect...`` and as the statistic names its readings.
        """
        declared = statistic_named(self.record.statistic)
        quantities: list[Measurement | Unmeasured] = []
        for label, verdict in self.record.effects.items():
            name = f"effect of {label}" if label != "overall" else "effect, overall"
            if verdict.effect is None:
                quantities.append(Unmeasured(name, verdict.reason, "extend the store"))
            else:
                quantities.append(stated(name, verdict.effect, self.record.unit, declared.estimator, declared.source))
        for name, (value, unit) in self.evidence.readings.items():
            if isinstance(value, Absent):
                if value.reason:
                    quantities.append(Unmeasured(name, value.reason, value.remedy))
            elif math.isfinite(value.value):
                quantities.append(stated(name, value, unit, declared.estimator, declared.source))
        return quantities


@dataclass(frozen=True, repr=False)
class ClaimResults(Shown):
    """The verdicts of a run.

    Args:
        claims: in order.
        store: digest of the store.
        created: time, ISO 8601.
    """

    claims: tuple[JudgedClaim, ...]
    store: str
    created: str

    @property
    def verdicts(self) -> dict[str, str]:
        """Word by id."""
        return {claim.record.id: claim.record.word for claim in self.claims}

    def _title(self) -> str:
        return "; ".join(f"{id}: {word}" for id, word in self.verdicts.items())

    def _quantities(self) -> Sequence[Quantity]:
        return [q for claim in self.claims for q in claim.quantities()]

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"verdicts": partial(verdict_rows, [claim.record for claim in self.claims])}

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            Store, time and every verdict.
        """
        return {
            "store": self.store,
            "created": self.created,
            "claims": [claim.record.to_dict() for claim in self.claims],
        }


def verdict_rows(records: Sequence[VerdictRecord]) -> Columns:
    """Put verdicts into a table, a row an effect.

    Args:
        records: of the claims.

    Returns:
        Columns by name.
    """
    names = ("claim", "measure", "family", "verdict", "effect", "low", "high", "n", "sha256")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for record in records:
        for measure in record.measures:
            for verdict in (measure.overall, *measure.families):
                effect = verdict.effect
                low, high = (effect.interval if effect is not None else None) or (math.nan, math.nan)
                value, n = (math.nan, 0) if effect is None else (effect.value, effect.n)
                row = (record.id, measure.measure, verdict.family or "all", verdict.word, value, low, high, n)
                for column, entry in zip(columns.values(), (*row, record.sha256), strict=True):
                    column.append(entry)
    return columns


AnyStore = ResultsStore | ZooStore | EncoderStore | str | Path


def opened_store(store: AnyStore | Sequence[AnyStore]) -> ResultsStore:
    """Open a store, or several to be looked at as one.

    All zoos among them are one store. A folder may be a zoo's and hold Parquet files too.

    Args:
        store: one that is open, or a folder: of a zoo, of encoders, or of Parquet files; or a list of these.

    Returns:
        The store.

    Raises:
        SettingsError: one is neither, or there is none.
    """
    listed = [store] if isinstance(store, str | Path) or not isinstance(store, Sequence) else store
    zoos: dict[Path, ZooStore] = {}
    encoders: dict[Path, EncoderStore] = {}
    others: dict[Path, ResultsStore] = {}
    opened: list[ResultsStore] = []
    for one in listed:
        if isinstance(one, ZooStore):
            zoos[one.folder.resolve()] = one
        elif isinstance(one, EncoderStore):
            encoders[one.folder.resolve()] = one
        elif isinstance(one, str | Path):
            folder = Path(one).resolve()
            if is_encoder_store(one):
                encoders[folder] = EncoderStore(one)
                continue
            if is_zoo(one):
                zoos[folder] = ZooStore(one)
            if not is_zoo(one) or any(folder.glob("*.parquet")):
                others[folder] = ParquetStore(one)
        else:
            opened.append(_checked(one))
    read = [*([ZooResults(list(zoos.values()))] if zoos else ()), *map(EncoderResults, encoders.values())]
    parts = [*read, *others.values(), *opened]
    if not parts:
        raise SettingsError("there is no store", where="store", remedy="give at least one folder")
    return parts[0] if len(parts) == 1 else JoinedStores(parts)


def _checked(store: ResultsStore) -> ResultsStore:
    if not all(callable(getattr(store, name, None)) for name in ("table", "has_results", "digest")):
        what = f"a {type(store).__name__} is no store of results"
        raise SettingsError(
            what, where="store", remedy="give a folder, or an object with table, has_results and digest"
        )
    return store


@typed
def judge_claims(
    ids: Sequence[str] = (),
    *,
    store: AnyStore | Sequence[AnyStore],
    out: str | Path | None = None,
    registered: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> ClaimResults:
    """Judge registered claims from a store of networks.

    Args:
        ids: of the claims, or beginnings of them; none: all.
        store: of the networks: the folder of a zoo, one of Parquet files, an open store, or a list of these; a claim
            reads the one that has its table.
        out: folder for verdicts.json and the page claims.html; None writes nothing.
        registered: folder of registrations and their lock; the package's own unless given.
        command: the command line that asks for it, kept with the page.
        progress: where the work reports.

    Returns:
        The verdicts with their evidence.

    Raises:
        SettingsError: a claim is not known, not registered, or changed since.
        DataError: the store lacks the networks or columns of a claim.
        RunFolderError: networks had finished before their claim was registered.
        OutputError: the folder cannot be written.
    """
    folder = REGISTERED if registered is None else Path(registered)
    opened = opened_store(store)
    chosen = chosen_registrations(ids, folder)
    if not chosen:
        raise SettingsError("no claim is registered there", where=str(folder), remedy="write a registration first")
    for registration in chosen:
        check_registered(registration, folder)
    progress = progress or Silent()
    claims = tuple(judge(registration, folder, opened, progress) for registration in chosen)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    results = ClaimResults(claims, opened.digest(), created)
    if out is not None:
        _write(results, Path(out), command)
    return results


def judge(registration: Registration, folder: Path, store: ResultsStore, progress: Progress) -> JudgedClaim:
    """Judge one claim.

    Args:
        registration: of the claim.
        folder: of registrations, where the lock is.
        store: of the networks.
        progress: told of every repetition of the control.

    Returns:
        The verdict with its evidence.

    Raises:
        DataError: the store has none of its networks, or has them at several moments.
        RunFolderError: some had finished before the claim was registered.
    """
    lock = check_registered(registration, folder)
    declared = statistic_named(registration.statistic.name)
    store = holding(store, registration.population.table)
    table = registration.population.select(store.table(registration.population.table))
    if not table.height:
        raise DataError(
            "the store has no network of the claim's population", where=registration.id, remedy="train them first"
        )
    if "moment" in table.columns and table["moment"].n_unique() > 1:
        raise DataError(
            "the table has networks at several moments of their training",
            where=registration.id,
            remedy="register population.moment",
        )
    refuse_older(table, registration, lock)

    sampling = Sampling(registration.unit, registration.population.families, registration.draws, registration.seed)

    def statistic(rows: pl.DataFrame, resampled: Sampling = sampling) -> Evidence:
        return declared.function(rows, registration.statistic.arguments, resampled)

    def repeated(rows: pl.DataFrame, seed: int) -> Evidence:
        draws = registration.control.draws or registration.draws
        return statistic(rows, replace(sampling, draws=draws, seed=seed, readings=False))

    evidence = statistic(table)
    verdict = verdict_of(evidence, registration.decision)
    handle = progress.start(f"{registration.id}: control", registration.control.repeats)
    try:
        control = run_control(registration, table, repeated, lambda: progress.advance(handle))
    finally:
        progress.finish(handle)
    if registration.control.zoo:
        control = replace(control, zoo=_of_permuted_labels(registration, store, statistic))
    record = VerdictRecord(
        registration.id,
        registration.title,
        lock.sha256,
        lock.registered,
        store.digest(),
        VERSION,
        declared.name,
        declared.estimator,
        evidence.unit or declared.unit,
        verdict.word,
        verdict.measures,
        control,
        evidence.networks,
        paragraph_on(registration, declared, evidence, verdict, control),
    )
    return JudgedClaim(registration, record, evidence)


def _of_permuted_labels(
    registration: Registration, store: ResultsStore, statistic: Callable[[pl.DataFrame], Evidence]
) -> str:
    """The verdict on the zoo trained on permuted labels."""
    population = replace(registration.population, zoo=registration.control.zoo)
    rows = population.select(store.table(population.table))
    if not rows.height:
        return MISSING
    return verdict_of(statistic(rows), registration.decision).word


def _write(results: ClaimResults, out: Path, command: str) -> None:
    from memspace.claims.page import claims_page

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_verdicts(out / VERDICTS, [claim.record for claim in results.claims], results.created)
    write_text(out / "claims.html", claims_page(results, command))
