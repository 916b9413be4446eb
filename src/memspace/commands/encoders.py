"""``memspace encoders``: encoders of images with known factors, trained by the methods of the field and scored."""

from __future__ import annotations

import math
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

    from memspace.measures.scores.agreement import ScoreAgreement
    from memspace.verbs.encoders import TrainedEncoders

__all__ = ["EncoderOptions", "agreement", "run_encoders", "status_encoders", "table"]

STAGES = "train,measure"  # as memspace.verbs.encoders has them, read when needed
Name = Annotated[str, typer.Argument(help="A shipped set (open, small, full), or a TOML file that declares one.")]
Store = Annotated[Path | None, out("Folder of the store.", "runs/encoders-NAME")]
Tables = Annotated[str, typer.Argument(help="Folder of a store or of its tables; shipped: the package's own.")]


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """Where the work on encoders runs."""

    workers: Annotated[int, COUNT, option("Processes of one thread each.")] = 2
    engine: Annotated[str, option("What runs them.", words=("local", "ray"))] = "local"
    data_root: Annotated[Path | None, option("Folder (or file) the task's data are read from.")] = None
    train_on: Annotated[str, option("Device that encoders are trained on.")] = "cpu"
    stages: Annotated[str, option("What to do, separated by commas; the default is all.")] = STAGES


@command("run", group="encoders", goes_on=True)
def run_encoders(chosen: EncoderOptions, output: Output, name: Name = "small", out: Store = None) -> None:
    """Train a set's encoders, score their codes and measure their geometry; what the store holds is not repeated."""
    from memspace.verbs.encoders import EncoderWork, train_encoders

    stages = tuple(s.strip() for s in chosen.stages.split(",") if s.strip())
    work = EncoderWork(chosen.workers, chosen.engine, chosen.data_root, stages, chosen.train_on)
    with watching(Terminal(stderr=True), output.silent) as progress:
        results = train_encoders(name, out=_folder(name, out), work=work, progress=progress)
    tell(output, results.to_dict(), lambda console: _summarise(results, console))


@command("status", group="encoders")
def status_encoders(output: Output, name: Name = "small", out: Store = None) -> None:
    """Show how much of a set is in its store."""
    from memspace.encoders.declaration import load_encoders
    from memspace.encoders.settings import EncoderMeasuring
    from memspace.encoders.store import EncoderStore
    from memspace.verbs.encoders import TrainedEncoders

    results = TrainedEncoders(load_encoders(name), EncoderStore(_folder(name, out)), EncoderMeasuring())
    tell(output, results.to_dict(), lambda console: _summarise(results, console))


@command(group="encoders")
def table(
    output: Output,
    to: Annotated[Path, option("Parquet file that gets the table, a row an encoder.")],
    store: Tables = "shipped",
) -> None:
    """Write encoders with all that was measured of them as one Parquet file."""
    from memspace.files import written
    from memspace.verbs.encoders import encoder_table

    frame = encoder_table(store)
    written(to, lambda path: frame.write_parquet(path, compression="zstd", compression_level=19))
    described = {"file": str(to), "encoders": frame.height, "columns": frame.width}
    tell(output, described, lambda console: console.print(f"{to}: {frame.height} encoders, {frame.width} columns"))


@command(group="encoders")
def agreement(
    output: Output,
    store: Tables = "shipped",
    world: Annotated[str | None, option("World whose encoders are compared.", shown="all")] = None,
) -> None:
    """Say how far the scores agree on which encoders are better: rank correlations of every two."""
    from memspace.verbs.encoders import score_agreement

    result = score_agreement(store, world=world)
    ends = {"correlation": result.matrix, "low": result.low, "high": result.high}
    described = {
        "scores": list(result.names),
        "encoders": result.models.tolist(),
        **{k: [[None if math.isnan(v) else v for v in row] for row in m.tolist()] for k, m in ends.items()},
    }
    tell(output, described, lambda console: _matrix(result, console))


def _matrix(result: ScoreAgreement, console: Console) -> None:
    from rich.table import Table

    shown = Table(title="Spearman's ρ × 100 between scores", box=None, padding=(0, 0, 0, 1))
    shown.add_column("", no_wrap=True)
    for k in range(len(result.names)):
        shown.add_column(str(k + 1), justify="right", no_wrap=True)
    for k, name in enumerate(result.names):
        cells = ["" if math.isnan(v) or j == k else f"{100 * v:.0f}" for j, v in enumerate(result.matrix[k])]
        shown.add_row(f"{k + 1:>2} {name}", *cells)
    console.print(shown)
    console.print(f"over {int(result.models.max())} encoders; intervals in --json")


def _folder(name: str, out: Path | None) -> Path:
    return out if out is not None else Path("runs") / f"encoders-{Path(name).stem}"


def _summarise(results: TrainedEncoders, console: Console) -> None:
    console.print(str(results))
