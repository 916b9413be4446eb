"""``memspace audit``: everything that is measured of a trained network, as a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memspace.auditing.settings import BITS, REFITS, REPRESENTATIONS, AuditSettings
from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import Damping, Fresh, Memory, Output, PartOptions, option, out, parse_memory
from memspace.commands.output import default_folder, say_json, tell, typed_command
from memspace.limits import WHOLE

if TYPE_CHECKING:
    from memspace.task.task import Task

__all__ = ["AuditOptions", "audit"]


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """What :class:`memspace.AuditSettings` holds, but for the seed."""

    damping: Damping = AuditSettings.damping
    memory: Memory = "4GiB"
    representation: Annotated[str, option("auto, dual or ekfac.", words=REPRESENTATIONS)] = AuditSettings.representation
    query: Annotated[list[int] | None, WHOLE, option("Test example whose prediction to explain; repeatable.")] = None
    refits: Annotated[
        int | None,
        REFITS,
        option("Trainings without a part of the data, at most", shown="as many as needed"),
    ] = AuditSettings.refits
    capacity: Annotated[
        float | None, BITS, option("Bits the architecture stores, as `memspace capacity` measures them.")
    ] = AuditSettings.capacity

    def settings(self, seed: int) -> AuditSettings:
        """Fill the settings of an audit.

        Args:
            seed: random seed.

        Returns:
            the settings.

        Raises:
            SettingsError: the memory is not a size.
        """
        queries = tuple(self.query) if self.query else None
        return AuditSettings(
            damping=self.damping,
            memory=parse_memory(self.memory),
            seed=seed,
            queries=queries,
            representation=self.representation,
            capacity=self.capacity,
            refits=self.refits,
        )


@command(goes_on=True)
def audit(
    which: PartOptions,
    chosen: AuditOptions,
    output: Output,
    out: Annotated[Path | None, out("Run folder.", "runs/NAME")] = None,
    plan: Annotated[bool, option("Print the plan and stop.", "--plan")] = False,
    fresh: Fresh = False,
    no_report: Annotated[bool, option("Write results and tables, but no report.html.", "--no-report")] = False,
    calibration: Annotated[
        Path | None,
        option("File made by `memspace zoo calibrate`, or shipped: adds the gap to expect.", shown="none"),
    ] = None,
) -> None:
    """Audit a trained network and write the report."""
    from memspace.report.text import summarise
    from memspace.verbs.audit import audit as audit_network

    settings = chosen.settings(which.seed)
    with opened(which, output) as (task, progress):
        if plan:
            _tell_plan(task, settings, output)
            return
        folder = out if out is not None else default_folder(task.name)
        results = audit_network(
            task,
            out=folder,
            fresh=fresh,
            report=not no_report,
            command=typed_command(),
            settings=settings,
            calibration=calibration,
            progress=progress,
        )
    tell(output, results.to_dict(), lambda console: summarise(results, None if no_report else folder, console))


def _tell_plan(task: Task, settings: AuditSettings, output: Output) -> None:
    from memspace.auditing.audit import timed_plan
    from memspace.format import said_time

    plan, seconds = timed_plan(task, settings)
    if output.as_json:
        say_json(plan.to_dict() | {"seconds": seconds})
        return
    about = f"about {said_time(seconds)} here by the speed of a few batches, give or take a factor of two"
    typer.echo(f"{plan.text()}\n{about}" + ("; refits come on top" if plan.folds else ""))
