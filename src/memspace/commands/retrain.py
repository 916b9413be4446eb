"""``memspace retrain``: what retrained networks say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import Memory, Output, TrainingOptions, option, out, parse_memory
from memspace.commands.output import default_folder, tell
from memspace.limits import COUNT, PART, SEVERAL, WHOLE
from memspace.report.terminal import styled

if TYPE_CHECKING:
    from memspace.experiments.retrain import RetrainResults, RetrainSettings
    from memspace.task.task import Task

__all__ = ["RetrainOptions", "retrain"]


@dataclass(frozen=True, kw_only=True)
class RetrainOptions:
    """What is retrained; the fields of :class:`memspace.RetrainSettings`, but for the seed."""

    part: Annotated[
        list[str] | None,
        option("half, same-order, left-out or memorisation; repeatable.", shown="half"),
    ] = None
    subsets: Annotated[int, COUNT, option("Random parts of the training data.")] = 64
    seeds: Annotated[int, COUNT, option("Trainings of each.")] = 2
    queries: Annotated[int, COUNT, option("Test examples whose outcomes are measured.")] = 200
    share: Annotated[
        list[float] | None,
        PART,
        option("Left out in same-order; repeatable.", shown="0.02 0.1 0.5"),
    ] = None
    example: Annotated[
        list[int] | None,
        WHOLE,
        option("Training example to leave out; repeatable.", shown="50 random ones"),
    ] = None
    together: Annotated[int, COUNT, option("Examples left out at a time.")] = 1
    repeats: Annotated[int, SEVERAL, option("Seeds of left-out.")] = 5
    networks: Annotated[int, SEVERAL, option("Networks of memorisation.")] = 200

    memory: Memory = "2GiB"

    def settings(self, seed: int) -> RetrainSettings:
        """Fill the settings of a study.

        Args:
            seed: random seed.

        Returns:
            the settings.

        Raises:
            SettingsError: the memory is not a size.
        """
        from memspace.experiments.retrain import RetrainSettings

        return RetrainSettings(
            parts=tuple(self.part or RetrainSettings.parts),
            subsets=self.subsets,
            seeds=self.seeds,
            queries=self.queries,
            shares=tuple(self.share or RetrainSettings.shares),
            examples=tuple(self.example) if self.example else None,
            together=self.together,
            repeats=self.repeats,
            networks=self.networks,
            seed=seed,
            memory=parse_memory(self.memory),
        )


@command(goes_on=True)
def retrain(
    which: TrainingOptions,
    chosen: RetrainOptions,
    output: Output,
    out: Annotated[Path | None, out("Folder of results.", "runs/NAME-retrain")] = None,
    plan: Annotated[bool, option("Say how many networks would be trained and stop.", "--plan")] = False,
) -> None:
    """Retrain networks on parts of the data and measure what became of the predictions."""
    from memspace.verbs.retrain import retrain as retrain_networks

    settings = chosen.settings(which.seed)
    with opened(which, output) as (task, progress):
        if plan:
            typer.echo(_plan(task, settings))
            return
        folder = out if out is not None else default_folder(f"{task.name}-retrain")
        results = retrain_networks(task, out=folder, settings=settings, progress=progress)
    tell(output, results.to_dict(), lambda console: _summarise(results, folder, console))


def _plan(task: Task, settings: RetrainSettings) -> str:
    from memspace.experiments.retrain import designs_of

    lines = []
    for _, design, queries in designs_of(task, settings):
        share = float(design.kept.double().mean())
        count = f"{design.seeds.numel():>6,} networks on {share:.1%} of the data each"
        lines.append(f"{design.name:<18}{count}, {len(queries):,} queries")
    return "\n".join(lines)


def _summarise(results: RetrainResults, folder: Path, console: Console) -> None:
    from memspace.format import format_interval, format_value
    from memspace.measurement import Unmeasured

    grid = Table(box=None, pad_edge=False)
    grid.add_column("quantity", no_wrap=True)
    grid.add_column("figure", no_wrap=True)
    grid.add_column("95% interval")
    for measurements in results.measurements.values():
        for m in measurements:
            if isinstance(m, Unmeasured):
                grid.add_row(m.name, "–", f"not measured: {m.reason}; {m.remedy}")
            else:
                unit = "" if m.unit == "1" else f" {m.unit}"
                grid.add_row(m.name, format_value(m) + unit, format_interval(m))
    console.print(grid)
    console.print(styled(f"\n{results.trained:,} networks in {results.seconds:.0f} s; tables: ", (str(folder), "bold")))
