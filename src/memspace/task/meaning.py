"""What a task's outputs and labels mean, decided once when the task is made: layout, link, encoding, noise.

Everything downstream then reads outputs (B, ..., C) as the law wants them and labels of the law. The result is
described in the task's ``description``. A task that cannot be read here is left as it is: ``checks.check_task`` names
the fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from memspace.errors import LabelError, MemspaceError
from memspace.task.data import Data, Inputs, as_labels, call_model, move
from memspace.task.encoding import LabelEncoding, find_encoding
from memspace.task.first_calls import FirstCalls, first_calls_of
from memspace.task.functional import functional_call
from memspace.task.law import IGNORE, Likelihood
from memspace.task.reading import LINKS, Making, OutputReading, read_so
from memspace.task.tensors import is_text, text_of

if TYPE_CHECKING:
    from memspace.task.task import Task

__all__ = ["interpret"]

EXAMPLES, SHAKEN = 64, 3  # examples by which a link is recognised, and how often the weights are shaken


def interpret(task: Task) -> bool:
    """Put the fields of a task that is being made in terms of its law.

    Those are model, data, law, decay, ways to train, and facts.

    Args:
        task: being made.

    Returns:
        Whether outputs and labels were read: not where the data had been read before, or cannot be.

    Raises:
        LabelError: outputs or labels can be read in two ways, labels are strings of unknown order, or there are none.
    """
    from memspace.task.checks import untouched  # which knows the task

    def put(field: str, value: Any) -> None:
        object.__setattr__(task, field, value)

    with untouched(task.model):
        read = _meaning(task)
    if read is None:
        return False
    meaning, raw = read
    reading, encoding = meaning.reading, meaning.encoding
    facts = {"outputs": reading.description, "labels": encoding.description}
    if encoding.names and task.class_names is None and meaning.classes is not None:
        put("class_names", tuple(encoding.names))
    fresh, left_out, first = task.train.meaning is None, False, first_calls_of(task)
    if fresh:
        labels, total = encoding(raw), len(task.train)
        labelled = _labelled(labels, task.train)
        put("train", task.train.meant(meaning, encoding, labels, labelled))
        left_out = labelled is not None
        if labelled is not None:
            facts["examples without a label"] = f"{total - len(labelled):,} of {total:,}, left out"
            if task.true_labels is not None and len(task.true_labels) == total:
                put("true_labels", task.true_labels[labelled])
        if task.refit is not None and (reading.changes or labelled is not None):
            put("refit", Making(task.refit, reading, labelled))
        if task.training is not None and reading.changes:
            put("training", replace(task.training, make=Making(task.training.make, reading)))
    if task.test is not None and task.test.meaning is None:
        total, test_labels = len(task.test), _encoded(encoding, task.test)
        if test_labels is not None:
            labelled = _labelled(test_labels, task.test)
            put("test", task.test.meant(meaning, encoding, test_labels, labelled))
            left_out = left_out or labelled is not None
            if labelled is not None:
                facts["test examples without a label"] = f"{total - len(labelled):,} of {total:,}, left out"
    put("model", read_so(task.model, reading))
    if first is not None:  # it is about other examples where some were left out
        put("_first_calls", None if left_out else first.read_by(reading))
    with untouched(task.model):
        fitted = _fitted(task)
    if fitted is not None:
        put("likelihood", fitted)
        if task.decay is not None:  # rounded, since it is part of a fingerprint, as what was fitted is not
            put("decay", float(f"{task.decay * fitted.gain_over_training:.4g}"))
        facts |= fitted.fitted_facts
    stated = {k: v for k, v in facts.items() if v}
    if stated:
        put("description", dict(task.description) | {f"{k} as read" if k in _READ else k: v for k, v in stated.items()})
    return fresh


_READ = ("outputs", "labels")


@dataclass(frozen=True)
class _Meaning:
    """How to read a task's outputs and labels; ``classes``: how many, None where a label is no class."""

    reading: OutputReading
    encoding: LabelEncoding
    classes: int | None = None


