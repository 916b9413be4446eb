"""Parts of a network that are held fixed run once for every example, however many passes read the network.

A pretrained encoder under a new head is the usual case: nothing that is asked about the head changes what the encoder
gives. So its outputs are kept by example (:mod:`memspace.task.kept`), and the head is read at the cost of a head.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from memspace.task.kept import FixedPart, KeptOutputs
from memspace.task.selection import chosen_names, split_patterns

if TYPE_CHECKING:
    from memspace.task.task import Task

__all__ = ["LEAST", "fixed_parts", "gradients_of_selection", "has_fixed_parts"]

LEAST = 2**17  # parameters and buffers of a part that is worth it; less runs as fast as it is looked up


class _Thread(threading.local):
    """Of one thread: fixed parts by the identity of their module, and the tensors given to the outermost call."""

    def __init__(self) -> None:
        self.parts: dict[int, FixedPart] = {}
        self.inputs: tuple[int, ...] | None = None
        self.selection = False


_THREAD, _LOCK, _CALL = _Thread(), threading.Lock(), nn.Module.__call__
_open = 0  # contexts of all threads


@contextmanager
def fixed_parts(task: Task) -> Iterator[None]:
    """Keep, inside, the outputs of the largest modules of which no parameter is selected.

    Numbers are those of a network without this up to rounding: a part is run as usual where its inputs need gradients,
    its weights were changed, it is in training mode, hooks watch it, or an example's output depends on its batch.

    Args:
        task: the network and the selection of its parameters.

    Yields:
        Nothing.
    """
    global _open
    before = _THREAD.parts
    inside = {id(m) for m in task.model.modules()}
    outputs = KeptOutputs()
    parts = {key: part for key, part in before.items() if key not in inside}
    for module in _largest(task):
        parts[id(module)] = before.get(id(module)) or FixedPart(module, outputs)
    _THREAD.parts = parts
    with _LOCK:
        _open += 1
        nn.Module.__call__ = _called  # type: ignore[method-assign]
    try:
        yield
    finally:
        _THREAD.parts = before
        with _LOCK:
            _open -= 1
            if not _open:
                nn.Module.__call__ = _CALL  # type: ignore[method-assign]


@contextmanager
def gradients_of_selection() -> Iterator[None]:
    """Say that gradients are asked inside of selected parameters alone, though others may have some, too.

    Yields:
        Nothing.
    """
    before, _THREAD.selection = _THREAD.selection, True
    try:
        yield
    finally:
        _THREAD.selection = before


def has_fixed_parts(model: nn.Module) -> bool:
    """Tell whether outputs of a part of the model are kept at the moment.

    Args:
        model: the network.

    Returns:
        True inside :func:`fixed_parts` of a task with such a part.
    """
    return bool(_THREAD.parts) and any(id(m) in _THREAD.parts for m in model.modules())


def _called(module: nn.Module, *args: Any, **keywords: Any) -> Any:
    """``nn.Module.__call__`` while a fixed part is known: of other modules it notes the inputs of the outermost."""
    parts = _THREAD.parts
    if not parts:
        return _CALL(module, *args, **keywords)
    outermost = _THREAD.inputs is None
    if outermost:
        _THREAD.inputs = tuple(id(t) for t in tree_leaves((args, keywords)) if isinstance(t, Tensor))
    try:
        part = parts.get(id(module))
        if part is None:
            return _CALL(module, *args, **keywords)
        return part(args, keywords, _THREAD.inputs or (), _THREAD.selection)
    finally:
        if outermost:
            _THREAD.inputs = None


def _largest(task: Task) -> list[nn.Module]:
    """The modules that are wholly held fixed and lie in no other such module."""
    parameters = dict(task.model.named_parameters())
    selected = {id(parameters[name]) for name in chosen_names(task.model, *split_patterns(task.parameters))}
    largest: list[nn.Module] = []

    def search(module: nn.Module) -> None:
        tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
        if selected & tensors.keys():
            for child in module.children():
                search(child)
        elif sum(t.numel() for t in tensors.values()) >= LEAST:
            largest.append(module)

    search(task.model)
    return largest
