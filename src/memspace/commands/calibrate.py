"""``memspace zoo calibrate``: make what ``memspace predict-gap`` tells a network by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memspace.commands.declaration import command
from memspace.commands.options import Output, option
from memspace.commands.output import tell
from memspace.limits import Limit

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["calibrate"]

MOMENT = Limit(0.01, 1)


@command(group="zoo")
def calibrate(
    output: Output,
    store: Annotated[Path, typer.Argument(help="Folder of a zoo's store, its networks measured.")],
    to: Annotated[Path, option("JSON file that gets the calibration.")],
    moment: Annotated[float, MOMENT, option("Share of the training at which networks were measured.")] = 1.0,
    group: Annotated[str, option("What is left out in turn.", words=("block", "family", "data"))] = "block",
) -> None:
    """Calibrate the gap on a measured zoo: what `memspace predict-gap` tells a network by."""
    from memspace.gap.file import save_gap_model
    from memspace.zoo.gap import calibrate_gap
    from memspace.zoo.store import ZooStore

    model = calibrate_gap(ZooStore(store), moment=moment, group=group)
    digest = save_gap_model(model, to)
    counted = {"networks": model.networks, "groups": list(model.groups), "predictors": list(model.predictors)}
    content = {"file": str(to), "digest": digest, **counted, "left_out": dict(model.left_out)}

    def show(console: Console) -> None:
        many = f"{model.networks} networks in {len(model.groups)} groups, {len(model.predictors)} measures"
        console.print(f"{to}: {many}; {digest}", soft_wrap=True)

    tell(output, content, show)
