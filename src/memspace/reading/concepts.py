"""Labelled concepts: levels of known factors, classes, or what a user gives, by example or by position."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memspace.errors import DataError, SettingsError
from memspace.task.data import Data
from memspace.task.task import Task
from memspace.task.tensors import tensor_of

__all__ = ["CONCEPTS", "ConceptSource", "ConceptTable", "class_concepts", "concept_source", "load_concepts"]

CONCEPTS = ("factors", "classes")
MOST = 200  # classes; of a larger vocabulary the most frequent ones
WHERE = "memspace.dissect, concepts"
SHAPES = "(n, K) by example, (n, K, T) or (n, K, H, W) by position"


@dataclass(frozen=True)
class ConceptTable:
    """Which examples, or which positions of them, have which concept.

    Args:
        names: (K,).
        has: (n, K) or (n, K, *positions), bool.
        counted: (n, *positions) positions that count; None: all.
    """

    names: tuple[str, ...]
    has: Tensor
    counted: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Positions of an example, empty where concepts are of whole examples."""
        return tuple(self.has.shape[2:])


@dataclass(frozen=True)
class ConceptSource:
    """Examples, and what is known of them.

    Args:
        data: the examples.
        what: ``"factors"``, ``"classes"`` or ``"given"``.
        labelled: whether the examples have labels.
        table: of all examples; None where the labels have to be read first.
    """

    data: Data
    what: str
    labelled: bool
    table: ConceptTable | None

    def of(self, index: Tensor) -> ConceptTable | None:
        """Restrict the table to some examples.

        Args:
            index: (n,) positions in the data.

        Returns:
            their concepts, in this order.
        """
        if self.table is None:
            return None
        return ConceptTable(self.table.names, self.table.has[index])


def concept_source(task: Task, concepts: Any, data: str | None = None) -> ConceptSource:
    """Find examples with concepts.

    Args:
        task: the network and its data.
        concepts: ``"factors"``, ``"classes"``, or by name or column a table of 0 and 1; None: factors where the task
            has them, else classes.
        data: of a table given: ``"test"``, ``"train"`` or ``"factors"``; None: test data where there are any.

    Returns:
        the examples and, where these are known without reading labels, their concepts.

    Raises:
        SettingsError: the task has no such concepts or data.
        DataError: the table does not fit the data.
    """
    if concepts is None:
        concepts = "factors" if task.factors is not None else "classes"
    if isinstance(concepts, str):
        if concepts == "factors":
            return _of_factors(task)
        if concepts != "classes":
            raise SettingsError(
                f"there are no concepts {concepts!r}", where=WHERE, remedy="give 'factors', 'classes' or a table"
            )
        if not task.likelihood.classifies:
            raise SettingsError(
                "labels are no classes, and no factors or concepts are given",
                where=WHERE,
                remedy="give concepts={name: (n,) of 0 and 1}, or a task with factors",
            )
        return ConceptSource(_data_of(task, data), "classes", True, None)
    if data == "factors":
        source = _of_factors(task)
        return ConceptSource(source.data, "given", False, _given(concepts, source.data))
    of = _data_of(task, data)
    return ConceptSource(of, "given", True, _given(concepts, of))


def class_concepts(task: Task, f: Tensor, y: Tensor) -> ConceptTable:
    """Make a concept of every class.

    Args:
        task: the network and its law.
        f: (n, ..., C) outputs.
        y: labels.

    Returns:
        concepts by example, or by position where labels are.

    Raises:
        SettingsError: labels are no classes.
    """
    law = task.likelihood
    names = task.class_names
    if law.has_classes:
        k = law.classes(f.shape[-1])
        assert k is not None
        labels = y.argmax(-1) if y.dim() == f.dim() else y
        counted = law.weight(f, y) > 0
        values = torch.arange(k, device=y.device)
        if k > MOST:
            often = labels[counted].long().bincount(minlength=k).argsort(descending=True, stable=True)
            values = often[:MOST].sort().values
        has = (labels.unsqueeze(1) == values.reshape(1, -1, *[1] * (labels.dim() - 1))) & counted.unsqueeze(1)
    elif y.shape == f.shape and y.dim() == 2:
        k, has, counted = y.shape[1], y > 0.5, None
        values = torch.arange(k)
    else:
        raise SettingsError(
            f"labels of shape {tuple(y.shape)} name no classes", where=WHERE, remedy="give concepts={name: (n,)}"
        )
    known = tuple(names) if names is not None and len(names) == k else tuple(f"class {c}" for c in range(k))
    known = tuple(known[v] for v in values.tolist())
    by_position = counted is not None and counted.dim() > 1
    return ConceptTable(known, has.cpu(), counted.cpu() if counted is not None and by_position else None)


