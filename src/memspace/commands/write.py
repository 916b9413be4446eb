"""``memspace write``: new examples stored in a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import Damping, Force, Output, PartOptions, option, out
from memspace.commands.statement import tell_statement
from memspace.errors import DataError, SettingsError
from memspace.limits import POSITIVE, WHOLE

if TYPE_CHECKING:
    from memspace.task.task import Task

__all__ = ["WriteOptions", "write"]

WHERE = "memspace write"


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """What is stored, and how well."""

    like: Annotated[list[int] | None, WHOLE, option("A test example to store; repeatable.")] = None
    label: Annotated[list[int] | None, option("Its label, where another than its own.")] = None
    file: Annotated[Path | None, option("Tensors x and y: safetensors, or .pt without code.")] = None
    loss: Annotated[float, POSITIVE, option("Nats that a stored example may cost at most.")] = 0.1
    damping: Damping = None

    def check(self) -> None:
        """Raise where it is not clear what to store.

        Raises:
            SettingsError: neither examples nor a file is given, or both; or there are more or fewer labels.
        """
        if (not self.like) == (self.file is None):
            what, remedy = "one source of examples is due", "give either --like or --file"
            raise SettingsError(what, where=WHERE, remedy=remedy)
        if self.label and len(self.label) != len(self.like or ()):
            what = f"{len(self.label)} labels are given"
            raise SettingsError(what, where=WHERE, remedy="give one --label for each --like")


@command()
def write(
    which: PartOptions,
    chosen: WriteOptions,
    output: Output,
    out: Annotated[Path, out("Where the new weights go (safetensors).")] = Path("written.safetensors"),
    force: Force = False,
) -> None:
    """Store new examples with the least disturbance of everything else."""
    from memspace.editing.edit import writable
    from memspace.editing.write import WriteTarget
    from memspace.task.checks import check_task
    from memspace.verbs.write import write as write_examples

    chosen.check()
    writable(out, force)
    with opened(which, output) as (task, _):
        check_task(task)
        x, y = _of_file(chosen.file) if chosen.file is not None else _of_task(task, chosen)
        edit = write_examples(task, x, y, target=WriteTarget(chosen.loss), damping=chosen.damping, seed=which.seed)
    edit.save(out, force=force)
    tell_statement(output, edit.statement, edit.measurements, out)


def _of_file(path: Path) -> tuple[Any, Any]:
    """The tensors x and y of a file."""
    from memspace.task.checkpoint import read_state

    tensors = read_state(path)
    if not {"x", "y"} <= tensors.keys():
        raise DataError("the file holds no tensors x and y", where=str(path), remedy="save {'x': ..., 'y': ...}")
    return tensors["x"], tensors["y"]


def _of_task(task: Task, chosen: WriteOptions) -> tuple[Any, Any]:
    """Test examples of the task (training examples where it has none), with the labels given or their own."""
    import torch

    data: Any = task.test if task.test is not None else task.train
    positions = chosen.like or []
    outside = [i for i in positions if not 0 <= i < len(data)]
    if outside:
        raise DataError(f"there is no example {outside[0]}", where=data.name, remedy=f"use 0..{len(data) - 1}")
    part = data.batch(torch.tensor(positions))
    return part.x, torch.tensor(chosen.label) if chosen.label else part.y
