"""``memspace study action``: training that pays for action against the usual regularisers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from memspace.commands import MOST, DataRoot, Json, Noise, TaskName, default_folder, say_json, watching
from memspace.report.terminal import Terminal, styled

if TYPE_CHECKING:
    from rich.text import Text

    from memspace.experiments.action_study import ActionStudy
    from memspace.experiments.action_verdict import MethodComparison

__all__ = ["add"]

STYLES = {"better": "green", "worse": "red", "undecided": ""}


def add(app: typer.Typer) -> None:
    """Add the group of studies."""
    studies = typer.Typer(no_args_is_help=True, help="Studies that train many networks to a stated verdict.")
    studies.command()(action)
    app.add_typer(studies, name="study")


def action(
    task: TaskName,
    label_noise: Noise = 0.0,
    train: Annotated[
        int | None, typer.Option(min=2, max=MOST, help="Training examples of a seed.", show_default="4/5 of all")
    ] = None,
    valid: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="Validation examples.", show_default="1/5 of all")
    ] = None,
    test: Annotated[int | None, typer.Option(min=1, max=MOST, help="At most so many test examples.")] = None,
    steps: Annotated[
        int, typer.Option(min=1, max=MOST, help="Steps of plain training; others get as much time.")
    ] = 1000,
    seeds: Annotated[int, typer.Option(min=2, max=MOST, help="Fresh seeds at the chosen setting.")] = 10,
    tuning: Annotated[int, typer.Option(min=1, max=MOST, help="Seeds of each setting before.")] = 2,
    workers: Annotated[int, typer.Option(min=1, max=MOST, help="Processes of one thread each.")] = 2,
    data_root: DataRoot = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps every finished training.", show_default="runs/NAME-action-NOISE"),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not go on from what the folder holds.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")] = False,
) -> None:
    """Regularisers of the action, decay, dropout, smoothing and others at equal compute and equal tuning."""
    from memspace.auditing.results import clean
    from memspace.auditing.store import write_text
    from memspace.experiments.action_network import examples_of
    from memspace.experiments.action_study import StudySettings, action_study, open_study_folder
    from memspace.files import locked
    from memspace.task.builtin import BuildOptions
    from memspace.task.load import resolve

    plan = StudySettings(steps=steps, seeds=seeds, tuning=tuning, workers=workers)
    with watching(Terminal(stderr=True), quiet or as_json) as progress:
        job = resolve(task, BuildOptions(data_root=data_root, train_network=False), progress)
        examples = examples_of(job, noise=label_noise, train=train, valid=valid, test=test)
        folder = out if out is not None else default_folder(f"{job.name}-action-{label_noise:g}")
        with locked(folder):
            store = open_study_folder(folder, examples, plan, fresh=fresh)
            found = action_study(examples, plan, store=store, progress=progress)
            content = clean(found.to_dict())
            write_text(folder / "study.json", json.dumps(content, indent=1, ensure_ascii=False))
    if as_json:
        say_json(content)
    elif not quiet:
        _summarise(found, folder)


def _summarise(found: ActionStudy, folder: Path) -> None:
    from memspace.experiments.action_study import BASELINE
    from memspace.experiments.action_verdict import SHOWN
    from memspace.report.format import format_value

    names = [n for n in SHOWN if any(m.name.endswith(f".{n}") for m in found.measurements)]
    heads = [n.replace("_", " ") for n in names]
    table = Table(title=f"{found.data}: means over seeds", box=None)
    for head in ("method", "rate, strength", "steps", "time"):
        table.add_column(head, no_wrap=True)
    for head in heads:
        table.add_column(head)
    for method in found.outcomes:
        rate, strength = found.chosen[method]
        cells = [format_value(found.measurement(method, n)) for n in names]
        table.add_row(
            method,
            f"{rate:g}, {strength:g}",
            f"{found.steps[method]:,}",
            f"{found.times.get(method, 1):.2f}",
            *cells,
        )
    console = Terminal(width=max(Terminal().width, 130))
    console.print(table)
    verdicts = Table(title=f"less {BASELINE}, paired by seed, 95%", box=None)
    verdicts.add_column("method", no_wrap=True)
    for head in heads:
        verdicts.add_column(head)
    by = {(c.method, c.outcome): c for c in found.comparisons}
    for method in found.outcomes:
        if method != BASELINE:
            rows = [by[method, n] for n in names]
            marks = [_mark(c) for c in rows]
            verdicts.add_row(method, *marks)
    console.print(verdicts)
    console.print("time: of a training, plain training's being 1; * also at 95% for all methods together")
    for u in found.unmeasured:
        console.print(f"{u.name} was not measured: {u.reason}; {u.remedy}.")
    if found.edge:
        console.print(f"chosen at the edge of the strengths offered: {', '.join(found.edge)}")
    console.print(f"{found.seconds:.0f} s of training; every training: {folder / 'trainings.jsonl'}")


def _mark(c: MethodComparison) -> Text:
    """The difference and its verdict; a star where it also holds for all methods together."""
    from memspace.report.format import format_value

    star = "*" if c.strict else ""
    return styled(f"{format_value(c.difference)} ", (c.verdict, STYLES[c.verdict]), star)
