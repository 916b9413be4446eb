"""``memspace duplicates``: examples that are there twice, and test examples among the training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import Output, PartOptions, option, out
from memspace.commands.output import tell
from memspace.limits import CHANCE, COUNT

if TYPE_CHECKING:
    from memspace.auditing.duplicates import Duplicates

__all__ = ["duplicates"]


@command()
def duplicates(
    which: PartOptions,
    output: Output,
    within: Annotated[
        str, option("train, or train-test: test examples seen in training.", words=("train", "train-test"))
    ] = "train",
    rate: Annotated[float, CHANCE, option("False positives per example.")] = 1e-3,
    top: Annotated[int, COUNT, option("How many pairs to list.")] = 50,
    out: Annotated[Path | None, out("File for all pairs, .parquet or .csv.")] = None,
) -> None:
    """List examples that the network takes for one another: duplicates, and leaks into the test data."""
    from memspace.auditing.table_file import table_path
    from memspace.verbs.duplicates import duplicates as find

    if out is not None:
        table_path(out)
    with opened(which, output) as (task, progress):
        suspected = find(task, within, rate=rate, seed=which.seed, progress=progress)
    if out is not None:
        suspected.save(out)
    content: dict[str, Any] = {
        "task": task.name,
        "within": within,
        "measurements": [m.to_dict() for m in (suspected.exact, suspected.near)],
        "pairs": {column: values[:top] for column, values in suspected.table.items()},
    }
    tell(output, content, lambda console: _show(suspected, top, console))


def _show(found: Duplicates, top: int, console: Console) -> None:
    from rich.table import Table

    from memspace.measurement import Measurement

    other = "train" if found.within == "train" else "test"
    table = Table("kind", "train", other, "similarity", "chance", "labels")
    t = found.table
    for k in range(min(top, len(found))):
        labels = f"{t['label'][k]}, {t['other_label'][k]}"
        chance = "" if t["kind"][k] == "exact" else f"{t['p_chance'][k]:.1e}"
        pair = (str(t["train_index"][k]), str(t["other_index"][k]))
        table.add_row(t["kind"][k], *pair, f"{t['similarity'][k]:.4f}", chance, labels)
    console.print(table)
    near = found.near
    near_pairs = f"{near.value:.0f} near ones ({near.estimator})" if isinstance(near, Measurement) else near.reason
    console.print(f"{found.exact.value:.0f} exact pairs; {near_pairs}.")
