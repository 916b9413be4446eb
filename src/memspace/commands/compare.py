"""``memspace compare TASK A B``: how far apart two networks are, with bounds, on one page."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import Output, TrainingOptions, option, out
from memspace.commands.output import default_folder, tell, typed_command
from memspace.errors import CheckpointError
from memspace.limits import COUNT, SEVERAL

if TYPE_CHECKING:
    from torch import Tensor

    from memspace.task.run import Run
    from memspace.task.task import Task

__all__ = ["CompareOptions", "compare"]


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """How two networks are compared."""

    align: Annotated[bool, option("Match the hidden units of B to those of A first.", "--align")] = False
    examples: Annotated[int, SEVERAL, option("Training examples that lengths are taken on.")] = 512
    effort: Annotated[int, COUNT, option("Evaluations per level of the search.")] = 100


@command()
def compare(
    which: TrainingOptions,
    a: Annotated[
        str, typer.Argument(metavar="A", help="A file; @K: the task's K-th recorded state (@-1 last); or DIR@K.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The same of the other network.")],
    chosen: CompareOptions,
    output: Output,
    out: Annotated[Path | None, out("Folder of the page.", "runs/NAME-compared")] = None,
) -> None:
    """Compare two networks of one task: distance with bounds, barrier, layers, examples."""
    from memspace.auditing.compare import CompareSettings
    from memspace.report.text import summarise
    from memspace.verbs.compare import compare as compare_networks

    settings = CompareSettings(seed=which.seed, **asdict(chosen))
    with opened(which, output, train_network=_names_own(a) or _names_own(b)) as (task, progress):
        folder = out if out is not None else default_folder(f"{task.name}-compared")
        first, second = _state(task, "A", a), _state(task, "B", b)
        task.model.load_state_dict(first)
        comparison = compare_networks(
            task,
            first,
            second,
            path=_between(task, a, b),
            names=(_called(a), _called(b)),
            out=folder,
            command=typed_command(),
            settings=settings,
            progress=progress,
        )
    results = comparison.results
    assert results is not None
    tell(output, results.to_dict(), lambda console: summarise(results, folder, console))


def _names_own(which: str) -> bool:
    """Whether a word on the command line means a state of the task's own training."""
    place = _place(which)
    return place is not None and place[0] is None


def _place(which: str) -> tuple[Path | None, int] | None:
    """Folder and K of ``DIR@K``, no folder for ``@K``; None for a path."""
    match = re.fullmatch(r"(.*)@(-?\d+)", which)
    if match is None or Path(which).is_file():
        return None
    return (Path(match[1]) if match[1] else None), int(match[2])


def _called(which: str) -> str:
    place = _place(which)
    if place is None:
        return Path(which).name
    return f"checkpoint {place[1]} of " + ("the training" if place[0] is None else place[0].name)


def _run(task: Task, place: tuple[Path | None, int]) -> Run | None:
    """The recorded training a word on the command line speaks of."""
    from memspace.task.recording import load_run

    return task.run if place[0] is None else load_run(place[0], task.model)


def _state(task: Task, name: str, which: str) -> dict[str, Tensor]:
    """The state dict a word on the command line means, copied; the model's own tensors are replaced on the way."""
    from torch import Tensor

    from memspace.task.checkpoint import load_weights

    place = _place(which)
    if place is None:
        load_weights(task.model, Path(which))
        return {k: v.detach().cpu().clone() for k, v in task.model.state_dict().items() if isinstance(v, Tensor)}
    run = _run(task, place)
    count = 0 if run is None else len(run.states)
    if run is None or not -count <= place[1] < count:
        where = "the task" if place[0] is None else str(place[0])
        first = "" if place[0] is None else str(place[0])
        has = f"holds checkpoints {first}@0 to {first}@{count - 1}" if count else "recorded no checkpoints"
        raise CheckpointError(
            f"there is no checkpoint {which}: {where} {has}",
            where=name,
            remedy="give a file, or one of those" if count else "give a file",
        )
    return {k: v.detach().cpu().clone() for k, v in run.states[place[1]].items()}


def _between(task: Task, a: str, b: str) -> tuple[dict[str, Tensor], ...]:
    """The recorded path from A to B where both are checkpoints of one training."""
    places = _place(a), _place(b)
    if places[0] is None or places[1] is None or places[0][0] != places[1][0]:
        return ()
    run = _run(task, places[0])
    if run is None:
        return ()
    count = len(run.states)
    first, last = places[0][1] % count, places[1][1] % count
    step = 1 if last >= first else -1
    path = [run.states[k] for k in range(first, last + step, step)]
    return tuple(path) if len(path) > 2 else ()
