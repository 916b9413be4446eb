"""``memspace explain TASK INDEX``: one prediction on one page, and what pushed it where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from memspace.attribution.settings import InfluenceSettings
from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import Damping, FileOutput, Memory, PartOptions, option, parse_memory
from memspace.commands.output import tell
from memspace.limits import COUNT, WHOLE, Limit
from memspace.report.terminal import styled

if TYPE_CHECKING:
    from rich.console import Console

    from memspace.verbs.explain import Explanation

__all__ = ["ExplainedOptions", "SolverOptions", "explain"]


@dataclass(frozen=True, kw_only=True)
class ExplainedOptions:
    """Which number of which prediction is explained."""

    panel: ClassVar[str] = "Prediction"
    part: Annotated[str | None, option("Data that INDEX counts in.", words=("test", "train"), shown="test")] = None
    output: Annotated[int | None, WHOLE, option("Class, label or output explained.", shown="the predicted one")] = None
    against: Annotated[int | None, WHOLE, option("Class compared with.", shown="the label, or the next")] = None
    position: Annotated[int | None, WHOLE, option("Position of a sequence, from 0.", shown="the last")] = None
    baseline: Annotated[
        str, option("Where integrated gradients start: mean of training examples, or zero.", words=("mean", "zero"))
    ] = "mean"


@dataclass(frozen=True, kw_only=True)
class SolverOptions:
    """How pushes are computed."""

    panel: ClassVar[str] = "Engine"
    engine: Annotated[str, option("auto, dual, iterative or ekfac.", words=("auto", "dual", "iterative", "ekfac"))] = (
        "auto"
    )
    damping: Damping = None
    memory: Memory = "4GiB"
    retrainings: Annotated[int, WHOLE, option("Networks on halves of the data that set the damping.")] = (
        InfluenceSettings.retrainings
    )


@command()
def explain(
    which: PartOptions,
    index: Annotated[int, typer.Argument(help="Number of the example, from 0.", metavar="INDEX")],
    explained: ExplainedOptions,
    solver: SolverOptions,
    output_options: FileOutput,
    top: Annotated[int, COUNT, option("Supporters and opposers shown.")] = 8,
    count: Annotated[int, Limit(1, 100, whole=True), option("Modes that pushes are split by.")] = 8,
    report: Annotated[Path | None, option("HTML page of the prediction.")] = None,
) -> None:
    """Explain one prediction: the training examples, modes and layers that pushed it, and its input."""
    from memspace.reading.explain_settings import ExplainSettings
    from memspace.verbs.explain import explain as explanation_of

    settings = ExplainSettings(
        top=top,
        count=count,
        baseline=explained.baseline,
        engine=solver.engine,
        damping=solver.damping,
        influence=InfluenceSettings(
            memory=parse_memory(solver.memory), retrainings=solver.retrainings, seed=which.seed
        ),
    )
    with opened(which, output_options) as (task, progress):
        result = explanation_of(
            task,
            index,
            part=explained.part,
            output=explained.output,
            against=explained.against,
            position=explained.position,
            settings=settings,
            page=report,
            progress=progress,
        )
    tell(output_options, result.to_dict(), lambda console: _show(result, console))


def _show(result: Explanation, console: Console) -> None:
    from memspace.report.measured import show_measured

    about = "" if result.outcome.number is None else f", {result.outcome.part} example {result.outcome.number}"
    for chapter in result.results.chapters:
        console.print(styled((f"{chapter.title}: ", "bold"), chapter.answer))
    show_measured(f"{result.task}{about}", result.measurements, result.unmeasured, console)
