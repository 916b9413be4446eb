"""``memspace modes``: the leading directions of a network's memory, and what carries them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import FileOutput, PartOptions, option
from memspace.commands.output import tell
from memspace.limits import Limit
from memspace.report.terminal import styled

if TYPE_CHECKING:
    from rich.console import Console

    from memspace.verbs.modes import Modes

__all__ = ["modes"]


@command()
def modes(
    which: PartOptions,
    output: FileOutput,
    count: Annotated[int, Limit(1, 100, whole=True), option("Modes read.")] = 8,
    rows: Annotated[
        int, Limit(4, 20_000, whole=True), option("Fisher rows at most; beyond it examples are sampled.")
    ] = 2000,
    report: Annotated[Path | None, option("HTML page with a gallery of every mode.")] = None,
) -> None:
    """Read the leading directions of the memory, and the examples, classes and layers that carry them."""
    from memspace.verbs.modes import modes as modes_of

    with opened(which, output) as (task, progress):
        result = modes_of(task, count=count, rows=rows, seed=which.seed, page=report, progress=progress)
    tell(output, result.to_dict(), lambda console: _show(result, console))


def _show(result: Modes, console: Console) -> None:
    from memspace.report.measured import show_measured

    show_measured(f"{result.task}: modes of {result.read.plan.words}", result.measurements, (), console)
    console.print(styled(f"{result.results.chapters[0].answer}"))
