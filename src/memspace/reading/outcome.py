"""The outcome of one prediction that is explained: the log-odds of two answers, or an output itself.

Of a label that is a class, or of several labels 0 or 1, the outcome is log p_a − log p_b: of the predicted answer a
against the label where that is another, else against the likeliest other one. Of a regression it is an output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memspace.attribution.target import Target
from memspace.errors import DataError, SettingsError, ShapeError
from memspace.passes.outputs import outputs
from memspace.positions import as_positions
from memspace.task.checks import evaluating
from memspace.task.data import Data, call_model, move
from memspace.task.law import IGNORE, Likelihood
from memspace.task.task import Task
from memspace.task.tensors import leaves, mapped, tensor_of

__all__ = ["PARTS", "ExplainedOutcome", "example_of", "outcome_of"]

PARTS = ("test", "train")
WHERE = "memspace.explain"


@dataclass(frozen=True)
class ExplainedOutcome:
    """One prediction, and the number of it that is explained.

    Args:
        data: holds the example.
        place: of the example in these data.
        number: of the example as the user counts; None for an input that is in no data.
        part: ``train``, ``test`` or ``input``.
        f: (C,) outputs at the position.
        probabilities: (K,) of the answers; None where there are none.
        choice: which of several labels, or which output of a regression; 0 for a class.
        answer: predicted, or asked for; None for a regression.
        against: the answer compared with; None for a regression.
        label: of the example, where known: an answer, or a number.
        position: whose output is explained, from 0; None without positions.
        positions: number of positions.
        target: the outcome as a function of outputs.
        value: of the outcome.
    """

    data: Data
    place: int
    number: int | None
    part: str
    f: Tensor
    probabilities: Tensor | None
    choice: int
    answer: int | None
    against: int | None
    label: float | None
    position: int | None
    positions: int
    target: Target
    value: float

    @property
    def wrong(self) -> bool:
        """Whether the network prefers another answer than the label; False where that cannot be said."""
        if self.probabilities is None or self.label is None:
            return False
        return int(self.probabilities.argmax()) != self.label


def example_of(task: Task, example: Any, part: str | None) -> tuple[Data, int, str]:
    """Find the example that is meant.

    Args:
        task: the network and its data.
        example: its position in the data, :class:`memspace.Data` of one example, or one input without its label.
        part: ``test`` or ``train``; None: the test data, or the training data where there are none.

    Returns:
        data, the place in them, and which part they are: ``train``, ``test`` or ``input``.

    Raises:
        DataError: there is no such example, or not one alone.
    """
    if isinstance(example, Data):
        if len(example) != 1:
            what = f"{len(example):,} examples are given, and one is explained"
            raise DataError(what, where=WHERE, remedy="give data of one example")
        return task.data(example, "input").encoded(task.train.encode), 0, "input"
    if isinstance(example, Mapping | tuple | list) or getattr(example, "ndim", 0) > 0:
        return _own_input(task, example), 0, "input"
    data = task.train if part == "train" or (part is None and task.test is None) else task.test
    if data is None:
        raise DataError("the task has no test data", where=WHERE, remedy="take a training example: part='train'")
    index = as_positions([example], "example", "give a whole number, or one input").long()
    place = int(data.places(index)[0])
    if not 0 <= place < len(data):
        what = f"there is no example {int(index[0])}"
        remedy = f"the {data.name} hold {len(data):,} examples, from 0 to {len(data) - 1}"
        raise DataError(what, where=WHERE, remedy=remedy)
    return data, place, "train" if data is task.train else "test"


def _own_input(task: Task, example: Any) -> Data:
    """Data of one input of the user's; what stands for its label is never used."""
    like = leaves(task.train.inputs([0]))
    inputs = _tensors(example)
    shapes = leaves(inputs)
    if len(shapes) == len(like) and all(t.dim() == r.dim() - 1 for t, r in zip(shapes, like, strict=True)):
        inputs = mapped(lambda t: t.unsqueeze(0) if isinstance(t, Tensor) else t, inputs)
    inputs = move(inputs, torch.device("cpu"), task.dtype)
    words = ", ".join(str(tuple(t.shape)) for t in leaves(inputs))
    try:
        with torch.no_grad(), evaluating(task.model):
            f = call_model(task.model, move(inputs, task.device, task.dtype))
    except Exception as error:  # whatever the model raises, it raises at its input
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        what = f"the model refuses an input of shape {words}: {reason}"
        wanted = ", ".join(str(tuple(t.shape[1:])) for t in like)
        raise ShapeError(what, where=WHERE, remedy=f"give one input as in training, of shape {wanted}") from error
    if len(f) != 1:
        what = f"{len(f)} inputs are given, and one is explained"
        raise DataError(what, where=WHERE, remedy="give one input")
    return task.data((inputs, task.likelihood.predict(f).cpu()), "input")


