"""``memspace study action``: training that pays for action against the usual regularisers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.table import Table

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import Fresh, Output, Share, TaskOptions, option, out
from memspace.commands.output import default_folder, tell
from memspace.limits import COUNT, SEVERAL
from memspace.report.terminal import Terminal, styled

if TYPE_CHECKING:
    from rich.text import Text

    from memspace.experiments.action_study import ActionStudy
    from memspace.experiments.action_verdict import MethodComparison

__all__ = ["StudyOptions", "action"]

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
    from memspace.experiments.action_study import StudySettings
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
