"""Failures a user can act on: one sentence that says what, where and what to do, and a distinct exit code.

Every error a person can cause derives from :class:`MemspaceError`; the command line prints ``str(error)`` and
leaves with ``error.exit_code``. Anything else that escapes is a fault of memspace and keeps its traceback.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "CheckpointError",
    "DataError",
    "Interrupted",
    "LabelError",
    "MemoryBudgetError",
    "MemspaceError",
    "MissingPackageError",
    "NonFiniteError",
    "OutputError",
    "RunFolderError",
    "SettingsError",
    "ShapeError",
    "StochasticModelError",
    "TaskError",
    "UnsafeCheckpointError",
    "UnsupportedLayerError",
    "WeightsMismatchError",
    "WorkerError",
]


class MemspaceError(Exception):
    """A failure with advice.

    Args:
        what: happened.
        where: it did.
        remedy: what to do.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str, remedy: str) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(f"{what} ({where}); {remedy}.")

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as what it is: by default exceptions are made again from their message alone."""
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[MemspaceError], args: tuple[Any, ...], attributes: dict[str, Any]) -> MemspaceError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class TaskError(MemspaceError):
    """The task named on the command line cannot be found or is not a task."""

    exit_code = 3


class SettingsError(MemspaceError, ValueError):
    """A setting is out of its range, or a command line cannot be read."""

    exit_code = 2


class DataError(MemspaceError):
    """Data are missing, empty, or cannot be read."""

    exit_code = 4


class LabelError(MemspaceError):
    """Labels are out of range or of the wrong kind for the output law."""

    exit_code = 5


class NonFiniteError(MemspaceError):
    """Weights, inputs, outputs or losses hold NaN or infinite values."""

    exit_code = 6


class StochasticModelError(MemspaceError):
    """Two forward passes of the model differ."""

    exit_code = 7


class ShapeError(MemspaceError):
    """The model refuses the shape of its input, or its output has an unexpected shape."""

    exit_code = 8


class WeightsMismatchError(MemspaceError):
    """A checkpoint's tensors do not fit the model."""

    exit_code = 9


class UnsafeCheckpointError(MemspaceError):
    """A checkpoint holds code, which memspace never runs."""

    exit_code = 10


class CheckpointError(MemspaceError):
    """A checkpoint is missing, truncated or not of a known format."""

    exit_code = 11


class UnsupportedLayerError(MemspaceError):
    """A layer whose per-example gradients cannot be computed."""

    exit_code = 12


class MemoryBudgetError(MemspaceError):
    """The asked representation does not fit into the memory budget."""

    exit_code = 13


class OutputError(MemspaceError):
    """Results cannot be written: disk full, read-only or not a folder."""

    exit_code = 14


class RunFolderError(MemspaceError):
    """A run folder is of another version, of another task, or damaged."""

    exit_code = 15


class WorkerError(MemspaceError):
    """One of several processes ended before its time, or there is no group of them."""

    exit_code = 16


class MissingPackageError(MemspaceError):
    """An optional package that is asked for is not installed."""

    exit_code = 17


class Interrupted(MemspaceError):
    """The user stopped the work; what was computed is kept."""

    exit_code = 130
