"""The command line."""

from __future__ import annotations

import importlib
import io
import os
import pkgutil
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from memspace import commands
from memspace.commands import (
    Damping,
    Memory,
    Noise,
    Seed,
    default_folder,
    json_alone,
    move_to,
    parse_memory,
    say_json,
    watching,
)
from memspace.errors import Interrupted, MemspaceError, SettingsError
from memspace.report.terminal import Terminal, printable
from memspace.version import VERSION

__all__ = ["app", "main", "parse_memory"]


TAKE_MEMORY = ("audit", "influence", "labels", "prune", "retrain")  # commands with --memory
_UsageError: Any = typer.BadParameter.__mro__[1]  # of the click that typer uses: its own copy, or the package


class _Commands(TyperGroup):
    """The commands; Ctrl-C in any of them is a failure with advice like every other."""

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


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Reads a trained PyTorch network as a memory space: what it stores, how full it is, what breaks it.",
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"memspace {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def audit(
    task: Annotated[str, typer.Argument(help="A built-in task (see `memspace tasks`) or module:attribute.")],
    weights: Annotated[Path | None, typer.Option(help="Checkpoint: safetensors, or a state dict.")] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of its training, recorded by memspace.watch.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder (or file) the task's data are read from.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.", show_default="runs/NAME")] = None,
    label_noise: Noise = 0.0,
    seed: Seed = 0,
    memory: Memory = "4GiB",
    damping: Damping = None,
    representation: Annotated[str, typer.Option(help="auto, dual or ekfac.")] = "auto",
    query: Annotated[
        list[int] | None, typer.Option(help="Test example whose prediction to explain; repeatable.")
    ] = None,
    refits: Annotated[
        int | None,
        typer.Option(
            min=0, max=5, help="Trainings without a part of the data, at most; 0: none. Not given: as many as needed."
        ),
    ] = None,
    capacity: Annotated[
        float | None, typer.Option(min=0, help="Bits the architecture stores, as `memspace capacity` measures them.")
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Audit parameters whose names match; !PATTERN excludes; repeatable."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Move the model there first, e.g. cuda.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan and stop.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not go on from an interrupted run.")] = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Write results and tables, but no report.html.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Results as JSON on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")] = False,
) -> None:
    """Audit a trained network and write the report."""
    from memspace.auditing.audit import AuditSettings, audit_task, timed_plan
    from memspace.auditing.key import run_key
    from memspace.auditing.shared_store import open_store
    from memspace.report.format import said_time
    from memspace.report.html import render
    from memspace.report.text import summarise
    from memspace.task.builtin import BuildOptions
    from memspace.task.load import resolve
    from memspace.workers import local_device

    settings = AuditSettings(
        damping, parse_memory(memory), seed, tuple(query) if query else None, representation, capacity, refits
    )
    options = BuildOptions(seed=seed, label_noise=label_noise, data_root=data_root)
    console = Terminal(stderr=True)
    with watching(console, quiet or as_json) as progress:
        job = resolve(task, options, progress, weights, run)
        if parameters:
            job = replace(job, parameters=tuple(parameters))
        if device is not None:
            move_to(job.model, local_device(device))
        if plan:
            made, seconds = timed_plan(job, settings)
            if as_json:
                say_json(made.to_dict() | {"seconds": seconds})
            else:
                about = f"about {said_time(seconds)} here by the speed of a few batches, give or take a factor of two"
                typer.echo(f"{made.text()}\n{about}" + ("; refits come on top" if made.folds else ""))
            return
        folder = out if out is not None else default_folder(job.name)
        with open_store(folder, run_key(job, settings), fresh=fresh) as store:
            if store.resumed and not (quiet or as_json):
                console.print("Going on from an interrupted run.")
            results = audit_task(job, settings, store, progress)
            command = shlex.join(["memspace", *sys.argv[1:]])
            results = replace(results, settings={**results.settings, "command": command})
            store.save_results(results, None if no_report else render(results))
    if as_json:
        say_json(results.to_dict())
    elif not quiet:
        summarise(results, None if no_report else folder, Terminal())


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder holding results.json.")],
    out: Annotated[Path | None, typer.Option(help="HTML file.", show_default="RUN/report.html")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No summary.")] = False,
) -> None:
    """Render a finished run again from its stored results."""
    from memspace.auditing.store import load_results, write_text
    from memspace.passes.processes import current
    from memspace.report.html import render
    from memspace.report.text import summarise

    if current().rank > 0:  # one file, one writer
        return
    results = load_results(run)
    write_text(out if out is not None else run / "report.html", render(results))
    if not quiet:
        summarise(results, run if out is None else None, Terminal())


@app.command()
def tasks() -> None:
    """List the built-in tasks."""
    from memspace.task.builtin import BUILTIN

    for name, make in BUILTIN.items():
        first = (make.__doc__ or "").strip().splitlines()[0]
        typer.echo(f"{name:<16}{first}")


def _add_commands() -> None:
    for found in pkgutil.iter_modules(commands.__path__):
        importlib.import_module(f"{commands.__name__}.{found.name}").add(app)


_add_commands()


def main() -> None:
    """Entry point: one sentence and an exit code for every failure a user can cause."""
    as_json = "--json" in sys.argv
    speaks: Callable[[], bool] = lambda: True  # noqa: E731
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no ½ shows its code, not a traceback
            stream.reconfigure(errors="backslashreplace")
    try:
        with _team() as speaks, json_alone() if as_json else nullcontext():
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


def _team() -> AbstractContextManager[Callable[[], bool]]:
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1").strip() in ("", "0", "1"):
        return nullcontext(lambda: True)
    from memspace.workers import team_of_torchrun

    return team_of_torchrun()


def _refuse_empty(words: Sequence[str]) -> None:
    """Raise where an option is given nothing: an empty folder, as of an unset variable, would be the current one."""
    for option, value in zip(words, [*words[1:], None], strict=True):
        name, sign, inline = option.partition("=")
        if name.startswith("--") and (inline if sign else value) == "":
            raise SettingsError(f"{name} is empty", where="command line", remedy="give it a value, or leave it out")


def _unreadable(error: Any) -> SettingsError:
    """What is wrong with the words on the command line; click's own hints among them."""
    path = error.ctx.command_path if error.ctx is not None else "memspace"
    what = " ".join(error.format_message().split()).rstrip(".")
    return SettingsError(what[:1].lower() + what[1:], where=path, remedy=f"see `{path} --help`")


def _stopped() -> Interrupted:
    words = sys.argv[1:]
    kept = words[:1] in (["audit"], ["retrain"], ["study"]) or (
        words[:1] == ["influence"] and "--out" in " ".join(words)
    )
    remedy = "finished stages are kept, the same command goes on" if kept else "the same command begins again"
    return Interrupted("stopped", where="by the user", remedy=remedy)


def _no_memory() -> MemspaceError:
    taken = any(w.split("=")[0] == "--memory" for w in sys.argv) or (sys.argv[1:] or [""])[0] in TAKE_MEMORY
    remedy = "give a smaller --memory" if taken else "free some, or use a machine with more"
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
