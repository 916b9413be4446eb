"""Where live numbers go: whatever the user gives that can take them, told by what it can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from memspace.errors import TaskError
from memspace.recorder.numbers import Numbers
from memspace.report.live import LiveLine

__all__ = ["Sink", "as_sinks"]

Sink = Callable[[Numbers], None]


def as_sinks(to: Any) -> tuple[Sink, ...]:
    """Make one target or several functions of the numbers.

    A target is a TensorBoard ``SummaryWriter`` (anything with ``add_scalar``), the ``mlflow`` module or a client's run
    (anything with ``log_metrics``), the word ``"terminal"``, or a function that takes :class:`Numbers`.

    Args:
        to: one target, or a list or tuple of them.

    Returns:
        One function a target.

    Raises:
        TaskError: it is none of these.
    """
    several: Sequence[Any] = to if isinstance(to, list | tuple) else (to,)
    return tuple(_sink(target) for target in several)


def _sink(target: Any) -> Sink:
    if target == "terminal":
        return LiveLine()
    if hasattr(target, "add_scalar"):
        return _TensorBoard(target)
    if hasattr(target, "log_metrics"):
        return _MLflow(target)
    if callable(target):
        return target  # type: ignore[no-any-return]
    raise TaskError(
        f"live numbers cannot be sent to {target!r}",
        where="to",
        remedy='give "terminal", a SummaryWriter, the mlflow module, or a function of the numbers',
    )


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __call__(self, numbers: Numbers) -> None:
        for name, value in numbers.known().items():
            self._writer.add_scalar(f"memspace/{name}", value, numbers.step)


class _MLflow:
    def __init__(self, client: Any) -> None:
        self._client = client

    def __call__(self, numbers: Numbers) -> None:
        self._client.log_metrics({f"memspace/{k}": v for k, v in numbers.known().items()}, step=numbers.step)
