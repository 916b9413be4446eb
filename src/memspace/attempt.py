"""A measure that work can do without: where it fails it is absent with the reason, and what is finished stays."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

from memspace.errors import Interrupted, MemspaceError, OutputError, RunFolderError, WorkerError
from memspace.measurement import Unmeasured

__all__ = ["attempt", "settled_by_all"]

T = TypeVar("T")
Failure = tuple[str, str, str]  # name of the measure, reason, remedy
# What several processes agree on at the end of an attempt: given why it failed here, or None, whether it failed
# anywhere and why. One process alone agrees with itself.
settled_by_all: ContextVar[Callable[[str, Failure | None], Failure | None]] = ContextVar(
    "settled_by_all", default=lambda _name, failure: failure
)
LONGEST = 200  # characters of a foreign message that are shown
STOPS = (Interrupted, OutputError, RunFolderError, WorkerError)  # the whole work cannot go on after these


def attempt(name: str, measure: Callable[[], T], remedy: str = "") -> T | Unmeasured:
    """Call a measure, or say why there is nothing.

    Foreign errors (torch's ``RuntimeError``, arithmetic, linear algebra) and memspace's own refusals become the reason,
    named by their type. Any other exception is a fault of the model or of memspace: it costs no finished work either,
    but is warned of. What stops the work as a whole (an interruption, a full disk, a lost process) is raised.
    Of several processes all hear where it failed on one, and all go without it.

    Args:
        name: of the measure, or of its group.
        measure: computes it.
        remedy: what would make it measurable.

    Returns:
        What ``measure()`` returns, or the reason why there is nothing.
    """
    failure: Failure | None = None
    result: T | None = None
    try:
        result = measure()
    except STOPS:
        raise
    except MemspaceError as error:
        failure = name, f"{error.what} ({error.where})", remedy or error.remedy
    except Exception as error:
        message = (str(error).strip() or "no message").splitlines()[0][:LONGEST]
        reason = f"it failed with {type(error).__name__}: {message}"
        # numpy's LinAlgError is a ValueError, torch's a RuntimeError
        if not isinstance(error, RuntimeError | ArithmeticError) and type(error).__name__ != "LinAlgError":
            warnings.warn(f"{name} was not measured: {reason}", RuntimeWarning, stacklevel=2)
        failure = name, reason, remedy or "the rest is measured; report it where the message tells you nothing"
    failure = settled_by_all.get()(name, failure)
    return Unmeasured(*failure) if failure is not None else result  # type: ignore[return-value]
