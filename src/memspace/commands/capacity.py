"""``memspace capacity``: bits of random labels that networks of an architecture store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from memspace.commands import MOST, DataRoot, Json, Seed, TaskName, say_json, watching
from memspace.report.terminal import Terminal

__all__ = ["add", "capacity"]

MOST_BITS = 1000  # of labels a parameter; two are a linear unit's limit


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(capacity)


def capacity(
    task: TaskName,
    width: Annotated[
        list[int] | None,
        typer.Option(
            min=1, max=MOST, help="Fully connected networks of this width instead of the task's own; repeatable."
        ),
    ] = None,
    depth: Annotated[int, typer.Option(min=1, max=MOST, help="Hidden layers of those.")] = 1,
    load: Annotated[
        list[float] | None,
        typer.Option(help="Bits of labels offered per parameter; repeatable.", show_default="0.5 to 4"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=MOST, help="Networks at each load.")] = 3,
    steps: Annotated[int, typer.Option(min=1, max=MOST, help="Training steps, doubled until the bits settle.")] = 1000,
    forgetting: Annotated[
        bool, typer.Option("--forgetting", help="Also overwrite a first set of labels with a second.")
    ] = False,
    data_root: DataRoot = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="File the results are written to.", show_default="none")] = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")] = False,
) -> None:
    """Train copies on random labels, more and more of them, and take the most they store."""
    from memspace.auditing.results import clean
    from memspace.auditing.store import write_text
    from memspace.experiments.capacity import CapacitySettings
    from memspace.experiments.capacity_study import CapacityStudy, architectures, study_capacity
    from memspace.report.measured import show_measured
    from memspace.task.builtin import BuildOptions
    from memspace.task.load import resolve

    if load and not all(0 < bits <= MOST_BITS for bits in load):
        raise typer.BadParameter(f"a load is positive and at most {MOST_BITS} bits a parameter")
    options = BuildOptions(seed=seed, data_root=data_root, train_network=False)
    settings = CapacitySettings(seeds=seeds, steps=steps, seed=seed)
    if load:
        settings = CapacitySettings(tuple(sorted(load)), seeds, steps, seed=seed)
    with watching(Terminal(stderr=True), quiet or as_json) as progress:
        job = resolve(task, options, progress)
        studies: list[CapacityStudy] = [
            study_capacity(a, settings, forgetting=forgetting, progress=progress)
            for a in architectures(job, tuple(width or ()), depth)
        ]
    found: dict[str, Any] = clean({"task": job.name, "architectures": [s.to_dict() for s in studies]})
    if out is not None:
        write_text(out, json.dumps(found, indent=1, ensure_ascii=False))
    if as_json:
        say_json(found)
    elif not quiet:
        for s in studies:
            show_measured(
                f"{s.architecture.name}: {s.capacity.parameters:,} parameters", s.measurements, (), Terminal()
            )
