"""``memspace influence TASK --query 17``: the training examples behind a prediction, and where they are stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from memspace.commands import move_to, parse_memory, watching

if TYPE_CHECKING:
    from memspace.influence.result import Influence
    from memspace.task.task import Task

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(influence)


def influence(
    task: Annotated[str, typer.Argument(help="A built-in task (see `memspace tasks`) or module:attribute.")],
    query: Annotated[list[int], typer.Option(help="Test example whose outcome to explain; repeatable.")],
    engine: Annotated[str, typer.Option(help="auto, ekfac, dual or iterative.")] = "auto",
    target: Annotated[
        str, typer.Option(help="The outcome: loss (positive supports it), margin, logit:A-B or logp:K.")
    ] = "loss",
    damping: Annotated[float | None, typer.Option(help="γ; chosen by retrained halves where not given.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Supporters and opposers shown and kept.")] = 20,
    split: Annotated[str | None, typer.Option(help="Split the scores shown by layers or by modes.")] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Each position of a query is an outcome of its own.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for scores.parquet and top.json.")] = None,
    retrainings: Annotated[int, typer.Option(min=0, help="Networks on halves of the data that set the damping.")] = 16,
    weights: Annotated[Path | None, typer.Option(help="Checkpoint: safetensors, or a state dict.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder (or file) the task's data are read from.")] = None,
    label_noise: Annotated[float, typer.Option(help="Share of labels a built-in task corrupts.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    memory: Annotated[str, typer.Option(help="What may be held besides model and data.")] = "4GiB",
    parameters: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Only parameters whose names match; !PATTERN excludes; repeatable."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Move the model there first, e.g. cuda.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no table.")] = False,
) -> None:
    """Show which training examples support and oppose a prediction, and where they are stored."""
    from memspace.influence.influence import influence as whole
    from memspace.influence.settings import Settings
    from memspace.influence.stream import stream_influence
    from memspace.task.builtin import BuildOptions
    from memspace.task.load import resolve

    if split not in (None, "layers", "modes"):
        raise typer.BadParameter("split is one of layers, modes")
    if damping is not None and not damping > 0:
        raise typer.BadParameter("damping must be positive")
    settings = Settings(memory=parse_memory(memory), retrainings=retrainings, seed=seed)
    options = BuildOptions(seed=seed, label_noise=label_noise, data_root=data_root)
    say: dict[str, Any] = {"engine": engine, "target": target, "settings": settings}
    with watching(Console(stderr=True), quiet) as progress:
        job = resolve(task, options, progress, weights)
        if parameters:
            job = replace(job, parameters=tuple(parameters))
        if device is not None:
            move_to(job.model, device)
        if out is not None:
            stored = stream_influence(
                job, out, query, damping=damping, top=top, tokens=tokens, progress=progress, **say
            )
            damping = stored.facts["damping"]
        found = None
        if not quiet:
            each = "queries" if tokens else None
            found = whole(job, query, damping=damping, split=split, tokens=each, progress=progress, **say)
    if found is not None:
        _show(job, found, top, Console())
    if out is not None and not quiet:
        typer.echo(f"all scores in {out / 'scores.parquet'}, the strongest in {out / 'top.json'}")


def _show(task: Task, found: Influence, top: int, console: Console) -> None:
    console.print(f"[bold]{task.name}[/]: influence on {found.target} by the engine {found.engine}, in {found.unit}")
    console.print("positive: the example supports the outcome (with it minus without it, to first order)")
    console.print(found.damping_rule)
    for d in found.diagnostics:
        told = d.to_dict()
        if "reason" in told:
            console.print(f"{told['name']}: not measured, {told['reason']}")
        else:
            console.print(f"{told['name']}: {told['value']:.2g} ({told['estimator']})")
    if not found.reliable:
        console.print(f"[yellow]take these scores with care: {found.note}[/]")
    y = task.train.labels()
    best = found.top(top)
    for q in range(len(found.queries)):
        at = f", position {int(found.positions[q])}" if found.positions is not None else ""
        title = f"query {int(found.queries[q])}{at}: {found.target} {float(found.outcome[q]):.3g} {found.unit}"
        if found.target == "loss":
            title = f"query {int(found.queries[q])}{at}: -loss {float(found.outcome[q]):.3g} {found.unit}"
        table = Table(title=title, title_justify="left")
        names = ("supporter", "label", "score", "opposer", "label", "score")
        for name in names:
            table.add_column(name, justify="right")
        if found.parts is not None:
            table.add_column(f"supporter by {found.parts.by}: greatest parts")
        for r in range(best.support.shape[1]):
            i, j = int(best.supporters[q, r]), int(best.opposers[q, r])
            up, down = float(best.support[q, r]), float(best.opposition[q, r])
            right = (f"{j}", _label(task, y, j), f"{down:.3g}") if down < 0 else ("", "", "")
            left = (f"{i}", _label(task, y, i), f"{up:.3g}") if up > 0 else ("", "", "")
            part = [] if found.parts is None else [_greatest(found, q, i) if up > 0 else ""]
            table.add_row(*left, *right, *part)
        console.print(table)


def _label(task: Task, y: Any, i: int) -> str:
    if y.dim() > 1 or y.is_floating_point():
        return ""
    return task.class_names[int(y[i])] if task.class_names is not None else str(int(y[i]))


def _greatest(found: Influence, q: int, i: int) -> str:
    assert found.parts is not None
    scores = found.parts.scores[q, i]
    order = scores.abs().argsort(descending=True)[:3].tolist()
    return ", ".join(f"{found.parts.names[k]} {float(scores[k]):.2g}" for k in order)
