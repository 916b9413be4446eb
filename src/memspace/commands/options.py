"""The options of the command line, each declared once: name, help, default and the check of its value.

A dataclass holds the options of one theme; a command takes those it needs as arguments (see
:mod:`memspace.commands.declaration`). A value is checked by the limit of the setting that it fills, so that Python and
the command line refuse the same values in the same words.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from memspace.errors import SettingsError
from memspace.limits import BYTES, DAMPING, SEED, SHARE, one_of

__all__ = [
    "Damping",
    "FileOutput",
    "Force",
    "Fresh",
    "Memory",
    "NetworkOptions",
    "Output",
    "PartOptions",
    "Seed",
    "Share",
    "TaskOptions",
    "TrainingOptions",
    "option",
    "out",
    "parse_memory",
]


def option(
    help: str,
    *names: str,
    words: tuple[str, ...] | str | None = None,
    shown: str | None = None,
    metavar: str | None = None,
    panel: str | None = None,
) -> Any:
    """Say what an option means and which values it takes.

    An argument becomes an option by its annotation, which holds the limit of a number, too, as the annotations of
    settings do: ``steps: Annotated[int, COUNT, option("Steps of a search.")] = 20``.

    Args:
        help: one sentence.
        names: other than ``--name-of-the-argument``.
        words: the words it may be, or where they are listed: ``module:NAME``, imported when a value is checked.
        shown: the default as the help shows it, where that is no plain value.
        metavar: what stands for a value in the help.
        panel: of the help; that of the dataclass where not given.

    Returns:
        What typer reads from an annotation.
    """
    check = _among(words) if words is not None else None
    return typer.Option(
        *names, help=help, callback=check, show_default=shown or True, metavar=metavar, rich_help_panel=panel
    )


def out(help: str, shown: str | None = None) -> Any:
    """Declare ``--out``, the place of results.

    Args:
        help: says whether it is a file or a folder.
        shown: shown as the default; None: the default itself.

    Returns:
        the option, for ``Annotated``.
    """
    return option(help, shown=shown, panel=Output.panel)


def _among(words: tuple[str, ...] | str) -> Callable[[typer.CallbackParam, Any], Any]:
    """A check that a value, or each of several, is one of the known words."""

    def check(option: typer.CallbackParam, value: Any) -> Any:
        known = words
        if isinstance(known, str):
            module, _, name = known.partition(":")
            known = tuple(w for w in getattr(importlib.import_module(module), name) if w is not None)
        name = option.opts[0].removeprefix("--")
        for one in value if isinstance(value, list | tuple) else () if value is None else (value,):
            one_of(one, known, name)
        return value

    return check


def parse_memory(text: str) -> int:
    """Read a size: ``4GiB``, ``512MiB``, ``2G``, ``800m``.

    Args:
        text: a number and a unit of 1024; without a unit it counts bytes.

    Returns:
        Bytes, from 1 to 2⁶⁰.

    Raises:
        SettingsError: it is not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?\s*", text.lower(), re.ASCII)
    size = math.inf if match is None else float(match[1]) * 1024 ** " kmgt".index(match[2] or " ")
    if not BYTES.low <= size <= BYTES.high:
        raise SettingsError(f"{text[:60]!r} is not a size", where="--memory", remedy="write for example 4GiB or 512MiB")
    return int(size)


def _size(value: str) -> str:
    parse_memory(value)
    return value


Seed = Annotated[int, SEED, option("Random seed.")]
Share = Annotated[float, SHARE, option("Share of training labels a built-in task corrupts.")]
Damping = Annotated[float | None, DAMPING, option("γ of (F + γI)⁻¹.", shown="chosen from the data")]
Memory = Annotated[str, typer.Option(help="Memory budget, excluding model and data.", callback=_size, metavar="SIZE")]
Force = Annotated[bool, option("Overwrite what is there.", "--force")]
Fresh = Annotated[bool, option("Start again instead of going on from an interrupted run.", "--fresh")]


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Which task, by its name.

    Args:
        task: a built-in name, ``module:attribute`` or ``file.py:attribute``.
        data_root: folder or file of its data.
    """

    panel: ClassVar[str] = "Task"
    task: Annotated[
        str, typer.Argument(help="A built-in task (see `memspace tasks`), module:attribute or file.py:attribute.")
    ]
    data_root: Annotated[Path | None, option("Folder (or file) the task's data are read from.")] = None


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(TaskOptions):
    """A task with what decides its training.

    Args:
        label_noise: share of training labels that a built-in task corrupts, in [0, 1).
        seed: of every random choice.
        device: where the model is moved first.
    """

    label_noise: Share = 0.0
    seed: Seed = 0
    device: Annotated[str | None, option("Move the model there first, e.g. cuda.")] = None


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(TrainingOptions):
    """A task with a trained network.

    Args:
        weights: checkpoint to read.
        run: folder of a recorded training.
    """

    weights: Annotated[Path | None, option("Checkpoint: safetensors, or a state dict.")] = None
    run: Annotated[Path | None, option("Folder of its training, recorded by memspace.watch.")] = None


@dataclass(frozen=True, kw_only=True)
class PartOptions(NetworkOptions):
    """A trained network, or a part of it.

    Args:
        parameters: shell patterns over names of parameters.
    """

    parameters: Annotated[
        list[str] | None,
        option("Only parameters whose names match; !PATTERN excludes; repeatable.", metavar="PATTERN"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """The form in which results are shown.

    Args:
        as_json: on one line of standard output, and nothing else there.
        quiet: neither progress nor a summary.
    """

    panel: ClassVar[str] = "Output"
    as_json: Annotated[bool, option("Results as JSON on standard output.", "--json")] = False
    quiet: Annotated[bool, option("No progress and no summary.", "--quiet")] = False

    @property
    def silent(self) -> bool:
        """Whether no progress is shown."""
        return self.as_json or self.quiet


@dataclass(frozen=True, kw_only=True)
class FileOutput(Output):
    """Results shown, and written to a file.

    Args:
        out: the file, JSON.
    """

    out: Annotated[Path | None, out("File the results are written to.", "none")] = None
