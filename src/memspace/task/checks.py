"""Bad input, caught before any work starts: one sentence each. And reading a model without leaving a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from memspace.errors import DataError, NonFiniteError, ShapeError, StochasticModelError, TaskError
from memspace.task.data import Data, Inputs, call_model, move
from memspace.task.task import Task

__all__ = ["check_task", "evaluating", "untouched"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Every submodule in eval mode inside; each one's own mode back afterwards, also after an exception."""
    modes = [(m, m.training) for m in model.modules()]
    for m, _ in modes:
        m.training = False
    try:
        yield model
    finally:
        for m, training in modes:
            m.training = training


@contextmanager
def untouched(model: nn.Module) -> Iterator[nn.Module]:
    """As :func:`evaluating`, and torch's random state and the parameters' ``grad`` are as before afterwards."""
    grads = [(p, p.grad) for p in model.parameters()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), evaluating(model):
        try:
            yield model
        finally:
            for p, g in grads:
                p.grad = g


def check_task(task: Task) -> None:
    """Raise the first fault found in the task; see ``memspace.errors`` for the kinds."""
    _check_weights(task.model)
    for data in (task.train, *(() if task.test is None else (task.test,))):
        _check_repeatable(data)
        f = _check_forward(task, data)
        _check_labels_and_inputs(task, data, f)
    _check_deterministic(task)


def _check_weights(model: nn.Module) -> None:
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        raise TaskError(
            "the model has no trainable parameters",
            where=type(model).__name__,
            remedy="set requires_grad=True on the parameters to audit",
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not tensor.is_floating_point():
            continue
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise NonFiniteError(
                f"{bad} of {tensor.numel()} weights are NaN or infinite",
                where=name,
                remedy="use a checkpoint from before the training diverged",
            )


def _tensors(x: Inputs) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    values = x.values() if isinstance(x, dict) else x
    return [t for v in values for t in _tensors(v)] if isinstance(x, dict | tuple) else []


def _check_repeatable(data: Data) -> None:
    index = range(min(4, len(data)))
    first, second = data.batch(index), data.batch(index)
    for a, b in zip(_tensors(first.x), _tensors(second.x), strict=True):
        if not torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)):
            raise DataError(
                "the data give different inputs when read twice",
                where=data.name,
                remedy="switch random augmentation off for the audit",
            )


def _check_forward(task: Task, data: Data) -> Tensor:
    batch = data.batch(range(min(4, len(data))))
    shapes = ", ".join(str(tuple(t.shape)) for t in _tensors(batch.x))
    try:
        with torch.no_grad(), evaluating(task.model):
            f = call_model(task.model, move(batch.x, task.device, task.dtype))
    except Exception as error:  # whatever the model raises, it raises at its input
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ShapeError(
            f"the model refuses inputs of shape {shapes}: {reason}",
            where=data.name,
            remedy="give inputs of the shape the model was trained on",
        ) from error
    if not isinstance(f, Tensor) or f.dim() < 2 or f.shape[0] != len(batch):
        found = f"a tensor of shape {tuple(f.shape)}" if isinstance(f, Tensor) else f"a {type(f).__name__}"
        raise ShapeError(
            f"the model returns {found} for {len(batch)} examples, not (examples, outputs)",
            where=type(task.model).__name__,
            remedy="wrap the model so that it returns one row of outputs per example",
        )
    return f


def _check_labels_and_inputs(task: Task, data: Data, probe: Tensor) -> None:
    for batch in data.batches(2048):
        y = move(batch.y, task.device)
        like = probe[:1].expand(len(batch), *probe.shape[1:])
        task.likelihood.check(like, y, f"{data.name}, examples {int(batch.index[0])}..{int(batch.index[-1])}")
        for t in _tensors(batch.x):
            if not t.is_floating_point():
                continue
            bad = ~torch.isfinite(t.flatten(1)).all(1)
            if bool(bad.any()):
                first = int(batch.index[int(bad.nonzero()[0])])
                raise NonFiniteError(
                    f"{int(bad.sum())} of {len(batch)} inputs hold NaN or infinite values",
                    where=f"{data.name}, first at example {first}",
                    remedy="drop or repair those examples",
                )


def _check_deterministic(task: Task) -> None:
    batch = task.train.batch(range(min(4, len(task.train))))
    x = move(batch.x, task.device, task.dtype)
    with untouched(task.model), torch.no_grad():
        first, second = call_model(task.model, x), call_model(task.model, x)
    if not bool(torch.isfinite(first).all()):
        bad = int((~torch.isfinite(first)).sum())
        raise NonFiniteError(
            f"{bad} of {first.numel()} outputs are NaN or infinite on the first batch",
            where=task.train.name,
            remedy="check the inputs' scale and the weights",
        )
    if not torch.equal(first, second):
        raise StochasticModelError(
            "two forward passes of the model in eval mode differ",
            where=_first_difference(task.model, x),
            remedy="make the model deterministic in eval mode: nn.Dropout instead of functional dropout",
        )


def _recorder(name: str, into: list[tuple[str, Tensor]]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            into.append((name, output.detach().clone()))

    return hook


def _first_difference(model: nn.Module, x: Inputs) -> str:
    """The first module whose output differs between two passes."""
    seen: list[list[tuple[str, Tensor]]] = []
    for _ in range(2):
        record: list[tuple[str, Tensor]] = []
        handles = [
            m.register_forward_hook(
                lambda _m, _i, o, n=n, into=record: (
                    into.append((n, o.detach().clone())) if isinstance(o, Tensor) else None
                )
            )
            for n, m in model.named_modules()
            if n
        ]
        try:
            with untouched(model), torch.no_grad():
                call_model(model, x)
                torch.rand(1)  # the two passes must not share a random state
        finally:
            for h in handles:
                h.remove()
        seen.append(record)
        torch.rand(1)
    for (name, a), (_, b) in zip(*seen, strict=False):
        if a.shape != b.shape or not torch.equal(a, b):
            return f"module {name}"
    return type(model).__name__
