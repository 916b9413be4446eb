"""``memspace tasks``: the tasks that need no code of one's own."""

from __future__ import annotations

import typer

from memspace.commands.declaration import command

__all__ = ["tasks"]


@command()
def tasks() -> None:
    """List the built-in tasks."""
    from memspace.task.builtin import BUILTIN

    for name, make in BUILTIN.items():
        first = (make.__doc__ or "").strip().splitlines()[0]
        typer.echo(f"{name:<16}{first}")
