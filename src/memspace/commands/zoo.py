"""``memspace zoo``: train and measure a declared zoo of networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memspace.commands.declaration import command
from memspace.commands.opened import watching
from memspace.commands.options import Output, option, out
from memspace.commands.output import tell
from memspace.limits import COUNT
from memspace.report.terminal import Terminal

if TYPE_CHECKING:
    from rich.console import Console

    from memspace.verbs.zoo import TrainedZoo

__all__ = ["ZooOptions", "pack", "run", "status"]

STAGES = "train,outcomes,measures,layers"  # as of memspace.verbs.zoo, which is not read before it is needed
Name = Annotated[str, typer.Argument(help="A shipped zoo (standard, small), or a TOML file that declares one.")]
Store = Annotated[Path | None, out("Folder of the store.", "runs/zoo-NAME")]


@dataclass(frozen=True, kw_only=True)
class ZooOptions:
    """Where a zoo's work runs."""

    workers: Annotated[int, COUNT, option("Processes of one thread each.")] = 2
    engine: Annotated[str, option("What runs them.", words=("local", "ray"))] = "local"
    data_root: Annotated[Path | None, option("Folder of the data sets.", shown="MEMSPACE_DATA")] = None
    stages: Annotated[str, option("What to do, separated by commas; the default is all.")] = STAGES


@command(group="zoo", goes_on=True)
def run(chosen: ZooOptions, output: Output, name: Name = "standard", out: Store = None) -> None:
    """Train a zoo's networks to one training loss, and measure them; what the store holds is not repeated."""
    from memspace.verbs.zoo import WorkSettings, zoo

    stages = tuple(s.strip() for s in chosen.stages.split(",") if s.strip())
    settings = WorkSettings(chosen.workers, chosen.engine, chosen.data_root, stages)
    with watching(Terminal(stderr=True), output.silent) as progress:
        results = zoo(name, out=_folder(name, out), settings=settings, progress=progress)
    tell(output, results.to_dict(), lambda console: _summarise(results, console))


@command(group="zoo")
def status(output: Output, name: Name = "standard", out: Store = None) -> None:
    """Show how much of a zoo is in its store."""
    from memspace.verbs.zoo import TrainedZoo
    from memspace.zoo.declaration import load_zoo
    from memspace.zoo.store import ZooStore

    results = TrainedZoo(load_zoo(name), ZooStore(_folder(name, out)))
    tell(output, results.to_dict(), lambda console: _summarise(results, console))


@command(group="zoo")
def pack(
    output: Output,
    to: Annotated[Path, option("Folder that gets the packed tables.")],
    name: Name = "standard",
    out: Store = None,
) -> None:
    """Copy a store's tables, a Parquet file each, without the weights."""
    from memspace.zoo.store import ZooStore

    packed = ZooStore(_folder(name, out)).pack(to)
    digest = packed.digest()
    tell(output, {"folder": str(to), "digest": digest}, lambda console: console.print(f"{to}: {digest}"))


def _folder(name: str, out: Path | None) -> Path:
    return out if out is not None else Path("runs") / f"zoo-{Path(name).stem}"


def _summarise(results: TrainedZoo, console: Console) -> None:
    console.print(str(results))
