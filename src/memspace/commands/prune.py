"""``memspace prune``: a smaller network, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import Memory, Output, PartOptions, option, out, parse_memory
from memspace.commands.output import tell
from memspace.limits import COUNT, KEPT

__all__ = ["PruneOptions", "prune"]


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """How much is cut, and how."""

    keep: Annotated[float, KEPT, option("Share of the weight matrices' entries kept.")] = 0.1
    method: Annotated[
        str,
        option(
            "magnitude, fisher-diagonal, fisher-inverse or geometric-median.", words="memspace.measures.pruning:METHODS"
        ),
    ] = "fisher-inverse"
    objective: Annotated[
        str,
        option(
            "What fisher-inverse keeps: function (predictions as they were) or loss (labels).",
            words="memspace.measures.objective:OBJECTIVES",
        ),
    ] = "function"
    rows: Annotated[int, COUNT, option("Fisher rows per round of fisher-inverse.")] = 1000
    memory: Memory = "1GiB"


@command()
def prune(
    which: PartOptions,
    chosen: PruneOptions,
    output: Output,
    out: Annotated[Path, out("Where the pruned state dict is written (safetensors).")],
    report: Annotated[Path | None, option("HTML page with every method's curve down to --keep.")] = None,
) -> None:
    """Set weights to zero, let the others make up for it, and write the new state dict."""
    from memspace.auditing.store import write_tensors
    from memspace.format import format_value
    from memspace.measures.compensated import PruneSettings
    from memspace.verbs.prune import prune as prune_network

    memory = parse_memory(chosen.memory)
    settings = PruneSettings(objective=chosen.objective, rows=chosen.rows, memory=memory, seed=which.seed)
    with opened(which, output) as (task, progress):
        pruned = prune_network(
            task, _shares(chosen.keep, report), method=chosen.method, page=report, settings=settings, progress=progress
        )
        write_tensors(out, pruned.state)

    def show(console: Console) -> None:
        console.print(f"{chosen.method}: {pruned.share:.1%} of the weights kept, written to {out}", highlight=False)
        for m in pruned.measurements:
            console.print(f"  {m.estimator}: {format_value(m)}", highlight=False)

    tell(output, {"out": str(out), "measurements": [m.to_dict() for m in pruned.measurements]}, show)


def _shares(keep: float, report: Path | None) -> list[float]:
    """The share kept; for the page also the larger ones of its curve."""
    from memspace.auditing.chapters.pruning import SHARES

    return [keep] if report is None else [keep, *(s for s in SHARES if s > keep)]
