"""``memspace study``: training that pays for action against the usual regularisers, by two designs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from memspace.commands.declaration import command
from memspace.commands.opened import opened, watching
from memspace.commands.options import Fresh, Output, Share, TaskOptions, option, out
from memspace.commands.output import default_folder, tell
from memspace.limits import COUNT, SEVERAL, WHOLE
from memspace.report.terminal import Terminal, styled

if TYPE_CHECKING:
    from rich.text import Text

    from memspace.experiments.action_study import ActionStudy
    from memspace.experiments.action_verdict import MethodComparison
    from memspace.experiments.interventions import InterventionRows

__all__ = ["SeedOptions", "StudyOptions", "action", "intervene"]

Plan = Annotated[Path | None, typer.Argument(help="TOML file of data and arms.", show_default="the package's own")]
STYLES = {"better": "green", "worse": "red", "undecided": ""}


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How many examples and trainings the study takes."""

    train: Annotated[int | None, SEVERAL, option("Training examples of a seed.", shown="4/5 of all")] = None
    valid: Annotated[int | None, COUNT, option("Validation examples.", shown="1/5 of all")] = None
    test: Annotated[int | None, COUNT, option("Test examples, at most.", shown="all")] = None
    steps: Annotated[int, COUNT, option("Steps of plain training; others get as much time.")] = 1000
    seeds: Annotated[int, SEVERAL, option("Fresh seeds at the chosen setting.")] = 10
    tuning: Annotated[int, COUNT, option("Seeds of each setting before.")] = 2
    workers: Annotated[int, COUNT, option("Processes of one thread each.")] = 2


@command(group="study", goes_on=True)
def action(
    which: TaskOptions,
    chosen: StudyOptions,
    output: Output,
    label_noise: Share = 0.0,
    out: Annotated[Path | None, out("Folder that keeps every finished training.", "runs/NAME-action-NOISE")] = None,
    fresh: Fresh = False,
) -> None:
    """Compare regularisers of the action with decay, dropout, smoothing and others at equal compute and tuning."""
    from memspace.experiments.action_settings import StudySettings
    from memspace.verbs.study import study

    settings = StudySettings(noise=label_noise, **asdict(chosen))
    with opened(which, output, train_network=False) as (task, progress):
        folder = out if out is not None else default_folder(f"{task.name}-action-{label_noise:g}")
        results = study(task, out=folder, fresh=fresh, settings=settings, progress=progress)
    tell(output, results.to_dict(), lambda console: _summarise(results, folder, console))


def _summarise(found: ActionStudy, folder: Path, console: Console) -> None:
    from memspace.experiments.action_study import BASELINE
    from memspace.experiments.action_verdict import SHOWN
    from memspace.format import format_value

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
    console = Terminal(width=max(console.width, 130))
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
    from memspace.format import format_value

    star = "*" if c.strict else ""
    return styled(f"{format_value(c.difference)} ", (c.verdict, STYLES[c.verdict]), star)


@dataclass(frozen=True, kw_only=True)
class SeedOptions:
    """Which seeds are trained, and where the data are."""

    seeds: Annotated[int, SEVERAL, option("Seeds, each trained in every arm.")] = 20
    first: Annotated[int, WHOLE, option("The first of the seeds.")] = 100
    workers: Annotated[int, COUNT, option("Processes of one thread each.")] = 2
    data_root: Annotated[Path | None, option("Folder (or file) the task's data are read from.")] = None


@command("interventions", group="study", goes_on=True)
def intervene(
    chosen: SeedOptions,
    output: Output,
    plan: Annotated[
        Path | None, typer.Argument(help="TOML file of the arms.", show_default="the package's own")
    ] = None,
    out: Annotated[Path, out("Folder of interventions.parquet, a store of claims.")] = Path("runs/interventions"),
    fresh: Fresh = False,
) -> None:
    """Train arms that differ in the regulariser alone, and read all of them at one training loss."""
    from memspace.experiments.action_plan import PLAN, read_plan
    from memspace.experiments.interventions import InterventionSettings, interventions

    settings = InterventionSettings(**asdict(chosen))
    with watching(Terminal(stderr=True), output.silent) as progress:
        results = interventions(read_plan(plan or PLAN), settings, out=out, fresh=fresh, progress=progress)
    tell(output, results.to_dict(), lambda console: _list_arms(results, out, console))


def _list_arms(results: InterventionRows, out: Path, console: Console) -> None:
    """A row a workload and arm: how many reached the training loss, and means over these."""
    columns = results.columns
    shown = (
        "step",
        "train_loss",
        "test_loss",
        "test_accuracy",
        "fisher_rao_norm",
        "weight_norm",
        "action",
        "depth_action",
    )
    table = Table(title=str(results).splitlines()[0], box=None)
    for head in ("workload", "arm", "reached", *shown):
        table.add_column(head.replace("_", " "), no_wrap=head in ("workload", "arm"))
    groups: dict[tuple[str, str], list[int]] = {}
    for k, group in enumerate(zip(columns["family"], columns["arm"], strict=True)):
        groups.setdefault(group, []).append(k)
    for (family, arm), of in groups.items():
        reached = [k for k in of if columns["fitted"][k]]
        means = [f"{fmean(columns[name][k] for k in reached):.4g}" if reached else "–" for name in shown]
        table.add_row(styled(family), styled(arm), f"{len(reached)}/{len(of)}", *means)
    console.print(table)
    console.print(styled("Table: ", (str(out / "interventions.parquet"), "bold")), soft_wrap=True)
