"""What the user tells besides model and data, checked: class names, true labels, ``show``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memspace.errors import LabelError, TaskError
from memspace.task.data import first_tensor

if TYPE_CHECKING:
    from memspace.task.task import Task

__all__ = ["Show", "check_told", "guarded_show", "reason_of"]


@dataclass(frozen=True)
class Show:
    """A user's ``show(input)`` that always gives text: a report is not lost where it fails for one example."""

    say: Callable[[Any], Any]

    def __call__(self, x: Any) -> str:
        """What the user's function says, or why it says nothing."""
        try:
            return str(self.say(x))
        except Exception as error:  # a user's own code
            return f"show fails for this example ({reason_of(error)})"


def guarded_show(show: Any) -> Any:
    """A user's show that cannot end a report."""
    return show if show is None or isinstance(show, Show) else Show(show)


def check_told(task: Task, outputs: int) -> None:
    """Raise where names or labels are too few, or where ``show`` does not work on the first example.

    Raises:
        TaskError, LabelError: naming what is wrong.
    """
    if task.class_names is not None and task.likelihood.classifies and outputs > 1 and len(task.class_names) < outputs:
        raise TaskError(
            f"{len(task.class_names)} class names are given for {outputs} outputs",
            where="class_names",
            remedy="give one name per output, in the order of the outputs",
        )
    if task.true_labels is not None and len(task.true_labels) != len(task.train):
        raise LabelError(
            f"{len(task.true_labels):,} true labels are given for {len(task.train):,} training examples",
            where="true_labels",
            remedy="give the true label of every training example, in reading order",
        )
    if isinstance(task.show, Show):
        x = first_tensor(task.train.batch([0]).x).clone()
        try:
            said = task.show.say(x[0])
        except Exception as error:  # a user's own code
            raise TaskError(
                f"show fails on the first training example ({reason_of(error)})",
                where="show",
                remedy="let it turn one input, without an axis of examples, into text",
            ) from error
        if not isinstance(said, str):
            raise TaskError(
                f"show returns {type(said).__name__}, not text", where="show", remedy="let it return a string"
            )


def reason_of(error: Exception) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
