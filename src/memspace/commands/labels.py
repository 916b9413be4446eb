"""``memspace labels``: training labels that look wrong, the likeliest first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from memspace.commands import MOST, Damping, DataRoot, Device, Memory, Noise, Seed, TaskName, Weights

__all__ = ["add"]

HEADS = {
    "index": "example",
    "output": "output",
    "label": "label",
    "suggested_label": "suggested",
    "value": "value",
    "prediction": "without the example",
    "standardised_residual": "off by (σ)",
    "p_wrong_label": "probability wrong",
    "p_outlier": "probability outlier",
    "train_loss": "loss (nats)",
    "for_suggested": "for suggested",
    "for_label": "for label",
}


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(labels)


def labels(
    task: TaskName,
    top: Annotated[int, typer.Option(help="How many labels to list.", min=1, max=MOST)] = 50,
    out: Annotated[Path | None, typer.Option(help="File for the list, .parquet or .csv.")] = None,
    weights: Weights = None,
    data_root: DataRoot = None,
    label_noise: Noise = 0.0,
    folds: Annotated[
        int | None, typer.Option(help="Parts of the data for refits; 0: none. Not given: as an audit.", min=0, max=MOST)
    ] = None,
    repeats: Annotated[int, typer.Option(help="Partitions averaged over.", min=1, max=MOST)] = 1,
    damping: Damping = None,
    seed: Seed = 0,
    memory: Memory = "4GiB",
    device: Device = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no list.")] = False,
) -> None:
    """List training labels that look wrong, with a probability, a suggestion and the examples behind it."""
    from rich.table import Table

    from memspace.auditing.audit import AuditSettings
    from memspace.auditing.label_issues import label_issues
    from memspace.auditing.table_file import table_path
    from memspace.commands import move_to, parse_memory, watching
    from memspace.report.terminal import Terminal
    from memspace.task.builtin import BuildOptions
    from memspace.task.load import resolve
    from memspace.workers import local_device

    if out is not None:
        table_path(out)
    options = BuildOptions(seed=seed, label_noise=label_noise, data_root=data_root)
    with watching(Terminal(stderr=True), quiet) as progress:
        job = resolve(task, options, progress, weights)
        if device is not None:
            move_to(job.model, local_device(device))
        settings = AuditSettings(damping, parse_memory(memory), seed)
        found = label_issues(job, settings=settings, folds=folds, repeats=repeats, reasons=top, progress=progress)
    if out is not None:
        found.save(out, top)
    if quiet:
        return
    names = None if "output" in found.table else job.class_names

    def named(k: int) -> str:
        return names[k] if names is not None and 0 <= k < len(names) else str(k)

    t = found.table
    shown = [name for name in HEADS if name in t]
    table = Table(*(HEADS[name] for name in shown))
    for k in range(min(top, len(found))):
        table.add_row(*(_cell(name, t[name][k], named) for name in shown))
    console = Terminal()
    console.print(table)
    low, high = found.noise.interval or (found.noise.value, found.noise.value)
    what = "outliers" if "p_outlier" in t else "wrong labels"
    said = f": {found.noise.note}" if found.noise.note else ""
    console.print(f"Estimated share of {what} {found.noise.value:.1%} ({low:.1%} to {high:.1%}){said}.")
    console.print(f"Judged by {found.estimator}; {found.seconds['total']:.1f} s.")


def _cell(name: str, value: Any, named: Callable[[int], str]) -> str:
    if name in ("label", "suggested_label"):
        return named(value)
    if name.startswith("for_"):
        return ", ".join(map(str, value or ()))
    if name.startswith("p_"):
        return f"{value:.1%}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
