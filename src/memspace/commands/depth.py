"""``memspace depth``: how far the hidden states travel, layer by layer, and whether the layers steer them optimally."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import FileOutput, NetworkOptions, option
from memspace.commands.output import tell
from memspace.limits import SEVERAL

if TYPE_CHECKING:
    from memspace.action.depth import Depth

__all__ = ["depth"]

COLUMNS = {  # of the table of layers: heading, and what it is
    "share": ("action", "share of Σ‖Δh‖²"),
    "fisher_share": ("Fisher", "share of Σ ΔhᵀJᵀHJΔh"),
    "prediction_step": ("moves", "Fisher–Rao step of the prediction, nats^½"),
    "left_to_say": ("to say", "KL(final ‖ read-out) before the block, nats"),
    "readout_loss": ("loss", "of the read-out before the block, nats"),
    "hamiltonian": ("H", "E⟨p, Δh⟩ − (λ/2)‖θ‖², nats per layer"),
    "stationarity": ("∂H/∂θ", "0 stationary, 1 nothing cancels"),
}


@command()
def depth(
    which: NetworkOptions,
    output: FileOutput,
    blocks: Annotated[
        list[str] | None,
        option("Modules that make the depth, by name; !PATTERN excludes; repeatable.", metavar="PATTERN"),
    ] = None,
    examples: Annotated[int, SEVERAL, option("Training examples measured on.")] = 256,
    lens: Annotated[
        str,
        option(
            "Early read-outs: tuned (an affine map is fitted) or logit (none).",
            words="memspace.action.readout:LENSES",
        ),
    ] = "tuned",
) -> None:
    """Measure the action of hidden states along depth, and the conditions of optimal control."""
    from memspace.report.measured import show_measured
    from memspace.verbs.depth import depth as depth_of

    with opened(which, output) as (task, progress):
        measured = depth_of(
            task, blocks=tuple(blocks or ()), examples=examples, lens=lens, seed=which.seed, progress=progress
        )

    def show(console: Console) -> None:
        size = "×".join(map(str, measured.shape))
        how = "found" if measured.found else "named"
        title = f"{task.name}: {len(measured.blocks)} blocks ({how}), hidden state {size}"
        show_measured(title, measured.measurements, measured.unmeasured, console)
        _show_layers(measured, console)

    tell(output, _content(task.name, measured), show)


def _content(name: str, found: Depth) -> dict[str, Any]:
    return {
        "task": name,
        "blocks": list(found.blocks),
        "shape": list(found.shape),
        "found": found.found,
        "measurements": [m.to_dict() for m in found.measurements],
        "unmeasured": [u.to_dict() for u in found.unmeasured],
        "layers": {layer: [m.to_dict() for m in row] for layer, row in found.layers.items()},
    }


def _show_layers(found: Depth, console: Console) -> None:
    from rich.table import Table

    from memspace.format import format_value

    shown = {name: found.layers[name] for name in COLUMNS if found.layers.get(name)}
    if len(shown.get("stationarity", ())) < len(found.blocks):  # one module called again and again: no row of its own
        shown.pop("stationarity", None)
    legend = "; ".join(f"{heading}: {what}" for heading, what in (COLUMNS[name] for name in shown))
    table = Table("block", *(COLUMNS[name][0] for name in shown), caption=legend, caption_justify="left")
    for k, block in enumerate(found.blocks):
        table.add_row(block, *(format_value(row[k]) for row in shown.values()))
    end = {name: row[-1] for name, row in shown.items() if len(row) > len(found.blocks)}
    if end:
        table.add_row("(output)", *(format_value(end[name]) if name in end else "" for name in shown))
    console.print(table)
