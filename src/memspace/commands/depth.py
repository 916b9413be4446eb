"""``memspace depth``: how far the hidden states travel, layer by layer, and whether the layers steer them optimally."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from memspace.commands import MOST, DataRoot, Device, Json, Noise, Seed, TaskName, Weights, move_to, say_json, watching
from memspace.report.terminal import Terminal

if TYPE_CHECKING:
    from memspace.action.depth import Depth

__all__ = ["add", "depth"]

COLUMNS = {  # of the table of layers: heading, and what it is
    "share": ("action", "share of Σ‖Δh‖²"),
    "fisher_share": ("Fisher", "share of Σ ΔhᵀJᵀHJΔh"),
    "prediction_step": ("moves", "Fisher–Rao step of the prediction, nats^½"),
    "left_to_say": ("to say", "KL(final ‖ read-out) before the block, nats"),
    "readout_loss": ("loss", "of the read-out before the block, nats"),
    "hamiltonian": ("H", "E⟨p, Δh⟩ − (λ/2)‖θ‖², nats per layer"),
    "stationarity": ("∂H/∂θ", "0 stationary, 1 nothing cancels"),
}


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(depth)


def depth(
    task: TaskName,
    blocks: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Modules that make the depth, by name; !PATTERN excludes; repeatable."),
    ] = None,
    weights: Weights = None,
    data_root: DataRoot = None,
    out: Annotated[Path | None, typer.Option(help="File the results are written to.", show_default="none")] = None,
    label_noise: Noise = 0.0,
    seed: Seed = 0,
    examples: Annotated[int, typer.Option(min=2, max=MOST, help="Training examples measured on.")] = 256,
    lens: Annotated[str, typer.Option(help="Early read-outs: tuned (an affine map is fitted) or logit (none).")] = (
        "tuned"
    ),
    device: Device = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")] = False,
) -> None:
    """Measure the action of hidden states along depth, and the conditions of optimal control."""
    from memspace.action.depth import depth_action
    from memspace.action.readout import LENSES
    from memspace.auditing.results import clean
    from memspace.auditing.store import write_text
    from memspace.report.measured import show_measured
    from memspace.task.builtin import BuildOptions
    from memspace.task.checks import check_task
    from memspace.task.load import resolve

    if lens not in LENSES:
        raise typer.BadParameter(f"lens is one of {', '.join(LENSES)}")
    options = BuildOptions(seed=seed, label_noise=label_noise, data_root=data_root)
    with watching(Terminal(stderr=True), quiet or as_json) as progress:
        job = resolve(task, options, progress, weights)
        if device is not None:
            move_to(job.model, device)
        check_task(job)
        found = depth_action(
            job, blocks=tuple(blocks or ()), examples=examples, lens=lens, seed=seed, progress=progress
        )
    content: dict[str, Any] = clean(
        {
            "task": job.name,
            "blocks": list(found.blocks),
            "shape": list(found.shape),
            "found": found.found,
            "measurements": [m.to_dict() for m in found.measurements],
            "unmeasured": [u.to_dict() for u in found.unmeasured],
            "layers": {name: [m.to_dict() for m in row] for name, row in found.layers.items()},
        }
    )
    if out is not None:
        write_text(out, json.dumps(content, indent=1, ensure_ascii=False))
    if as_json:
        say_json(content)
    elif not quiet:
        console = Terminal()
        size = "×".join(map(str, found.shape))
        how = "found" if found.found else "named"
        title = f"{job.name}: {len(found.blocks)} blocks ({how}), hidden state {size}"
        show_measured(title, found.measurements, found.unmeasured, console)
        _show_layers(found, console)


def _show_layers(found: Depth, console: Console) -> None:
    from rich.table import Table

    from memspace.report.format import format_value

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
