"""``memspace zoo``: train and measure a declared zoo of networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memspace.commands.declaration import command
from memspace.commands.opened import watching
from memspace.commands.options import Output, option, out
from memspace.commands.output import tell
from memspace.limits import COUNT, KEPT, SEVERAL
from memspace.report.terminal import Terminal

if TYPE_CHECKING:
    from rich.console import Console

    from memspace.verbs.judge import JudgedZoo
    from memspace.verbs.zoo import TrainedZoo

__all__ = ["JudgeOptions", "ZooOptions", "judge_measures", "pack", "run", "status"]

STAGES = "train,outcomes,measures,layers,nuisance,capacity,memory"  # as memspace.verbs.zoo has them, read when needed
Name = Annotated[str, typer.Argument(help="A shipped zoo (standard, small), or a TOML file that declares one.")]
Store = Annotated[Path | None, out("Folder of the store.", "runs/zoo-NAME")]


@dataclass(frozen=True, kw_only=True)
class ZooOptions:
    """Where a zoo's work runs."""

    workers: Annotated[int, COUNT, option("Processes of one thread each.")] = 2
    engine: Annotated[str, option("What runs them.", words=("local", "ray"))] = "local"
    data_root: Annotated[Path | None, option("Folder (or file) the task's data are read from.")] = None
    stages: Annotated[str, option("What to do, separated by commas; the default is all.")] = STAGES


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """What the measures are judged by."""

    gap: Annotated[str, option("The gap that is told.", words=("loss", "accuracy"))] = "loss"
    moment: Annotated[float, KEPT, option("Share of the training at which measures were taken.")] = 1.0
    families: Annotated[bool, option("Judge within each family as well (in --json).")] = False
    draws: Annotated[int, SEVERAL, option("Draws of every bootstrap.")] = 1000
    workers: Annotated[int, COUNT, option("Processes that share the measures.")] = 2
    zoo: Annotated[str | None, option("Name of the zoo whose networks are judged.", shown="all in the store")] = None


@command(group="zoo", goes_on=True)
def run(chosen: ZooOptions, output: Output, name: Name = "standard", out: Store = None) -> None:
    """Train a zoo's networks to one training loss, and measure them; what the store holds is not repeated."""
    from memspace.verbs.zoo import WorkSettings, train_zoo

    stages = tuple(s.strip() for s in chosen.stages.split(",") if s.strip())
    settings = WorkSettings(chosen.workers, chosen.engine, chosen.data_root, stages)
    with watching(Terminal(stderr=True), output.silent) as progress:
        results = train_zoo(name, out=_folder(name, out), settings=settings, progress=progress)
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


@command("judge", group="zoo")
def judge_measures(
    chosen: JudgeOptions,
    output: Output,
    store: Annotated[Path, typer.Argument(help="Folder of a zoo's store or tables; shipped: the package's own.")],
    out: Annotated[Path | None, out("Parquet file of every statistic, a row a measure.", "none")] = None,
) -> None:
    """Judge which measures tell the gap of a zoo's networks: rank correlations, worst environment, prediction."""
    from memspace.verbs.judge import judge_zoo

    with watching(Terminal(stderr=True), output.silent) as progress:
        results = judge_zoo(
            store,
            gap="accuracy" if chosen.gap == "accuracy" else "loss",
            moment=chosen.moment,
            families=chosen.families,
            draws=chosen.draws,
            zoo=chosen.zoo or "",
            workers=chosen.workers,
            progress=progress,
        )
    if out is not None:
        from memspace.files import written

        written(out, lambda path: results.judgement.frame.write_parquet(path))
    tell(output, results.to_dict(), lambda console: _judged(results, console))


def _judged(results: JudgedZoo, console: Console) -> None:
    from rich.table import Table

    table = Table(title=str(results).splitlines()[0], box=None)
    for head in ("measure", "n", "τ", "granulated", "worst knob", "worst environment", "error of prediction"):
        table.add_column(head, no_wrap=head == "measure")
    rows = results.judgement.frame.to_dicts()
    names = ("tau", "psi", "psi_worst", "settings_error_worst", "predicted_rmse_change")
    for row in sorted(rows, key=lambda r: -abs(r.get("psi") or r.get("tau") or 0.0)):
        cells = [_cell(row, name) for name in names]
        table.add_row(row["measure"], f"{row['n']:,}", *cells)
    console.print(table)
    console.print("brackets: 95%; error of prediction: change when the measure joins the hyper-parameters, nats")


def _cell(row: dict[str, Any], name: str) -> str:
    value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return ""
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _folder(name: str, out: Path | None) -> Path:
    return out if out is not None else Path("runs") / f"zoo-{Path(name).stem}"


def _summarise(results: TrainedZoo, console: Console) -> None:
    console.print(str(results))
