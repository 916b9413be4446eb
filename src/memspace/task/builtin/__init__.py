"""Built-in tasks: small networks on real or rendered data, trained here, so that an audit's claims can be checked."""

from __future__ import annotations

from collections.abc import Callable

from memspace.progress import Progress
from memspace.task.builtin.digits import digits
from memspace.task.builtin.fashion import fashion
from memspace.task.builtin.options import BuildOptions
from memspace.task.builtin.shapes import shapes
from memspace.task.builtin.text import text
from memspace.task.task import Task

__all__ = ["BUILTIN", "BuildOptions", "build"]

BUILTIN: dict[str, Callable[[BuildOptions, Progress], Task]] = {
    "digits": digits,
    "fashion-mnist": fashion,
    "shapes": shapes,
    "text": text,
}


def build(name: str, options: BuildOptions, progress: Progress) -> Task:
    """The built-in task of that name; KeyError where there is none."""
    return BUILTIN[name](options, progress)
