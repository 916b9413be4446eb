"""``memspace predict-gap``: test loss and gap to expect, without test data, by a calibration on other networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import FileOutput, NetworkOptions, option
from memspace.commands.output import tell
from memspace.report.terminal import styled

if TYPE_CHECKING:
    from rich.console import Console

    from memspace.verbs.predict_gap import PredictedGap

__all__ = ["predict_gap"]


@command("predict-gap")
def predict_gap(
    which: NetworkOptions,
    output: FileOutput,
    calibration: Annotated[
        Path | None, option("File made by `memspace zoo calibrate`.", shown="the one that is shipped")
    ] = None,
    report: Annotated[Path | None, option("HTML page that shows it.")] = None,
) -> None:
    """Predict test loss and gap from measures of a network, without test data."""
    from memspace.verbs.predict_gap import predict_gap as predicted

    with opened(which, output) as (task, _):
        result = predicted(task, calibration=calibration, page=report)
    tell(output, result.to_dict(), lambda console: _show(result, console))


def _show(result: PredictedGap, console: Console) -> None:
    from rich.table import Table

    expected = result.prediction
    title = f"{result.task}: expected from {expected.networks} other networks"
    table = Table("quantity", "expected", f"{expected.level:.0%} interval", "unit", title=styled(title))
    rows = (
        ("test loss", expected.test_loss, expected.test_loss_interval),
        ("gap", expected.gap, expected.gap_interval),
    )
    for name, value, (low, high) in rows:
        table.add_row(name, f"{value:.3g}", f"{low:.3g} to {high:.3g}", "nats")
    console.print(table)
    console.print(styled(f"{expected.how}."))
    if not expected.reliable:
        console.print(styled((f"Do not rely on it: {expected.note}.", "yellow")))
    parts = ", ".join(f"{name} {part:+.2g}" for name, part in expected.drivers.items())
    console.print(styled(f"Driven by (parts of {expected.target}): {parts}."))
    for m in result.measurements:
        if m.name == "generalisation.measured_gap":
            low, high = m.interval or (m.value, m.value)
            console.print(
                styled(f"Measured on {m.n:,} test examples: a gap of {m.value:.3g} (95%: {low:.3g} to {high:.3g}).")
            )