def _meaning(task: Task) -> tuple[_Meaning, Any] | None:
    """Read a few examples and all labels, which are returned too; None where the model or the data cannot be read."""
    if isinstance(task.train.meaning, _Meaning):
        return task.train.meaning, None
    train, law, first_calls = task.train, task.likelihood, first_calls_of(task)
    try:
        index = torch.arange(min(4, len(train)))
        x = train.inputs(index)
        f = _forward(task, x) if first_calls is None else first_calls.train[: len(index)]
        labels = _all_labels(train)
    except Exception:  # whatever is wrong with the user's model or data is named by the check
        return None
    if f is None or f.dim() < 1 or len(f) != len(index):
        return None
    numbers = isinstance(labels, Tensor)
    column = f.dim() == 1 and law.least_outputs == 1
    first = False
    if numbers and f.dim() > 2:
        if f.dim() == 3 and f.shape[1] == f.shape[2]:  # more examples may tell the axes apart
            more = _forward(task, train.inputs(torch.arange(min(EXAMPLES, len(train)))))
            f = f if more is None else more
        first = _classes_first(law, f, labels[: len(f)])
    reading = OutputReading(column, first)
    f = reading.of(f)
    if f.dim() < 2:
        return None
    reading = replace(reading, link=_link(task, reading, first_calls))
    moved = first and labels.dim() == f.dim()  # distributions in torch's layout too
    encoding = find_encoding(law, f, labels.movedim(1, -1) if moved else labels, task.class_names)
    encoding = replace(encoding, classes_first=moved)
    classes = law.classes(f.shape[-1])
    if classes is not None and numbers and f.dim() == 3:
        shift = _predicts_next(task, x, labels[: len(f)]) if task.shift_labels is None else task.shift_labels
        encoding = replace(encoding, next_token=shift)
    return _Meaning(reading, encoding, classes), labels


def _encoded(encoding: LabelEncoding, data: Data) -> Tensor | None:
    try:
        return encoding(_all_labels(data))
    except (MemspaceError, RuntimeError):  # named by the check
        return None


def _all_labels(data: Data) -> Any:
    """Read all labels as given: a tensor, or a list of strings."""
    parts = list(data.raw_labels())
    if all(is_text(p) for p in parts):
        return [word for p in parts for word in text_of(p)]
    return torch.cat([as_labels(p) for p in parts])


def _forward(task: Task, x: Inputs) -> Tensor | None:
    with torch.no_grad():
        f = call_model(task.model, move(x, task.device, task.dtype))
    return f if isinstance(f, Tensor) else None


def _classes_first(law: Likelihood, f: Tensor, y: Tensor) -> bool:
    """Tell by the labels' shape whether classes run along axis 1 of outputs (B, C, ...), as torch's losses have it."""
    if law.class_axis is not None:
        return law.class_axis == 1
    shapes = {tuple(y.shape), tuple(y.shape[:-1])} if y.shape[-1:] == (1,) else {tuple(y.shape)}
    if y.shape == f.shape:
        sums_to_one = [bool(((y.double().sum(axis) - 1).abs() < 1e-3).all()) for axis in (1, -1)]
        first, last = sums_to_one
    else:
        first = (f.shape[0], *f.shape[2:]) in shapes
        last = tuple(f.shape[:-1]) in shapes
    if first and last and (f.dim() > 3 or y.shape == f.shape or _fits_better(law, f, y)):
        kind = type(law).__name__
        raise LabelError(
            f"outputs of shape {tuple(f.shape)} and labels of shape {tuple(y.shape)} can be read with the classes "
            "along axis 1 or along the last axis",
            where="training data",
            remedy=f"say which: likelihood={kind}(class_axis=1) as torch's losses have it, or class_axis=-1",
        )
    return first and not last


