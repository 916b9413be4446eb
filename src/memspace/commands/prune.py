"""``memspace prune``: a smaller network, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor

from memspace.commands import MOST, DataRoot, Device, Seed, TaskName, Weights, move_to, parse_memory, say_json, watching
from memspace.report.terminal import Terminal

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("prune")(prune)


def _share(value: float) -> float:
    if not 0 < value <= 1:
        raise typer.BadParameter("the share kept lies in (0, 1]")
    return value


def prune(
    task: TaskName,
    out: Annotated[Path, typer.Option(help="Where the pruned state dict is written (safetensors).")],
    keep: Annotated[float, typer.Option(help="Share of the weight matrices' entries kept.", callback=_share)] = 0.1,
    method: Annotated[
        str, typer.Option(help="magnitude, fisher-diagonal, fisher-inverse or geometric-median.")
    ] = "fisher-inverse",
    objective: Annotated[
        str, typer.Option(help="What fisher-inverse keeps: function (predictions as they were) or loss (labels).")
    ] = "function",
    rows: Annotated[int, typer.Option(help="Fisher rows per round of fisher-inverse.", min=16, max=MOST)] = 500,
    weights: Weights = None,
    data_root: DataRoot = None,
    report: Annotated[Path | None, typer.Option(help="HTML page with every method's curve down to --keep.")] = None,
    memory: Annotated[str, typer.Option(help="What the Fisher rows may hold.")] = "1GiB",
    seed: Seed = 0,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Measurements as JSON on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")] = False,
) -> None:
    """Set weights to zero, let the others make up for it, and write the new state dict."""
    from memspace.auditing.chapters.pruning import SHARES, comparison
    from memspace.auditing.store import write_tensors, write_text
    from memspace.measures.compensated import PruneSettings
    from memspace.measures.objective import OBJECTIVES
    from memspace.measures.pruned import measured
    from memspace.measures.pruning import METHODS
    from memspace.measures.pruning import prune as pruned_networks
    from memspace.passes.verify import verified_space
    from memspace.report.format import format_value
    from memspace.report.html import render
    from memspace.task.builtin import BuildOptions
    from memspace.task.checks import check_task, untouched
    from memspace.task.load import resolve

    for name, value, known in (("method", method, METHODS), ("objective", objective, OBJECTIVES)):
        if value not in known:
            raise typer.BadParameter(f"{name} is one of {', '.join(known)}")
    surgery = PruneSettings(objective=objective, rows=rows, memory=parse_memory(memory), seed=seed)
    with watching(Terminal(stderr=True), quiet or as_json) as progress:
        job = resolve(task, BuildOptions(seed=seed, data_root=data_root), progress, weights)
        if device is not None:
            move_to(job.model, device)
        check_task(job)
        with untouched(job.model):
            space = verified_space(job)
            shares = [keep, *(s for s in SHARES if s > keep)] if report is not None else [keep]
            networks = pruned_networks(job, space, method, shares, surgery=surgery, progress=progress)
            found = networks[-1]
            measurements = measured(job, space, found)
            state = {k: v.detach() for k, v in job.model.state_dict().items() if isinstance(v, Tensor)}
            state |= space.unpack(found.flat)
            write_tensors(out, state)
            if report is not None:
                write_text(report, render(comparison(job, space, networks, measurements, surgery, progress)))
    if as_json:
        say_json({"out": str(out), "measurements": [m.to_dict() for m in measurements]})
    elif not quiet:
        console = Terminal()
        console.print(f"{method}: {found.share:.1%} of the weights kept, written to {out}", highlight=False)
        for m in measurements:
            console.print(f"  {m.estimator}: {format_value(m)}", highlight=False)
