"""How labels as people have them become labels of the output law: one rule for all data of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memspace.errors import LabelError
from memspace.task.data import as_labels
from memspace.task.law import IGNORE, Likelihood

__all__ = ["LabelEncoding", "find_encoding"]

WHOLE = 2.0**53  # whole numbers stored as floats are exact up to here


@dataclass(frozen=True)
class LabelEncoding:
    """Steps from labels as given to labels of the law, in the order of the fields.

    Args:
        names: class k is the string ``names[k]``.
        squeeze: how many last axes of length one are removed.
        unsqueeze: one last axis of length one is added.
        classes_first: distributions over classes have them along axis 1.
        onehot: the place of the one is the class.
        whole: whole numbers stored as floats, or true and false, are classes.
        real: integer targets are real numbers.
        shift: subtracted from integer classes (1 where they start at 1).
        next_token: the label of a position is the next position's; the last has none.
    """

    names: tuple[str, ...] = ()
    squeeze: int = 0
    unsqueeze: bool = False
    classes_first: bool = False
    onehot: bool = False
    whole: bool = False
    real: bool = False
    shift: int = 0
    next_token: bool = False

    def __call__(self, raw: Any) -> Tensor:
        """Encode raw labels.

        Args:
            raw: labels of a batch as the source gives them.

        Returns:
            Labels of the law.

        Raises:
            LabelError: a string that is no class, or a value that is no number.
        """
        y: Tensor = as_labels(_numbered(raw, self.names, "labels") if self.names else raw)
        for _ in range(self.squeeze):
            y = y.squeeze(-1)
        if self.unsqueeze:
            y = y.unsqueeze(-1)
        if self.classes_first:
            y = y.movedim(1, -1)
        if self.onehot:
            y = y.to(torch.uint8).argmax(-1)
        if self.whole:
            y = y.long()
        if self.real:
            y = y.double()
        if self.shift:
            y = torch.where(y == IGNORE, y, y - self.shift)
        if self.next_token:
            y = torch.cat([y[:, 1:], torch.full_like(y[:, :1], IGNORE)], 1)
        return y

    @property
    def description(self) -> str:
        """One clause for people; empty where labels are read as they are."""
        parts = []
        if self.names:
            shown = ", ".join(f"{k} = {name}" for k, name in enumerate(self.names[:5]))
            parts.append(f"strings in this order: {shown}" + (", ..." if len(self.names) > 5 else ""))
        if self.onehot:
            parts.append("one-hot rows read as classes")
        if self.whole:
            parts.append("whole numbers or true and false read as classes")
        if self.shift:
            parts.append(f"classes start at {self.shift} and are read as starting at 0: {self.shift} is taken off")
        if self.next_token:
            parts.append("next tokens: labels equal the input tokens and are moved by one position")
        return "; ".join(parts)


def find_encoding(law: Likelihood, f: Tensor, y: Any, names: Sequence[str] | None) -> LabelEncoding:
    """Find the encoding under which all labels fit the outputs.

    Labels that fit no rule are left as they are, for the law's own check to name the fault.

    Args:
        law: the output law.
        f: outputs of a few examples (B, ..., C), as the law wants them.
        y: labels of all examples: a tensor (N, ...) or a list of strings.
        names: names of the classes in the order of the outputs, where they are known.

    Returns:
        The encoding.

    Raises:
        LabelError: the labels are strings whose order is not known.
    """
    words: tuple[str, ...] = ()
    if not isinstance(y, Tensor):
        words = _vocabulary(y, f, names)
        y = _numbered(y, words, "labels")
    if y.is_complex():
        return LabelEncoding(words)
    one = (*f.shape[1:-1],)
    shape, classes = tuple(y.shape[1:]), law.classes(f.shape[-1])
    if classes is not None:
        squeeze = _surplus(shape, one) if classes > 1 else 0
        whole = onehot = False
        if shape == (*one, classes) and not squeeze and y.dtype != torch.uint16:
            onehot = bool(((y == 0) | (y == 1)).all()) and bool((y.double().sum(-1) == 1).all())
        elif y.dtype == torch.bool:
            whole = classes == 2
        elif y.is_floating_point():
            whole = bool(((y == y.round()) & (y.abs() <= WHOLE)).all())
        plain = shape == one or squeeze > 0
        real = shape == (*one, classes) and not squeeze and not onehot and not y.is_floating_point()
        shift = 0
        if plain and (whole or not y.is_floating_point()) and y.dtype != torch.bool:
            counted = y[y != IGNORE] if y.dtype != torch.uint16 else y.long()
            if len(counted) and int(counted.min()) == 1 and int(counted.max()) == classes:
                shift = 1
        return LabelEncoding(words, squeeze=squeeze, onehot=onehot, whole=whole and plain, real=real, shift=shift)
    unsqueeze = shape == one and shape != tuple(f.shape[1:]) and f.shape[-1] == 1
    real = (law.continuous and not y.is_floating_point() and not words) or y.dtype == torch.bool
    return LabelEncoding(words, squeeze=_surplus(shape, tuple(f.shape[1:])), unsqueeze=unsqueeze, real=real)


def _surplus(shape: tuple[int, ...], wanted: tuple[int, ...]) -> int:
    """Count the axes of length one behind those that are wanted."""
    more = len(shape) - len(wanted)
    return more if more > 0 and shape == (*wanted, *[1] * more) else 0


def _vocabulary(y: Any, f: Tensor, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes' names in the order of the outputs: as given, else sorted."""
    words = sorted({str(v) for v in y})
    if names is not None and set(words) <= set(names):
        return tuple(names)
    if len(words) != max(2, f.shape[-1]):
        raise LabelError(
            f"the labels are {len(words)} different strings ({', '.join(words[:5])}) and the model has {f.shape[-1]} "
            "outputs, so their order is not known",
            where="training data",
            remedy="give class_names in the order of the outputs, or integer labels",
        )
    if all(v.isdecimal() and v.isascii() for v in words):  # 2 before 10
        words.sort(key=int)
    return tuple(words)


def _numbered(y: Any, names: Sequence[str], where: str) -> Tensor:
    if isinstance(y, Tensor):  # numbered already
        return y
    number = {name: k for k, name in enumerate(names)}
    unknown = sorted({str(v) for v in y} - set(number))
    if unknown:
        raise LabelError(
            f"the label {unknown[0]!r} is none of the classes {', '.join(names[:5])}",
            where=where,
            remedy="give class_names that hold every label",
        )
    return torch.tensor([number[str(v)] for v in y])
