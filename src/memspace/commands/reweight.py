"""``memspace reweight``: weights of training examples by a few clean ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import Damping, Force, Output, PartOptions, option, out
from memspace.commands.statement import tell_statement
from memspace.limits import COUNT

__all__ = ["reweight"]


@command()
def reweight(
    which: PartOptions,
    output: Output,
    clean: Annotated[int, COUNT, option("How many test examples to take as the clean ones.")] = 50,
    preconditioned: Annotated[bool, option("By influence.", "--preconditioned")] = False,
    damping: Damping = None,
    out: Annotated[Path | None, out("Table of the weights, .parquet or .csv.")] = None,
    force: Force = False,
) -> None:
    """Weigh training examples by how far they go along with a few clean ones; train again where that can be done."""
    from memspace.auditing.table_file import save_table, table_path
    from memspace.editing.comparison import reweighted
    from memspace.editing.edit import writable
    from memspace.task.checks import check_task

    if out is not None:
        writable(table_path(out), force)
    with opened(which, output) as (task, _):
        check_task(task)
        weights, measured = reweighted(task, clean, preconditioned, damping, which.seed)
    if out is not None:
        columns = {"example": range(len(weights.weights)), "weight": weights.weights.tolist()}
        save_table(out, columns | {"product": weights.products.tolist()})
    tell_statement(output, weights.statement, measured, out)
