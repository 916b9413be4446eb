"""``memspace labels``: training labels that look wrong, the likeliest first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import Damping, Memory, Output, PartOptions, option, out, parse_memory
from memspace.commands.output import tell
from memspace.limits import COUNT, WHOLE

if TYPE_CHECKING:
    from memspace.auditing.label_issues import LabelIssues
    from memspace.task.task import Task

__all__ = ["labels"]

HEADS = {
    "index": "example",
    "output": "output",
    "label": "label",
    "suggested_label": "suggested",
    "value": "value",
    "prediction": "without the example",
    "standardised_residual": "off by (σ)",
    "p_wrong_label": "probability wrong",
    "p_outlier": "probability outlier",
    "train_loss": "loss (nats)",
    "for_suggested": "for suggested",
    "for_label": "for label",
}


@command()
def labels(
    which: PartOptions,
    output: Output,
    top: Annotated[int, COUNT, option("How many labels to list.")] = 50,
    out: Annotated[Path | None, out("File for the list, .parquet or .csv.")] = None,
    folds: Annotated[int | None, WHOLE, option("Parts of the data for refits; 0: none.", shown="as an audit")] = None,
    repeats: Annotated[int, COUNT, option("Partitions averaged over.")] = 1,
    damping: Damping = None,
    memory: Memory = "4GiB",
) -> None:
    """List training labels that look wrong, with a probability, a suggestion and the examples behind it."""
    from memspace.auditing.settings import AuditSettings
    from memspace.auditing.table_file import table_path
    from memspace.verbs.labels import labels as judge

    if out is not None:
        table_path(out)
    settings = AuditSettings(damping, parse_memory(memory), which.seed)
    with opened(which, output) as (task, progress):
        issues = judge(task, settings=settings, folds=folds, repeats=repeats, reasons=top, progress=progress)
    if out is not None:
        issues.save(out, top)
    content: dict[str, Any] = {
        "task": task.name,
        "measurements": [issues.noise.to_dict()],
        "estimator": issues.estimator,
        "labels": {column: values[:top] for column, values in issues.table.items()},
        "seconds": issues.seconds,
    }
    tell(output, content, lambda console: _show(task, issues, top, console))


def _show(task: Task, found: LabelIssues, top: int, console: Console) -> None:
    from rich.table import Table

    names = None if "output" in found.table else task.class_names

    def named(k: int) -> str:
        return names[k] if names is not None and 0 <= k < len(names) else str(k)

    t = found.table
    shown = [name for name in HEADS if name in t]
    table = Table(*(HEADS[name] for name in shown))
    for k in range(min(top, len(found))):
        table.add_row(*(_cell(name, t[name][k], named) for name in shown))
    console.print(table)
    low, high = found.noise.interval or (found.noise.value, found.noise.value)
    what = "outliers" if "p_outlier" in t else "wrong labels"
    note = f": {found.noise.note}" if found.noise.note else ""
    console.print(f"Estimated share of {what} {found.noise.value:.1%} ({low:.1%} to {high:.1%}){note}.")
    console.print(f"Judged by {found.estimator}; {found.seconds['total']:.1f} s.")


def _cell(name: str, value: Any, named: Callable[[int], str]) -> str:
    if name in ("label", "suggested_label"):
        return named(value)
    if name.startswith("for_"):
        return ", ".join(map(str, value or ()))
    if name.startswith("p_"):
        return f"{value:.1%}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