def _fits_better(law: Likelihood, f: Tensor, y: Tensor) -> bool:
    """Tell whether sequences fit outputs (B, C, T) clearly better than (B, T, C), the usual layout of networks.

    By a paired t above 3 over the positions: of the losses under the two readings, for C = T.
    """
    y = y.to(f.device)
    y = (y.squeeze(-1) if y.dim() > 2 else y).long()
    if bool(((y != IGNORE) & ((y < 0) | (y >= f.shape[-1]))).any()):
        return False
    apart = (law.nll(f, y) - law.nll(f.movedim(1, -1), y))[y != IGNORE].double()
    return len(apart) > 1 and float(apart.mean()) > 3 * float(apart.std()) / math.sqrt(len(apart))


def _link(task: Task, reading: OutputReading, first: FirstCalls | None) -> str:
    """Name the outputs' link where they are no logits or log-rates, whatever the weights are."""
    link = task.likelihood.link
    if not link:
        return ""
    fits = LINKS[link].fits
    if first is not None and not fits(reading.of(first.used)):
        return ""
    x = move(task.train.inputs(torch.arange(min(EXAMPLES, len(task.train)))), task.device, task.dtype)
    try:
        return link if all(fits(f) for f in _shaken(task.model, x, reading)) else ""
    except Exception:  # a model that does not bear other weights
        return ""


def _shaken(model: nn.Module, x: Inputs, reading: OutputReading) -> Iterator[Tensor]:
    """Compute outputs with the weights as they are, and then with other weights.

    Outputs of a trained network may look like probabilities by chance; those that still do for any weights are.
    """
    with torch.no_grad():
        yield reading.of(call_model(model, x))
        generator = torch.Generator().manual_seed(0)
        args = x if isinstance(x, tuple) else () if isinstance(x, dict) else (x,)
        for shake in range(SHAKEN):
            weights = {}
            for name, parameter in model.named_parameters():
                if parameter.is_floating_point():
                    size = float(parameter.double().square().mean().sqrt()) if parameter.numel() else 0.0
                    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
                    weights[name] = parameter + noise * (size + 0.1) * 3**shake
            f = functional_call(model, weights, args, x if isinstance(x, dict) else {})
            yield torch.nan_to_num(reading.of(f), nan=-1.0)


def _predicts_next(task: Task, x: Inputs, y: Tensor) -> bool:
    """Tell whether labels are the input tokens and the model sees no later token: transformers' rule.

    There ``labels`` are ``input_ids`` with -100 where nothing is asked, and the model moves them by one position.
    """
    tokens = x.get("input_ids") if isinstance(x, dict) else None
    if tokens is None or tokens.shape != y.shape or tokens.shape[-1] < 2:
        return False
    if not bool(((y == tokens) | (y == IGNORE)).all()) or not bool((y != IGNORE).any()):
        return False
    other = tokens.clone()
    other[:, -1] = torch.where(tokens[:, -1] == tokens.flatten()[0], tokens.max(), tokens.flatten()[0])
    before, after = _forward(task, x), _forward(task, {**x, "input_ids": other})
    if before is None or after is None or before.shape[:-1] != tokens.shape:
        return False
    return bool(torch.allclose(before[:, :-1], after[:, :-1], rtol=1e-3, atol=1e-5))


def _labelled(y: Tensor, data: Data) -> Tensor | None:
    """List the positions of the examples with any label but -100; None where all have one.

    Raises:
        LabelError: no example has one.
    """
    if y.is_floating_point():
        return None
    has = (y != IGNORE).flatten(1).any(1) if y.dim() > 1 else y != IGNORE
    if bool(has.all()):
        return None
    if not bool(has.any()):
        raise LabelError(
            f"all labels are {IGNORE}, which marks examples without a label",
            where=data.name,
            remedy="give labels for some examples",
        )
    return has.nonzero().flatten()


def _fitted(task: Task) -> Likelihood | None:
    """Fit what the law leaves open to the training data; None where nothing is left open, or no fit is possible."""

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for part in task.train.batches(512):
            f = _forward(task, part.x)
            if f is None:
                raise TypeError("the outputs are no tensor")
            yield f, part.y

    try:
        return task.likelihood.fitted_to(pairs())
    except Exception:  # as in _meaning
        return None