def load_concepts(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read concepts from a file: columns of a CSV file with a head line, or arrays by name of an ``.npz`` file.

    Args:
        path: of the file.

    Returns:
        name → (n,) or (n, *positions).

    Raises:
        DataError: it cannot be read.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        with path.open(newline="", encoding="utf-8") as lines:
            head, *rows = list(csv.reader(lines))
        return {name: np.array([float(row[k]) for row in rows]) for k, name in enumerate(head)}
    except (OSError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise DataError(
            f"the concepts cannot be read: {reason}",
            where=str(path),
            remedy="give a CSV file of 0 and 1 with a head line, or an .npz file with an array a concept",
        ) from error


def _of_factors(task: Task) -> ConceptSource:
    factors = task.factors
    if factors is None:
        raise SettingsError("the task has no factors", where=WHERE, remedy="give Task(factors=...) or other concepts")
    names, columns = [], []
    for k, name in enumerate(factors.names):
        for level in torch.unique(factors.values[:, k]).tolist():
            names.append(f"{name} {level}")
            columns.append(factors.values[:, k] == level)
    data = Data((factors.inputs, torch.zeros(len(factors.inputs))), "inputs with known factors")
    return ConceptSource(data, "factors", False, ConceptTable(tuple(names), torch.stack(columns, 1)))


def _data_of(task: Task, data: str | None) -> Data:
    if data == "test" and task.test is None:
        raise SettingsError("the task has no test data", where=WHERE, remedy="give them, or data='train'")
    return task.test if data != "train" and task.test is not None else task.train


def _given(concepts: Any, data: Data) -> ConceptTable:
    """Read a user's table, and leave out the rows of examples without a label."""
    names: Sequence[Any] | None = None
    if isinstance(concepts, Mapping):
        names = list(concepts)
        columns = [_numbers(v) for v in concepts.values()]
        shapes = sorted({tuple(c.shape) for c in columns})
        if len(shapes) != 1 or not shapes[0]:
            what = f"concepts are of shapes {shapes[0]} and {shapes[-1]}" if shapes else "no concept is given"
            raise DataError(what, where=WHERE, remedy="give every concept one entry an example, or one mask")
        has = torch.stack(columns, 1)
    else:
        has = _numbers(concepts)
        columns_of = getattr(concepts, "columns", None)
        names = None if columns_of is None else list(columns_of)
    if has.dim() not in (2, 3, 4, 5) or not has.numel():
        raise DataError(f"concepts are of shape {tuple(has.shape)}", where=WHERE, remedy=f"give {SHAPES}")
    numbers = data.numbers(torch.arange(len(data)))
    rows = int(numbers.max()) + 1
    if len(has) < rows or (data.labelled is None and len(has) != rows):
        raise DataError(
            f"there are concepts of {len(has):,} examples, and {rows:,} {data.name.removesuffix(' data')} examples",
            where=WHERE,
            remedy="give one row an example, in their order; settings=DissectSettings(data=...) names other data",
        )
    known = tuple(str(n) for n in names) if names is not None else tuple(f"concept {k}" for k in range(has.shape[1]))
    return ConceptTable(known, has[numbers])


def _numbers(value: Any) -> Tensor:
    """0 and 1 as a boolean tensor."""
    table = tensor_of(value, WHERE)
    if not isinstance(table, Tensor):
        raise DataError(f"concepts are a {type(value).__name__}, not numbers", where=WHERE, remedy=f"give {SHAPES}")
    if table.is_complex() or not bool(((table == 0) | (table == 1)).all()):
        raise DataError("concepts hold other numbers than 0 and 1", where=WHERE, remedy="say 1 where the concept is")
    return table.cpu() == 1
