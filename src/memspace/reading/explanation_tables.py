"""The tables of an explained prediction: answers, pushes by example, class, mode and layer, entries of the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from memspace.measurement import Unmeasured
from memspace.reading.contributions import InputContributions
from memspace.reading.outcome import ExplainedOutcome
from memspace.reading.pushes import OUTSIDE, Pushes, PushParts
from memspace.reading.words import entry_names, token_words
from memspace.task.task import Task

__all__ = ["answer_name", "explanation_tables"]

LISTED = 8  # training examples of a mode
MOST_ENTRIES = 10_000  # of an input, the largest first beyond it

Table = dict[str, list[Any]]


def answer_name(task: Task, outcome: ExplainedOutcome, answer: float) -> str:
    """Name an answer: a class, or 0 and 1 of one label of several.

    Args:
        task: which may name its classes.
        outcome: explained.
        answer: its number.

    Returns:
        the name.
    """
    names, classes = task.class_names, task.likelihood.classes(outcome.f.numel())
    if classes is None or names is None or not 0 <= answer < len(names):
        return f"{answer:g}"
    return names[int(answer)]


def explanation_tables(
    task: Task,
    outcome: ExplainedOutcome,
    pushes: Pushes,
    inputs: InputContributions | Unmeasured,
    top: int,
    names: Sequence[str] | None,
) -> dict[str, Mapping[str, Sequence[Any]]]:
    """Make the tables.

    Args:
        task: the network and its data.
        outcome: explained.
        pushes: of the training examples.
        inputs: what the entries of the input add.
        top: training examples listed at either end.
        names: of the entries of the input; None: by their place.

    Returns:
        name → {column: sequence}; those that were not measured are left out.
    """
    y = _classes(task)
    tables: dict[str, Mapping[str, Sequence[Any]]] = {
        "answers": _answers(task, outcome),
        "pushes": _pushes(task, pushes, top, y),
    }
    if y is not None:
        tables["classes"] = _by_class(task, pushes.scores, y)
    if isinstance(pushes.layers, PushParts):
        tables["layers"] = _parts(pushes.layers, pushes, "layer")
    if isinstance(pushes.modes, PushParts):
        tables["modes"] = _modes(pushes.modes, pushes)
        tables["mode_examples"] = _mode_examples(task, pushes.modes, pushes)
        if y is not None:
            tables["mode_classes"] = _mode_classes(task, pushes.modes, pushes, y)
    if isinstance(inputs, InputContributions):
        tables["inputs"] = _inputs(task, inputs, names)
    return tables


def _classes(task: Task) -> Tensor | None:
    """Labels of the training examples, where they are one class each."""
    y = task.train.labels()
    if not isinstance(y, Tensor) or y.dim() != 1 or y.is_floating_point() or not task.likelihood.has_classes:
        return None
    return y.cpu()


def _class(task: Task, number: int) -> str:
    names = task.class_names
    return names[number] if names is not None and 0 <= number < len(names) else str(number)


def _answers(task: Task, outcome: ExplainedOutcome) -> Table:
    if outcome.probabilities is None:
        return {"output": list(range(outcome.f.numel())), "value": outcome.f.tolist()}
    p = outcome.probabilities
    order = p.argsort(descending=True, stable=True).tolist()
    return {"answer": [answer_name(task, outcome, k) for k in order], "probability": [float(p[k]) for k in order]}


def _greatest(parts: PushParts | Unmeasured, i: int) -> tuple[str, float | None]:
    """The part of an example's push that is greatest in its direction."""
    if isinstance(parts, Unmeasured):
        return "", None
    row = parts.scores[i]
    k = int((row * row.sum().sign()).argmax())
    return parts.names[k], float(row[k])


def _pushes(task: Task, pushes: Pushes, top: int, y: Tensor | None) -> Table:
    table: Table = {k: [] for k in ("train_index", "label", "push", "layer", "by_layer", "mode", "along_mode")}
    up, down = pushes.strongest(top)
    for i in [*up.tolist(), *down.tolist()]:
        layer, mode = _greatest(pushes.layers, i), _greatest(pushes.modes, i)
        label = "" if y is None else _class(task, int(y[i]))
        row = (int(task.train.numbers(torch.tensor(i))), label, float(pushes.scores[i]), *layer, *mode)
        for column, value in zip(table.values(), row, strict=True):
            column.append(value)
    return table


