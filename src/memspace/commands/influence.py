"""``memspace influence TASK --query 17``: the training examples behind a prediction, and where they are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from memspace.commands import (
    MOST,
    Damping,
    DataRoot,
    Device,
    Memory,
    Noise,
    Seed,
    TaskName,
    Weights,
    move_to,
    parse_memory,
    watching,
)
from memspace.report.terminal import Terminal, styled

if TYPE_CHECKING:
    from torch import Tensor

    from memspace.attribution.result import Influence, Parts, Top
    from memspace.task.task import Task

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(influence)


def influence(
    task: TaskName,
    query: Annotated[list[int], typer.Option(help="Test example whose outcome to explain; repeatable.")],
    engine: Annotated[str, typer.Option(help="auto, ekfac, dual, iterative; unrolled, segments, ensemble.")] = "auto",
    target: Annotated[
        str, typer.Option(help="The outcome: loss (positive supports it), margin, logit:A-B or logp:K.")
    ] = "loss",
    damping: Damping = None,
    top: Annotated[int, typer.Option(min=1, max=MOST, help="Supporters and opposers shown and kept.")] = 20,
    split: Annotated[str | None, typer.Option(help="Split the scores shown by layers or by modes.")] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Each position of a query is an outcome of its own.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for scores.parquet and top.json.")] = None,
    retrainings: Annotated[
        int, typer.Option(min=0, max=MOST, help="Networks on halves of the data that set the damping.")
    ] = 16,
    networks: Annotated[int, typer.Option(min=1, max=MOST, help="Networks of the engine ensemble.")] = 5,
    left_out: Annotated[
        float, typer.Option(min=0, max=0.9, help="Unrolled, ensembles: share left out of the subsets asked about.")
    ] = 0.0,
    points: Annotated[
        int,
        typer.Option(
            min=1, max=MOST, help="Unrolled: derivatives about --left-out, an odd number; their median counts."
        ),
    ] = 1,
    weights: Weights = None,
    data_root: DataRoot = None,
    label_noise: Noise = 0.0,
    seed: Seed = 0,
    memory: Memory = "4GiB",
    parameters: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Only parameters whose names match; !PATTERN excludes; repeatable."),
    ] = None,
    device: Device = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no table.")] = False,
) -> None:
    """Show which training examples support and oppose a prediction, and where they are stored."""
    from memspace.attribution.attribution import attribute, uses_training
    from memspace.attribution.influence import influence as whole
    from memspace.attribution.settings import InfluenceSettings
    from memspace.attribution.stream import stream_influence
    from memspace.attribution.unrolled import Unrolled
    from memspace.task.builtin import BuildOptions
    from memspace.task.load import resolve

    if split not in (None, "layers", "modes"):
        raise typer.BadParameter("split is one of layers, modes")
    trained = uses_training(engine)
    if trained and (out is not None or split is not None or tokens or damping is not None):
        raise typer.BadParameter(f"the engine {engine} takes no --out, --split, --tokens or --damping")
    settings = InfluenceSettings(memory=parse_memory(memory), retrainings=retrainings, seed=seed)
    options = BuildOptions(seed=seed, label_noise=label_noise, data_root=data_root)
    say: dict[str, Any] = {"engine": engine, "target": target, "settings": settings}
    with watching(Terminal(stderr=True), quiet) as progress:
        job = resolve(task, options, progress, weights)
        if parameters:
            job = replace(job, parameters=tuple(parameters))
        if device is not None:
            move_to(job.model, device)
        shown: _Shown | None = None
        if trained:
            point = Unrolled(seed=seed, left_out=left_out, points=points, memory=settings.memory)
            named: dict[str, Any] = {"engine": engine, "target": target, "networks": networks, "training": point}
            found = attribute(job, query, settings=settings, progress=progress, **named)
            shown = _Shown(_facts(found), found.queries, found.positions, found.outcome, found.top(top))
        if out is not None:
            stored = stream_influence(
                job, out, query, damping=damping, top=top, tokens=tokens, progress=progress, **say
            )
            damping = stored.facts["damping"]
            shown = _Shown(stored.facts, stored.queries, stored.positions, stored.outcome, stored.top)
        if not trained and (shown is None or split is not None):
            each = "queries" if tokens else None
            found = whole(job, query, damping=damping, split=split, tokens=each, progress=progress, **say)
            facts = shown.facts if shown is not None else _facts(found)
            shown = _Shown(facts, found.queries, found.positions, found.outcome, found.top(top), found.parts)
    if not quiet and shown is not None:
        _show(job, shown, Terminal())
        if out is not None:
            typer.echo(f"all scores in {out / 'scores.parquet'}, the strongest in {out / 'top.json'}")


@dataclass(frozen=True)
class _Shown:
    """What the table needs; ``facts`` as ``top.json`` holds them."""

    facts: dict[str, Any]
    queries: Tensor
    positions: Tensor | None
    outcome: Tensor
    top: Top
    parts: Parts | None = None


def _facts(found: Influence) -> dict[str, Any]:
    return {
        "engine": found.engine,
        "target": found.target,
        "unit": found.unit,
        "damping_rule": found.damping_rule,
        "reliable": found.reliable,
        "note": found.note,
        "diagnostics": [d.to_dict() for d in found.diagnostics],
    }


def _show(task: Task, shown: _Shown, console: Console) -> None:
    facts, top = shown.facts, shown.top
    name = "-loss" if facts["target"] == "loss" else facts["target"]
    said = f": influence on {name} by the engine {facts['engine']}, in {facts['unit']}"
    console.print(styled((task.name, "bold"), said))
    console.print("positive: the example supports the outcome (with it minus without it, to first order)")
    console.print(facts["damping_rule"])
    for told in facts["diagnostics"]:
        if "reason" in told:
            console.print(f"{told['name']}: not measured, {told['reason']}")
        else:
            unit = "" if told["unit"] == "1" else f" {told['unit']}"
            console.print(f"{told['name']}: {told['value']:.2g}{unit} ({told['estimator']})")
    if not facts["reliable"]:
        console.print(styled((f"take these scores with care: {facts['note']}", "yellow")))
    y = task.train.labels()
    for q in range(len(shown.queries)):
        at = f", position {int(shown.positions[q])}" if shown.positions is not None else ""
        title = f"query {int(shown.queries[q])}{at}: {name} {float(shown.outcome[q]):.3g} {facts['unit']}"
        table = Table(title=title, title_justify="left")
        for column in ("supporter", "label", "score", "opposer", "label", "score"):
            table.add_column(column, justify="right")
        if shown.parts is not None:
            table.add_column(f"supporter by {shown.parts.by}: greatest parts")
        for r in range(top.support.shape[1]):
            i, j = int(top.supporters[q, r]), int(top.opposers[q, r])
            up, down = float(top.support[q, r]), float(top.opposition[q, r])
            left = (f"{i}", _label(task, y, i), f"{up:.3g}") if up > 0 else ("", "", "")
            right = (f"{j}", _label(task, y, j), f"{down:.3g}") if down < 0 else ("", "", "")
            part = [] if shown.parts is None else [_greatest(shown.parts, q, i) if up > 0 else ""]
            table.add_row(*left, *right, *part)
        console.print(table)


def _label(task: Task, y: Any, i: int) -> str:
    if y.dim() > 1 or y.is_floating_point():
        return ""
    return task.class_names[int(y[i])] if task.class_names is not None else str(int(y[i]))


def _greatest(parts: Parts, q: int, i: int) -> str:
    scores = parts.scores[q, i]
    order = scores.abs().argsort(descending=True)[:3].tolist()
    return ", ".join(f"{parts.names[k]} {float(scores[k]):.2g}" for k in order)
