"""``memspace duplicates``: examples that are there twice, and test examples among the training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memspace.commands import MOST, DataRoot, Device, Seed, TaskName, Weights

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(duplicates)


def duplicates(
    task: TaskName,
    within: Annotated[str, typer.Option(help="train, or train-test: test examples seen in training.")] = "train",
    rate: Annotated[float, typer.Option(help="False positives per example.", min=1e-9, max=0.1)] = 1e-3,
    top: Annotated[int, typer.Option(help="How many pairs to list.", min=1, max=MOST)] = 50,
    out: Annotated[Path | None, typer.Option(help="File for all pairs, .parquet or .csv.")] = None,
    weights: Weights = None,
    data_root: DataRoot = None,
    seed: Seed = 0,
    device: Device = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no list.")] = False,
) -> None:
    """List examples that the network takes for one another: duplicates, and leaks into the test data."""
    from rich.table import Table

    from memspace.auditing.duplicates import duplicates as find
    from memspace.auditing.table_file import table_path
    from memspace.commands import move_to, watching
    from memspace.measurement import Measurement
    from memspace.report.terminal import Terminal
    from memspace.task.builtin import BuildOptions
    from memspace.task.load import resolve
    from memspace.workers import local_device

    if within not in ("train", "train-test"):
        raise typer.BadParameter("within is one of train, train-test")
    if out is not None:
        table_path(out)
    with watching(Terminal(stderr=True), quiet) as progress:
        job = resolve(task, BuildOptions(seed=seed, data_root=data_root), progress, weights)
        if device is not None:
            move_to(job.model, local_device(device))
        found = find(job, within, rate=rate, seed=seed, progress=progress)
    if out is not None:
        found.save(out)
    if quiet:
        return
    table = Table("kind", "train", "train" if within == "train" else "test", "similarity", "chance", "labels")
    t = found.table
    for k in range(min(top, len(found))):
        same = f"{t['label'][k]}, {t['other_label'][k]}"
        chance = "" if t["kind"][k] == "exact" else f"{t['p_chance'][k]:.1e}"
        pair = (str(t["train_index"][k]), str(t["other_index"][k]))
        table.add_row(t["kind"][k], *pair, f"{t['similarity'][k]:.4f}", chance, same)
    console = Terminal()
    console.print(table)
    near = found.near
    said = f"{near.value:.0f} near ones ({near.estimator})" if isinstance(near, Measurement) else near.reason
    console.print(f"{found.exact.value:.0f} exact pairs; {said}.")
