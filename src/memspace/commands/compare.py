"""``memspace compare TASK A B``: how far apart two networks are, with bounds, on one page."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memspace.commands import (
    MOST,
    DataRoot,
    Device,
    Json,
    Noise,
    Seed,
    TaskName,
    default_folder,
    move_to,
    say_json,
    watching,
)
from memspace.errors import CheckpointError
from memspace.report.terminal import Terminal

if TYPE_CHECKING:
    from torch import Tensor

    from memspace.task.run import Run
    from memspace.task.task import Task

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(compare)


def compare(
    task: TaskName,
    a: Annotated[
        str, typer.Argument(metavar="A", help="A file; @K: the task's K-th recorded state (@-1 last); or DIR@K.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The same of the other network.")],
    align: Annotated[bool, typer.Option("--align", help="Match the hidden units of B to those of A first.")] = False,
    data_root: DataRoot = None,
    label_noise: Noise = 0.0,
    out: Annotated[Path | None, typer.Option(help="Folder of the page.", show_default="runs/NAME-compared")] = None,
    examples: Annotated[int, typer.Option(min=2, max=MOST, help="Training examples that lengths are taken on.")] = 512,
    effort: Annotated[int, typer.Option(min=1, max=MOST, help="Evaluations per level of the search.")] = 100,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")] = False,
) -> None:
    """Compare two networks of one task: distance with bounds, barrier, layers, examples."""
    from memspace.auditing.chapters.comparison import comparison_results
    from memspace.auditing.compare import CompareSettings, compare_networks
    from memspace.auditing.store import Store
    from memspace.files import locked
    from memspace.passes.processes import current
    from memspace.report.html import COMPARISON, render
    from memspace.report.text import summarise
    from memspace.task.builtin import BuildOptions
    from memspace.task.checks import check_task
    from memspace.task.load import resolve
    from memspace.workers import local_device

    console = Terminal(stderr=True)
    options = BuildOptions(
        seed=seed,
        label_noise=label_noise,
        data_root=data_root,
        train_network=any(p is not None and p[0] is None for p in (_place(a), _place(b))),
    )
    with watching(console, quiet or as_json) as progress:
        job = resolve(task, options, progress)
        states = [_state(job, name, which) for name, which in (("A", a), ("B", b))]
        job.model.load_state_dict(states[1])
        check_task(job)
        job.model.load_state_dict(states[0])
        check_task(job)
        if device is not None:
            move_to(job.model, local_device(device))
        path = _between(job, a, b)
        asked = CompareSettings(align, examples, effort, seed)
        found = compare_networks(job, states[0], states[1], path=path, settings=asked, progress=progress)
        command = shlex.join(["memspace", *sys.argv[1:]])
        settings = {"align": align, "examples": examples, "effort": effort, "seed": seed, "command": command}
        results = comparison_results(job, found, (_called(a), _called(b)), settings)
    if current().rank > 0:  # one folder, one writer
        return
    folder = out if out is not None else default_folder(f"{job.name}-compared")
    with locked(folder):
        Store(folder, {"compare": [a, b]}, fresh=True).save_results(results, render(results, COMPARISON))
    if as_json:
        say_json(results.to_dict())
    elif not quiet:
        summarise(results, folder, Terminal())


def _place(which: str) -> tuple[Path | None, int] | None:
    """Folder and K of ``DIR@K``, no folder for ``@K``; None for a path."""
    found = re.fullmatch(r"(.*)@(-?\d+)", which)
    if found is None or Path(which).is_file():
        return None
    return (Path(found[1]) if found[1] else None), int(found[2])


def _called(which: str) -> str:
    place = _place(which)
    if place is None:
        return Path(which).name
    return f"checkpoint {place[1]} of " + ("the training" if place[0] is None else place[0].name)


def _run(job: Task, place: tuple[Path | None, int]) -> Run | None:
    """The recorded training a word on the command line speaks of."""
    from memspace.task.recording import load_run

    return job.run if place[0] is None else load_run(place[0], job.model)


def _state(job: Task, name: str, which: str) -> dict[str, Tensor]:
    """The state dict a word on the command line means, copied; the model's own tensors are replaced on the way."""
    from torch import Tensor

    from memspace.task.checkpoint import load_weights

    place = _place(which)
    if place is None:
        load_weights(job.model, Path(which))
        return {k: v.detach().clone() for k, v in job.model.state_dict().items() if isinstance(v, Tensor)}
    run = _run(job, place)
    count = 0 if run is None else len(run.states)
    if run is None or not -count <= place[1] < count:
        where = "the task" if place[0] is None else str(place[0])
        first = "" if place[0] is None else str(place[0])
        held = f"holds checkpoints {first}@0 to {first}@{count - 1}" if count else "recorded no checkpoints"
        raise CheckpointError(
            f"there is no checkpoint {which}: {where} {held}",
            where=name,
            remedy="give a file, or one of those" if count else "give a file",
        )
    return {k: v.detach().clone() for k, v in run.states[place[1]].items()}


def _between(job: Task, a: str, b: str) -> tuple[dict[str, Tensor], ...]:
    """The recorded path from A to B where both are checkpoints of one training."""
    places = _place(a), _place(b)
    if places[0] is None or places[1] is None or places[0][0] != places[1][0]:
        return ()
    run = _run(job, places[0])
    if run is None:
        return ()
    count = len(run.states)
    first, last = places[0][1] % count, places[1][1] % count
    step = 1 if last >= first else -1
    path = [run.states[k] for k in range(first, last + step, step)]
    return tuple(path) if len(path) > 2 else ()
