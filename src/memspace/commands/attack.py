"""``memspace attack``: how far inputs are from another decision, predicted from the metric and attacked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from memspace.commands import MOST, DataRoot, Device, Json, Noise, Seed, TaskName, Weights, move_to, say_json, watching
from memspace.report.terminal import Terminal

__all__ = ["add", "attack"]


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(attack)


def attack(
    task: TaskName,
    weights: Weights = None,
    data_root: DataRoot = None,
    out: Annotated[Path | None, typer.Option(help="File the results are written to.", show_default="none")] = None,
    label_noise: Noise = 0.0,
    seed: Seed = 0,
    examples: Annotated[int, typer.Option(min=10, max=MOST, help="Inputs looked at, drawn from the test data.")] = 500,
    steps: Annotated[int, typer.Option(min=1, max=MOST, help="Gradient steps a search.")] = 20,
    restarts: Annotated[int, typer.Option(min=0, max=MOST, help="Random starts a search.")] = 3,
    clip: Annotated[bool, typer.Option("--clip", help="Keep inputs within the range of values seen.")] = False,
    device: Device = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")] = False,
) -> None:
    """Read the metric at inputs, attack and corrupt them, and compare example by example."""
    from memspace.auditing.results import clean
    from memspace.auditing.store import write_text
    from memspace.measures.attack import AttackSearch
    from memspace.measures.input_measures import study_inputs
    from memspace.measures.input_study import AttackSettings
    from memspace.report.measured import show_measured
    from memspace.task.builtin import BuildOptions
    from memspace.task.checks import check_task, untouched
    from memspace.task.load import resolve

    options = BuildOptions(seed=seed, label_noise=label_noise, data_root=data_root)
    settings = AttackSettings(examples, AttackSearch(steps=steps, restarts=restarts), clip=clip, seed=seed)
    with watching(Terminal(stderr=True), quiet or as_json) as progress:
        job = resolve(task, options, progress, weights)
        if device is not None:
            move_to(job.model, device)
        check_task(job)
        with untouched(job.model):
            study = study_inputs(job, settings, progress)
    found: dict[str, Any] = clean(
        {
            "task": job.name,
            "data": study.data,
            "measurements": [m.to_dict() for m in study.measurements],
            "unmeasured": [u.to_dict() for u in study.unmeasured],
            "corruptions": {
                c.corruption.name: {
                    "unit": c.corruption.unit,
                    "severity": list(c.corruption.severities),
                    "kept": c.kept.tolist(),
                }
                for c in study.corruptions
            },
            "table": study.table(),
            "passes": study.passes,
        }
    )
    if out is not None:
        write_text(out, json.dumps(found, indent=1, ensure_ascii=False))
    if as_json:
        say_json(found)
    elif not quiet:
        title = f"{len(study.index)} {study.data} examples of {job.name}"
        show_measured(title, study.measurements, study.unmeasured, Terminal())