def _by_class(task: Task, scores: Tensor, y: Tensor) -> Table:
    classes = sorted(k for k in set(y.tolist()) if k >= 0)
    rows = [scores[y == k] for k in classes]
    return {
        "class": [_class(task, k) for k in classes],
        "examples": [len(r) for r in rows],
        "support": [float(r.clamp_min(0).sum()) for r in rows],
        "opposition": [float(r.clamp_max(0).sum()) for r in rows],
        "sum": [float(r.sum()) for r in rows],
    }


def _parts(parts: PushParts, pushes: Pushes, what: str) -> Table:
    total = pushes.variance if pushes.variance > 0 else 1.0
    return {
        what: list(parts.names),
        "support": parts.support(pushes.scores).tolist(),
        "opposition": parts.opposition(pushes.scores).tolist(),
        "sum": parts.scores.sum(0).tolist(),
        "share": parts.shares(pushes.scores).tolist(),
        "variance_share": (parts.variance / total).tolist(),
    }


def _modes(parts: PushParts, pushes: Pushes) -> Table:
    """A row a group of modes; the last is what lies outside of them."""
    assert pushes.read is not None
    values: list[float | None] = [float(pushes.read.values[g.modes].mean()) for g in pushes.read.groups]
    return {"eigenvalue": [*values, None]} | _parts(parts, pushes, "mode")


def _mode_examples(task: Task, parts: PushParts, pushes: Pushes) -> Table:
    """The training examples that push most along every group, with their share of its eigenvalue."""
    table: Table = {"mode": [], "train_index": [], "push": [], "share_of_eigenvalue": []}
    for k, name in enumerate(parts.names):
        order = parts.scores[:, k].abs().argsort(descending=True, stable=True)[:LISTED].tolist()
        carried = {} if name == OUTSIDE else _carried(pushes, k)
        table["mode"] += [name] * len(order)
        table["train_index"] += task.train.numbers(torch.tensor(order)).tolist()
        table["push"] += parts.scores[order, k].tolist()
        table["share_of_eigenvalue"] += [carried.get(i) for i in order]
    return table


def _carried(pushes: Pushes, group: int) -> dict[int, float]:
    """Share of a group's eigenvalue by place of the training example, of those that were read."""
    assert pushes.read is not None
    shares = pushes.read.carried(pushes.read.groups[group])
    return dict(zip(pushes.read.plan.index.tolist(), shares.tolist(), strict=True))


def _mode_classes(task: Task, parts: PushParts, pushes: Pushes, y: Tensor) -> Table:
    """Push of every class along every group, and its share of the group's eigenvalue."""
    table: Table = {"mode": [], "class": [], "push": [], "share_of_eigenvalue": []}
    read = pushes.read
    assert read is not None
    classes = sorted(k for k in set(y.tolist()) if k >= 0)
    for k, name in enumerate(parts.names):
        shares: list[float | None] = [None] * len(classes)
        if name != OUTSIDE and read.classes is not None:
            group = read.groups[k]
            values = read.values[group.modes]
            carried = read.classes[:, group.modes] @ values / values.sum()
            shares = [float(carried[c]) if c < len(carried) else 0.0 for c in classes]
        table["mode"] += [name] * len(classes)
        table["class"] += [_class(task, c) for c in classes]
        table["push"] += [float(parts.scores[y == c, k].sum()) for c in classes]
        table["share_of_eigenvalue"] += shares
    return table


def _inputs(task: Task, inputs: InputContributions, names: Sequence[str] | None) -> Table:
    """A row an entry of the input."""
    table: Table = {"input": [], "entry": [], "value": [], "contribution": []}
    for place, tensor in enumerate(inputs.tensors):
        values, adds = tensor.values.flatten(), tensor.contributions.flatten()
        entries = entry_names(tensor.values, names if place == 0 else None)
        if tensor.whole and tensor.values.dim() == 1 and names is None:
            entries = [f"{k} {w}" for k, w in enumerate(token_words(task, tensor.values))]
        order = torch.arange(len(adds))
        if len(adds) > MOST_ENTRIES:
            order = adds.abs().argsort(descending=True, stable=True)[:MOST_ENTRIES]
        table["input"] += [tensor.name] * len(order)
        table["entry"] += [entries[k] for k in order.tolist()]
        table["value"] += values[order].tolist()
        table["contribution"] += adds[order].tolist()
    return table
