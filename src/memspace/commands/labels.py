"""``memspace labels``: training labels that look wrong, the likeliest first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memspace.commands import Damping, DataRoot, Device, Memory, Noise, Seed, TaskName, Weights

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(labels)


def labels(
    task: TaskName,
    top: Annotated[int, typer.Option(help="How many labels to list.", min=1)] = 50,
    out: Annotated[Path | None, typer.Option(help="Parquet file for the list.")] = None,
    weights: Weights = None,
    data_root: DataRoot = None,
    label_noise: Noise = 0.0,
    folds: Annotated[
        int | None, typer.Option(help="Parts of the data for refits; 0: none. Not given: as an audit.", min=0)
    ] = None,
    repeats: Annotated[int, typer.Option(help="Partitions averaged over.", min=1)] = 1,
    damping: Damping = None,
    seed: Seed = 0,
    memory: Memory = "4GiB",
    device: Device = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no list.")] = False,
) -> None:
    """List training labels that look wrong, with a probability, a suggestion and the examples behind it."""
    from rich.table import Table

    from memspace.audit.audit import Settings
    from memspace.audit.label_issues import label_issues
    from memspace.commands import move_to, parse_memory, watching
    from memspace.report.terminal import Terminal
    from memspace.task.builtin import BuildOptions
    from memspace.task.load import resolve
    from memspace.workers import local_device

    if folds == 1:
        raise typer.BadParameter("a partition has at least two parts (0: no refits)")
    options = BuildOptions(seed=seed, label_noise=label_noise, data_root=data_root)
    with watching(Terminal(stderr=True), quiet) as progress:
        job = resolve(task, options, progress, weights)
        if device is not None:
            move_to(job.model, local_device(device))
        settings = Settings(damping, parse_memory(memory), seed)
        found = label_issues(job, settings=settings, folds=folds, repeats=repeats, reasons=top, progress=progress)
    if out is not None:
        found.save(out, top)
    if quiet:
        return
    names = job.class_names

    def named(k: int) -> str:
        return names[k] if names is not None and 0 <= k < len(names) else str(k)

    table = Table("example", "label", "suggested", "probability wrong", "loss (nats)", "for suggested", "for label")
    t = found.table
    for k in range(min(top, len(found))):
        sides = (", ".join(map(str, t[side][k] or ())) for side in ("for_suggested", "for_label"))
        numbers = (f"{t['p_wrong_label'][k]:.1%}", f"{t['train_loss'][k]:.3g}")
        table.add_row(str(t["index"][k]), named(t["label"][k]), named(t["suggested_label"][k]), *numbers, *sides)
    console = Terminal()
    console.print(table)
    low, high = found.noise.interval or (found.noise.value, found.noise.value)
    said = found.noise.note
    console.print(f"Estimated share of wrong labels {found.noise.value:.1%} ({low:.1%} to {high:.1%}): {said}.")
    console.print(f"Judged by {found.estimator}; {found.seconds['total']:.1f} s.")
