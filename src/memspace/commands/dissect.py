"""``memspace dissect``: units of a layer that detect concepts, and what the network loses without them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import FileOutput, NetworkOptions, option
from memspace.commands.output import tell
from memspace.limits import WHOLE, Limit
from memspace.report.terminal import styled

if TYPE_CHECKING:
    from rich.console import Console

    from memspace.verbs.dissect import Dissected

__all__ = ["DissectOptions", "dissect"]


@dataclass(frozen=True, kw_only=True)
class DissectOptions:
    """Which units and concepts, and the controls."""

    layer: Annotated[str | None, option("Layer whose output is read.", shown="the input of the last linear one")] = None
    concepts: Annotated[
        str | None,
        option("factors, classes, or a file: CSV with a head line, or .npz.", shown="factors, else classes"),
    ] = None
    data: Annotated[
        str | None,
        option(
            "Examples of classes or of a file: test, train or factors.",
            words="memspace.reading.dissection:DATA",
            shown="test, else train",
        ),
    ] = None
    examples: Annotated[int, Limit(20, 2**20, whole=True), option("Examples read at most.")] = 1000
    shuffles: Annotated[int, Limit(19, 100_000, whole=True), option("Shuffles of concepts between examples.")] = 199
    rotations: Annotated[int, WHOLE, option("Random rotations of the units.")] = 20
    least: Annotated[
        float | None, Limit(0, 1), option("Score of a detector at least.", shown="0.9 by example, 0.04 by position")
    ] = None
    ablate: Annotated[
        str,
        option(
            "What detectors are set to: zero, mean, or none for no ablation.",
            words="memspace.reading.dissection:ABLATIONS",
        ),
    ] = "zero"
    draws: Annotated[int, Limit(2, 10_000, whole=True), option("Draws of as many other units.")] = 5


@command()
def dissect(
    which: NetworkOptions,
    how: DissectOptions,
    output: FileOutput,
    report: Annotated[Path | None, option("HTML page with a gallery of the best detectors.")] = None,
) -> None:
    """Find units of a layer that detect concepts, and measure what the network loses without them."""
    from memspace.reading.concepts import CONCEPTS, load_concepts
    from memspace.reading.dissection import DissectSettings
    from memspace.verbs.dissect import dissect as dissect_layer

    known = how.concepts is None or how.concepts in CONCEPTS
    concepts = how.concepts if known or how.concepts is None else load_concepts(Path(how.concepts))
    names = ("examples", "shuffles", "rotations", "least", "ablate", "draws", "data")
    settings = DissectSettings(**{name: getattr(how, name) for name in names}, seed=which.seed)
    with opened(which, output) as (task, progress):
        task = task if how.layer is None else replace(task, layer=how.layer)
        result = dissect_layer(task, concepts=concepts, settings=settings, page=report, progress=progress)
    tell(output, result.to_dict(), lambda console: _show(result, console))


def _show(result: Dissected, console: Console) -> None:
    from memspace.report.measured import show_measured

    show_measured(f"{result.task}: {result.read.words}", result.measurements, result.unmeasured, console)
    console.print(styled(result.results.chapters[0].answer))
