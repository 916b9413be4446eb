"""What the user gives besides model and data, checked: class names, true labels, ``show``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memspace.errors import LabelError, TaskError
from memspace.task.data import first_tensor

if TYPE_CHECKING:
    from memspace.task.task import Task

__all__ = ["Show", "check_metadata", "guarded_show", "reason_of"]


@dataclass(frozen=True)
class Show:
    """A user's ``show(input)`` that always gives text, so that a failure on one example does not end a report.

    Args:
        function: as the user gave it.
    """

    function: Callable[[Any], Any]

    def __call__(self, one: Any) -> str:
        """Return the user's text for one input, or why there is none."""
        try:
            return str(self.function(one))
        except Exception as error:  # a user's own code
            return f"show fails for this example ({reason_of(error)})"


def guarded_show(show: Any) -> Any:
    """Make a user's ``show`` one that cannot end a report.

    Args:
        show: a function of one input, None, or one that is guarded already.

    Returns:
        A :class:`Show`; None and guarded functions as they are.
    """
    return show if show is None or isinstance(show, Show) else Show(show)


def check_metadata(task: Task, outputs: int) -> None:
    """Check that names and labels are enough and that ``show`` works on the first example.

    Args:
        task: whose ``class_names``, ``true_labels`` and ``show`` are checked.
        outputs: number C of outputs.

    Raises:
        TaskError: there are fewer class names than outputs, or ``show`` fails or returns no text.
        LabelError: there is not one true label for each training example.
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
            text = task.show.function(x[0])
        except Exception as error:  # a user's own code
            raise TaskError(
                f"show fails on the first training example ({reason_of(error)})",
                where="show",
                remedy="let it turn one input, without an axis of examples, into text",
            ) from error
        if not isinstance(text, str):
            raise TaskError(
                f"show returns {type(text).__name__}, not text", where="show", remedy="let it return a string"
            )


def reason_of(error: Exception) -> str:
    """Write an exception in one line.

    Args:
        error: of a user's own code.

    Returns:
        Its class and the first 200 characters of its message.
    """
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
