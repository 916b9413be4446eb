"""``memspace retrain``: what retrained networks say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from memspace.commands import (
    MOST,
    DataRoot,
    Json,
    Noise,
    Seed,
    TaskName,
    default_folder,
    move_to,
    parse_memory,
    say_json,
    watching,
)
from memspace.report.terminal import Terminal, styled

if TYPE_CHECKING:
    from memspace.experiments.retrain import RetrainResults, RetrainSettings
    from memspace.task.task import Task

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(retrain)


def retrain(
    task: TaskName,
    part: Annotated[
        list[str] | None,
        typer.Option(help="half, same-order, left-out or memorisation; repeatable.", show_default="half"),
    ] = None,
    subsets: Annotated[int, typer.Option(help="Random parts of the training data.", min=1, max=MOST)] = 64,
    seeds: Annotated[int, typer.Option(help="Trainings of each.", min=1, max=MOST)] = 2,
    queries: Annotated[int, typer.Option(help="Test examples whose outcomes are measured.", min=1, max=MOST)] = 200,
    share: Annotated[
        list[float] | None, typer.Option(help="Left out in same-order; repeatable.", show_default="0.02 0.1 0.5")
    ] = None,
    example: Annotated[
        list[int] | None, typer.Option(help="Training example to leave out; repeatable.", show_default="50 random ones")
    ] = None,
    together: Annotated[int, typer.Option(help="Examples left out at a time.", min=1, max=MOST)] = 1,
    repeats: Annotated[int, typer.Option(help="Seeds of left-out.", min=2, max=MOST)] = 5,
    networks: Annotated[int, typer.Option(help="Networks of memorisation.", min=2, max=MOST)] = 200,
    label_noise: Noise = 0.0,
    data_root: DataRoot = None,
    out: Annotated[Path | None, typer.Option(help="Folder of results.", show_default="runs/NAME-retrain")] = None,
    seed: Seed = 0,
    memory: Annotated[str, typer.Option(help="What the networks trained together may take.")] = "2GiB",
    device: Annotated[str | None, typer.Option(help="Train there, e.g. cuda.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say how many networks would be trained and stop.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")] = False,
) -> None:
    """Retrain networks on parts of the data and measure what became of the predictions."""
    from memspace.experiments.retrain import RetrainSettings, retraining_study
    from memspace.experiments.store import open_study
    from memspace.experiments.tables import write_study
    from memspace.files import locked
    from memspace.task.builtin import BuildOptions
    from memspace.task.load import resolve

    default = RetrainSettings()
    settings = RetrainSettings(
        parts=tuple(part or default.parts),
        subsets=subsets,
        seeds=seeds,
        queries=queries,
        shares=tuple(share or default.shares),
        examples=tuple(example) if example else None,
        together=together,
        repeats=repeats,
        networks=networks,
        seed=seed,
        memory=parse_memory(memory),
    )
    options = BuildOptions(seed=seed, label_noise=label_noise, data_root=data_root)
    with watching(Terminal(stderr=True), quiet or as_json) as progress:
        job = resolve(task, options, progress, None)
        if device is not None:
            move_to(job.model, device)
        if plan:
            typer.echo(_plan(job, settings))
            return
        folder = out if out is not None else default_folder(f"{job.name}-retrain")
        with locked(folder):
            store = open_study(folder, job)
            results = retraining_study(job, settings, store=store, progress=progress)
            write_study(folder, results.to_dict(), results.tables)
    if as_json:
        say_json(results.to_dict())
    elif not quiet:
        _summarise(results, folder)


def _plan(task: Task, settings: RetrainSettings) -> str:
    from memspace.experiments.retrain import designs_of

    lines = []
    for _, design, queries in designs_of(task, settings):
        kept = float(design.kept.double().mean())
        count = f"{design.seeds.numel():>6,} networks on {kept:.1%} of the data each"
        lines.append(f"{design.name:<18}{count}, {len(queries):,} queries")
    return "\n".join(lines)


def _summarise(results: RetrainResults, folder: Path) -> None:
    from memspace.measurement import Unmeasured
    from memspace.report.format import format_interval, format_value

    grid = Table(box=None, pad_edge=False)
    grid.add_column("quantity", no_wrap=True)
    grid.add_column("figure", no_wrap=True)
    grid.add_column("95% interval")
    for found in results.measurements.values():
        for m in found:
            if isinstance(m, Unmeasured):
                grid.add_row(m.name, "–", f"not measured: {m.reason}; {m.remedy}")
            else:
                unit = "" if m.unit == "1" else f" {m.unit}"
                grid.add_row(m.name, format_value(m) + unit, format_interval(m))
    console = Terminal()
    console.print(grid)
    console.print(styled(f"\n{results.trained:,} networks in {results.seconds:.0f} s; tables: ", (str(folder), "bold")))
