"""``memspace tasks``: the tasks that need no code of one's own."""

from __future__ import annotations

import typer

from memspace.commands.declaration import command

__all__ = ["tasks"]


@command()
def tasks() -> None:
    """List the built-in tasks, those of extensions included."""
    from memspace.task.builtin import builtin_tasks

    for name, make in builtin_tasks().items():
        first = (make.__doc__ or "").strip().splitlines()[0]
        typer.echo(f"{name:<16}{first}")
