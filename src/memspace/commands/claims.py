"""``memspace claims``: claims registered before the run, judged from a store of networks, and their verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from memspace.commands.declaration import command
from memspace.commands.opened import watching
from memspace.commands.options import Output, option, out
from memspace.commands.output import tell, typed_command
from memspace.errors import SettingsError
from memspace.report.terminal import Terminal, styled

if TYPE_CHECKING:
    from memspace.claims.lock import Lock
    from memspace.claims.record import VerdictRecord
    from memspace.claims.registration import Registration

__all__ = [
    "RegisteredOptions",
    "VerdictOptions",
    "list_claims",
    "pack_claims",
    "register_claims",
    "run_claims",
    "show_claim",
    "verdict",
]

STYLES = {"supported": "green", "contradicted": "red"}
IDS = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Claims, or beginnings of them; all if none.")]
StoreFolders = Annotated[list[Path], option("Folder of the networks' results; repeatable.")]


@dataclass(frozen=True, kw_only=True)
class RegisteredOptions:
    """Where registrations are read from."""

    registered: Annotated[Path | None, option("Folder of registrations.", shown="the package's own")] = None


@dataclass(frozen=True, kw_only=True)
class VerdictOptions(RegisteredOptions):
    """Where registrations and verdicts are read from."""

    verdicts: Annotated[Path | None, option("File of verdicts, or its folder.", shown="the package's own")] = None


@command("list", group="claims")
def list_claims(which: VerdictOptions, output: Output) -> None:
    """List the registered claims with their verdicts."""
    claims, locks, records = _read(which)
    tell(output, {"claims": [_content(r, locks, records) for r in claims]}, lambda c: _list(claims, locks, records, c))


@command("show", group="claims")
def show_claim(
    id: Annotated[str, typer.Argument(help="The claim, or a beginning of its id.")],
    which: VerdictOptions,
    output: Output,
) -> None:
    """Show how a claim is registered, and its verdict."""
    from memspace.claims.reading import chosen_registrations

    _, locks, records = _read(which)
    (claim,) = chosen_registrations([id], _folder(which))
    content = {"registration": claim.to_dict()} | _content(claim, locks, records)
    tell(output, content, lambda console: _show(claim, locks.get(claim.id), records.get(claim.id), console))


@command("register", group="claims")
def register_claims(store: StoreFolders, which: RegisteredOptions, output: Output, ids: IDS = None) -> None:
    """Register claims whose networks have no results yet, by their hashes."""
    from memspace.claims.lock import register
    from memspace.claims.reading import chosen_registrations
    from memspace.claims.run import opened_store

    folder = _folder(which)
    locked = register(chosen_registrations(ids or (), folder), folder, opened_store(store))
    text = f"Registered: {', '.join(locked)}." if locked else "All were registered as they are."
    tell(output, {"registered": locked}, lambda console: console.print(text))


@command("run", group="claims")
def run_claims(
    store: StoreFolders,
    which: RegisteredOptions,
    output: Output,
    ids: IDS = None,
    out: Annotated[Path, out("Folder of verdicts.json and claims.html.")] = Path("runs/claims"),
) -> None:
    """Judge claims from a store of networks, and write their verdicts and a page."""
    from memspace.claims.run import judge_claims

    with watching(Terminal(stderr=True), output.silent) as progress:
        results = judge_claims(
            ids or (), store=store, out=out, registered=_folder(which), command=typed_command(), progress=progress
        )

    def show(console: Terminal) -> None:
        _list([c.registration for c in results.claims], None, {c.record.id: c.record for c in results.claims}, console)
        console.print(styled("Page: ", (str(out / "claims.html"), "bold")), soft_wrap=True)

    tell(output, results.to_dict(), show)


@command("pack", group="claims")
def pack_claims(
    store: StoreFolders,
    which: RegisteredOptions,
    output: Output,
    out: Annotated[Path, out("Folder of the tables, a store of claims.")] = Path("runs/claims-store"),
) -> None:
    """Copy the tables that the claims are judged on into one folder, a Parquet file each."""
    from memspace.claims.packing import pack_tables
    from memspace.claims.run import opened_store

    rows = pack_tables(opened_store(store), out, registered=_folder(which))
    text = f"{', '.join(f'{name} ({count:,} rows)' for name, count in rows.items())} in {out}"
    tell(output, {"folder": str(out), "rows": rows}, lambda console: console.print(text, soft_wrap=True))


@command("verdict", group="claims")
def verdict(
    which: VerdictOptions,
    output: Output,
    id: Annotated[str, typer.Argument(help="The claim, or a beginning of its id.")] = "",
    hash: Annotated[str, option("The claim by the hash of its registration, at least 8 digits.", shown="none")] = "",
    store: Annotated[
        list[Path] | None, option("Folder of the networks' results; repeatable.", shown="the package's own")
    ] = None,
) -> None:
    """Judge a claim again from the store, and compare with the verdict that was written."""
    from memspace.claims.again import judged_again, recorded, shipped_verdicts

    if bool(id) == bool(hash):
        raise SettingsError("a claim is named once", where="claims verdict", remedy="give its id, or --hash")
    record = recorded(shipped_verdicts(which.verdicts), id=id, sha256=hash)
    with watching(Terminal(stderr=True), output.silent) as progress:
        judged_again(record, store=store, registered=_folder(which), progress=progress)

    def show(console: Terminal) -> None:
        console.print(styled(f"{record.id}: ", _styled(record.word), ", reproduced from the store."))
        console.print()
        console.print(record.paragraph)

    tell(output, record.to_dict() | {"reproduced": True}, show)


def _folder(which: RegisteredOptions) -> Path:
    from memspace.claims.reading import REGISTERED

    return which.registered or REGISTERED


def _read(which: VerdictOptions) -> tuple[tuple[Registration, ...], dict[str, Lock], dict[str, VerdictRecord]]:
    """The registrations of the folder, their locks, and the verdicts by id."""
    from memspace.claims.again import shipped_verdicts
    from memspace.claims.lock import read_lock
    from memspace.claims.reading import registrations

    folder = _folder(which)
    return registrations(folder), read_lock(folder), {r.id: r for r in shipped_verdicts(which.verdicts)}


def _state(claim: Registration, lock: Lock | None, record: VerdictRecord | None) -> str:
    """The verdict, or what stands between the claim and one."""
    if record is not None and record.sha256 == claim.hash():
        return record.word
    if record is not None:
        return "changed since its verdict"
    if lock is None:
        return "not registered"
    return "not judged yet" if lock.sha256 == claim.hash() else "changed since it was registered"


def _content(claim: Registration, locks: dict[str, Lock], records: dict[str, VerdictRecord]) -> dict[str, Any]:
    lock, record = locks.get(claim.id), records.get(claim.id)
    return {
        "id": claim.id,
        "title": claim.title,
        "sha256": claim.hash(),
        "registered": None if lock is None else lock.registered,
        "state": _state(claim, lock, record),
        "verdict": None if record is None else record.to_dict(),
    }


def _styled(word: str) -> tuple[str, str]:
    return word, STYLES.get(word, "")


def _list(
    claims: tuple[Registration, ...] | list[Registration],
    locks: dict[str, Lock] | None,
    records: dict[str, VerdictRecord],
    console: Console,
) -> None:
    """A row a claim; without locks, of claims that have just been judged."""
    if not claims:
        console.print("No claim is registered there.")
        return
    table = Table(box=None)
    for head in ("id", "claim", "verdict", "by family"):
        table.add_column(head, no_wrap=head == "id", overflow="fold")
    for claim in claims:
        record = records.get(claim.id)
        state = _state(claim, None if locks is None else locks.get(claim.id), record)
        families = [] if record is None else [(v.family, v.word) for m in record.measures[:1] for v in m.families]
        words = ", ".join(f"{family} {word}" for family, word in families)
        table.add_row(claim.id, styled(claim.title), styled(_styled(state)), styled(words))
    console.print(table)


def _show(claim: Registration, lock: Lock | None, record: VerdictRecord | None, console: Console) -> None:
    sample = claim.sample
    lines = {
        "claim": claim.claim,
        "hypothesis": claim.hypothesis,
        "statistic": f"{claim.statistic.name}: {claim.statistic.arguments}",
        "networks": str(claim.population),
        "unit": ", ".join(claim.unit),
        "sample": f"{sample.units} units a family: power {sample.power:.2f} at an effect of {sample.effect:g}",
        "decision": claim.decision.in_words(),
        "control": str(claim.control),
        "hash": claim.hash(),
        "registered": "no" if lock is None else lock.registered,
        "verdict": _state(claim, lock, record),
    }
    grid = Table.grid(padding=(0, 2))
    for name, text in lines.items():
        grid.add_row(styled((name, "bold")), styled(" ".join(text.split())))
    console.print(styled((f"{claim.id}: {claim.title}", "bold")))
    console.print(grid)
    if record is not None:
        console.print()
        console.print(record.paragraph)
