"""``memspace distil``: a few synthetic examples in place of a training set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import Force, Output, TrainingOptions, option, out
from memspace.commands.statement import tell_statement
from memspace.limits import COUNT

__all__ = ["distil"]


@command()
def distil(
    which: TrainingOptions,
    output: Output,
    per_class: Annotated[int, COUNT, option("Synthetic examples per class.")] = 1,
    steps: Annotated[int, COUNT, option("Gradient steps on them.")] = 3,
    iterations: Annotated[int, COUNT, option("Iterations of the search.")] = 1000,
    fixed: Annotated[bool, option("For one given initialisation.", "--fixed")] = False,
    out: Annotated[Path, out("Folder for the examples and the page.")] = Path("distilled"),
    force: Force = False,
) -> None:
    """Distil the training set into a few synthetic examples, shown as pictures."""
    from memspace.editing.distil import DistilSettings
    from memspace.editing.edit import save_state, writable
    from memspace.editing.gallery import write_gallery
    from memspace.task.checks import check_task
    from memspace.verbs.distil import distil as distil_task

    page, tensors = out / "distilled.html", out / "distilled.safetensors"
    for path in (page, tensors):
        writable(path, force)
    recipe = DistilSettings(per_class=per_class, steps=steps, iterations=iterations, fixed=fixed)
    with opened(which, output) as (task, progress):
        check_task(task)
        made = distil_task(task, recipe, seed=which.seed, progress=progress)
    save_state({"x": made.x, "y": made.y, "rates": made.rates}, tensors, force=force)
    write_gallery(task, made, page)
    tell_statement(output, made.statement, made.measurements, page)
