"""``memspace zoo fragility``: how far measures move under small changes of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memspace.commands.declaration import command
from memspace.commands.options import Output, option, out
from memspace.commands.output import tell

if TYPE_CHECKING:
    from rich.console import Console

    from memspace.verbs.fragility import FragileMeasures

__all__ = ["fragility"]

HEADS = ("seed", "rate", "width", "gain")  # beginnings of the changes' names


@command(group="zoo")
def fragility(
    output: Output,
    store: Annotated[Path, typer.Argument(help="Folder of a zoo's store or tables; shipped: the package's own.")],
    zoo: Annotated[str | None, option("Name of the zoo whose networks are read.", shown="all in the store")] = None,
    out: Annotated[Path | None, out("Parquet file of every movement, a row a measure and change.", "none")] = None,
) -> None:
    """Say how far measures move when a recipe hardly does: gain on the logits, learning rate, width, seed."""
    from memspace.verbs.fragility import fragile_measures

    results = fragile_measures(store, zoo=zoo or "")
    if out is not None:
        from memspace.files import written

        written(out, lambda path: results.table.write_parquet(path))
    tell(output, results.to_dict(), lambda console: _shown(results, console))


def _shown(results: FragileMeasures, console: Console) -> None:
    from rich.table import Table

    by_measure: dict[str, list[dict[str, Any]]] = {}
    for row in results.table.to_dicts():
        if row["moved"] is not None:
            by_measure.setdefault(row["measure"], []).append(row)
    table = Table(title=str(results).splitlines()[0], box=None)
    table.add_column("measure", no_wrap=True)
    for head in (*HEADS, "passed"):
        table.add_column(head, justify="right", no_wrap=True)
    whole = {name: rows[-1] for name, rows in by_measure.items()}  # all changes together come last
    for name in sorted(by_measure, key=lambda n: float(whole[n]["moved"])):
        moved = [[r["moved"] for r in by_measure[name] if (r["change"] or "").startswith(head)] for head in HEADS]
        table.add_row(name, *(f"{max(m):.2f}" if m else "" for m in moved), f"{whole[name]['rank']:.0%}")
    console.print(table)
    console.print("median movement in spreads of the measure, under a gain the most of all gains;")
    console.print("passed: share of networks that a changed one passes, over all changes")