def _tensors(value: Any) -> Any:
    """Inputs as tensors: dicts stay dicts, lists of numbers are one tensor."""
    if isinstance(value, Mapping):
        return {k: _tensors(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(_tensors(v) for v in value)
    made = tensor_of(value if not isinstance(value, list) else torch.as_tensor(value), "input")
    if not isinstance(made, Tensor):
        what = f"the input is a {type(value).__name__}, not numbers"
        raise DataError(what, where=WHERE, remedy="give a tensor, or a dict or tuple of tensors")
    return made


def outcome_of(
    task: Task,
    example: Any,
    *,
    part: str | None = None,
    output: int | None = None,
    against: int | None = None,
    position: int | None = None,
) -> ExplainedOutcome:
    """Choose the outcome of an example's prediction that is explained.

    Args:
        task: the network and its data.
        example: see :func:`example_of`.
        part: see :func:`example_of`.
        output: the class explained, of several labels the label, of a regression the output; None: the predicted
            class, the surest label, the first output.
        against: the class compared with; None: the label where another class is explained, else the likeliest other.
        position: of a sequence of outputs; None: the last that has a label, or that is not padding.

    Returns:
        the outcome.

    Raises:
        SettingsError: there is no such output, class or position.
        MemspaceError: there is no such example.
    """
    data, place, where = example_of(task, example, part)
    f, y = outputs(task, data, index=torch.tensor([place]))
    law = task.likelihood
    positions = f[0, ..., 0].numel() if f.dim() > 2 else 1
    if f.dim() == 2 and position is not None:
        raise SettingsError("the outputs have no positions", where=WHERE, remedy="leave position out")
    at = _position(task, data, place, y, positions, position) if f.dim() > 2 else None
    row = _row(f, at).double()
    label = None if where == "input" and not isinstance(example, Data) else _label(law, row, y, at)
    number = None if where == "input" else int(data.numbers(torch.tensor(place)))
    choices = law.decisions(row, law.predict(row))
    if choices is None:
        count = row.shape[-1]
        chosen = 0 if output is None else _within(output, count, "output")
        if against is not None:
            raise SettingsError("the outputs are no classes", where=WHERE, remedy="leave against out")
        target = Target(f"output {chosen}", lambda _, f, y: _row(f, at)[..., chosen], "output units")
        known = None if label is None else float(label.flatten()[min(chosen, label.numel() - 1)])
        probabilities, answer, other = None, None, None
    else:
        log_p = choices[0][0]  # (D, K)
        choice, answer, other, known = _answers(log_p, label, output, against)
        chosen, probabilities = choice, log_p[choice].exp().cpu()
        target = _log_odds(choice, answer, other, at, len(log_p) > 1)
    value = float(target.value(law, f.double(), y)[0])
    count = positions if f.dim() > 2 else 1
    return ExplainedOutcome(
        data, place, number, where, row[0].cpu(), probabilities, chosen, answer, other, known, at, count, target, value
    )


def _answers(
    log_p: Tensor, label: Tensor | None, output: int | None, against: int | None
) -> tuple[int, int, int, float | None]:
    """The choice, the answer explained, the one compared with, and the label."""
    several, classes = log_p.shape
    choice = 0
    if several > 1:
        choice = (
            int((log_p[:, 0] - log_p[:, 1]).abs().argmax()) if output is None else _within(output, several, "output")
        )
    known = None if label is None else float(label.flatten()[choice if several > 1 else 0])
    if classes < 2:
        raise SettingsError("there is one class alone, so its log-odds are infinite", where=WHERE, remedy="give two")
    order = log_p[choice].argsort(descending=True, stable=True).tolist()
    answer = order[0] if output is None or several > 1 else _within(output, classes, "output")
    other = next(k for k in order if k != answer)
    if known is not None and known in range(classes) and int(known) != answer:
        other = int(known)
    if against is not None:
        other = _within(against, classes, "against")
        if other == answer:
            what = f"class {answer} is compared with itself"
            raise SettingsError(what, where=WHERE, remedy="name another class, or leave against out")
    return choice, answer, other, known


def _log_odds(choice: int, answer: int, other: int, position: int | None, several: bool) -> Target:
    def outcome(law: Likelihood, f: Tensor, y: Tensor) -> Tensor:
        at = _row(f, position)
        choices = law.decisions(at, law.predict(at.detach()))
        assert choices is not None
        log_p = choices[0][:, choice]
        return log_p[:, answer] - log_p[:, other]

    of = f" of label {choice}" if several else ""
    at = "" if position is None else f" at position {position}"
    return Target(f"log-odds of {answer} against {other}{of}{at}", outcome)


def _row(f: Tensor, position: int | None) -> Tensor:
    """Outputs (n, C) at a position, or at the last one of examples that are shorter."""
    if position is None:
        return f
    flat = f.reshape(len(f), -1, f.shape[-1])
    return flat[:, min(position, flat.shape[1] - 1)]


def _position(task: Task, data: Data, place: int, y: Tensor, positions: int, position: int | None) -> int:
    if position is not None:
        return _within(position, positions, "position")
    labels = y[0].flatten()
    if task.likelihood.has_classes and labels.numel() == positions and not labels.is_floating_point():
        labelled = (labels != IGNORE).nonzero()
        if len(labelled) and data.name != "input":
            return int(labelled[-1])
    x = data.batch([place]).x
    mask = x.get("attention_mask") if isinstance(x, dict) else None
    if isinstance(mask, Tensor) and mask[0].numel() == positions and bool((mask[0] != 0).any()):
        return int((mask[0].flatten() != 0).nonzero()[-1])
    return positions - 1


def _label(law: Likelihood, row: Tensor, y: Tensor, position: int | None) -> Tensor | None:
    """The label at the position; None where it is ignored, or a distribution over classes."""
    label = y[0] if position is None else _at(y[0], row, position)
    if law.has_classes and (label.numel() != 1 or label.is_floating_point() or int(label) == IGNORE):
        return None
    return label


def _at(label: Tensor, row: Tensor, position: int) -> Tensor:
    """The label of one position: one number a position, or a row of as many as there are outputs."""
    width = row.shape[-1] if label.shape[-1] == row.shape[-1] and label.dim() > 1 else 1
    return label.reshape(-1, width)[position]


def _within(given: int, count: int, name: str) -> int:
    if not 0 <= given < count:
        what = f"there is no {name} {given}"
        raise SettingsError(what, where=WHERE, remedy=f"give a number from 0 to {count - 1}")
    return given
