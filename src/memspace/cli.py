"""The command line."""

from __future__ import annotations

import importlib
import io
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from memspace import commands
from memspace.commands.declaration import GROUPS, Command, declared
from memspace.commands.output import json_alone, say_json
from memspace.errors import Interrupted, MemspaceError, SettingsError
from memspace.extensions import load_extensions
from memspace.format import printable
from memspace.version import VERSION

__all__ = ["app", "main"]


_UsageError: Any = typer.BadParameter.__mro__[1]  # of the click that typer uses: its own copy, or the package


class _Commands(TyperGroup):
    """The commands, those of extensions among them; Ctrl-C in any is a failure with advice like every other."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the names of all commands."""
        self._add_extensions()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Find a command; extensions are imported only where memspace itself has none of that name."""
        command = super().get_command(ctx, cmd_name)
        if command is None:
            self._add_extensions()
            command = super().get_command(ctx, cmd_name)
        return command

    def _add_extensions(self) -> None:
        load_extensions()
        for name, made in typer.main.get_command(_typer_of(declared())).commands.items():  # type: ignore[attr-defined]
            self.commands.setdefault(name, made)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line; what cannot be read of it is a failure with advice like every other.

        Alone, as click's own test runner calls it, it tells that failure and leaves with its code, as click would.
        """
        alone = extra.get("standalone_mode", True)
        extra["standalone_mode"] = False
        _refuse_empty(extra.get("args") or sys.argv[1:])
        try:
            code = super().main(*args, **extra)
        except _UsageError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
            elif alone:
                _tell(_unreadable(error), as_json=False)
            else:
                raise _unreadable(error) from error
            code = error.exit_code
        except SettingsError as error:
            if not alone:
                raise
            _tell(error, as_json=False)
            code = error.exit_code
        except typer.Abort:
            raise _stopped() from None
        raise SystemExit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the command asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click itself would leave without a word
            raise _stopped() from None


def _version(show: bool) -> None:
    if show:
        typer.echo(f"memspace {VERSION}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _typer_of(made: Sequence[Command]) -> typer.Typer:
    """Typer's view of the declared commands."""
    top = typer.Typer(
        cls=_Commands,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Reads a trained PyTorch network as a memory space: what it stores, how full it is, what breaks it.",
    )
    top.callback()(_root)
    groups: dict[str, typer.Typer] = {}
    for one in made:
        if one.group and one.group not in groups:
            groups[one.group] = typer.Typer(no_args_is_help=True, help=GROUPS.get(one.group))
            top.add_typer(groups[one.group], name=one.group)
        (groups[one.group] if one.group else top).command(one.name)(one.run)
    return top


def _of_package() -> tuple[Command, ...]:
    """The commands of the package itself: every module of ``commands`` declares its own."""
    for module in pkgutil.iter_modules(commands.__path__):
        importlib.import_module(f"{commands.__name__}.{module.name}")
    return declared()


app = _typer_of(_of_package())


def main() -> None:
    """Run the command line: one sentence and an exit code for every failure a user can cause.

    Raises:
        SystemExit: with the exit code of the failure.
    """
    as_json = "--json" in sys.argv
    speaks: Callable[[], bool] = lambda: True  # noqa: E731
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no ½ shows its code, not a traceback
            stream.reconfigure(errors="backslashreplace")
    try:
        with _group() as speaks, json_alone() if as_json else nullcontext():
            app(standalone_mode=False)
    except MemspaceError as error:
        failure = error
    except KeyboardInterrupt:
        failure = _stopped()
    except MemoryError:
        failure = _no_memory()
    except BrokenPipeError:  # whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    else:
        return
    if speaks():
        _tell(failure, as_json)
    raise SystemExit(failure.exit_code)


def _group() -> AbstractContextManager[Callable[[], bool]]:
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1").strip() in ("", "0", "1"):
        return nullcontext(lambda: True)
    from memspace.workers import group_of_torchrun

    return group_of_torchrun()


def _refuse_empty(words: Sequence[str]) -> None:
    """Raise where an option is given nothing: an empty folder, as of an unset variable, would be the current one."""
    for option, value in pairwise([*words, None]):
        name, sign, inline = str(option).partition("=")
        if name.startswith("--") and (inline if sign else value) == "":
            raise SettingsError(f"{name} is empty", where="command line", remedy="give it a value, or leave it out")


def _unreadable(error: Any) -> SettingsError:
    """What is wrong with the words on the command line; click's own hints among them."""
    path = error.ctx.command_path if error.ctx is not None else "memspace"
    what = " ".join(error.format_message().split()).rstrip(".")
    return SettingsError(what[:1].lower() + what[1:], where=path, remedy=f"see `{path} --help`")


def _typed() -> Command | None:
    """The declared command that the words of the command line begin with."""
    words = sys.argv[1:3]
    return next((c for c in declared() if words[: 1 + bool(c.group)] == [*filter(None, (c.group, c.name))]), None)


def _stopped() -> Interrupted:
    made = _typed()
    goes_on = made is not None and made.goes_on
    resumes = goes_on in " ".join(sys.argv) if isinstance(goes_on, str) else goes_on
    remedy = "finished stages are kept, the same command goes on" if resumes else "the same command begins again"
    return Interrupted("stopped", where="by the user", remedy=remedy)


def _no_memory() -> MemspaceError:
    made = _typed()
    remedy = "free some, or use a machine with more"
    if made is not None and "memory" in made.options:
        remedy = "give a smaller --memory"
    return MemspaceError("the machine ran out of memory", where=" ".join(sys.argv[1:2]) or "memspace", remedy=remedy)


def _tell(error: MemspaceError, as_json: bool) -> None:
    if as_json:
        detail = {
            "what": error.what,
            "where": error.where,
            "remedy": error.remedy,
            "exit_code": error.exit_code,
        }
        say_json({"error": detail})
    print(f"memspace: {printable(str(error), one_line=True)}", file=sys.stderr)
