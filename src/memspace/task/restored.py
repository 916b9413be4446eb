"""A model's buffers and attributes, put back however its forward pass changes them.

Observers, counters, caches, running means: some forward passes write to the model in eval mode too. While a model is
read, every forward pass starts from the buffers as they were at first. So no result depends on how often or in which
order examples were read. Afterwards buffers and attributes are, bit for bit, as before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from memspace.errors import UnsupportedLayerError

__all__ = ["fresh_buffers", "restored", "written"]

LARGE = 2**26  # bytes of a buffer above which no copy is kept: then it must not be written to
_OWN = frozenset(vars(nn.Module()))  # what torch itself keeps on a module: hooks, parameters, modules, mode
_OPEN: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # models being read, and how often


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Put buffers back before every forward pass inside, and all attributes at the end, also after an exception.

    Args:
        model: the network.

    Yields:
        Nothing.

    Raises:
        UnsupportedLayerError: a buffer too large to keep a copy of is written to.
    """
    depth = _OPEN.get(model, 0)
    _OPEN[model] = depth + 1
    snapshot = None if depth else _Snapshot(model)
    try:
        yield
    finally:
        if depth:
            _OPEN[model] = depth
        else:
            _OPEN.pop(model, None)
        if snapshot is not None:
            snapshot.put_back()


def fresh_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Copy the buffers: inside a functional transform a forward pass may write to these, not to the model's.

    Args:
        model: the network.

    Returns:
        Each buffer's name with a copy.
    """
    return {n: b.clone() for n, b in model.named_buffers()}


def written(model: nn.Module) -> Callable[[], bool]:
    """Record the attributes of all modules.

    Args:
        model: the network.

    Returns:
        A function that tells whether one was set or changed since.
    """
    noted = [(m, _attributes(m)) for m in model.modules()]
    return lambda: any(_changed(vars(m), before) for m, before in noted)


@dataclass(frozen=True)
class _Buffer:
    """One buffer: where it is registered, the tensor, its version and a copy of its values."""

    owner: nn.Module
    name: str
    full: str
    tensor: Tensor
    version: int
    copy: Tensor | None


class _Snapshot:
    """A model's buffers and attributes when its reading began."""

    def __init__(self, model: nn.Module) -> None:
        self._buffers = [
            _Buffer(m, n, f"{at}.{n}" if at else n, b, b._version, None if b.nbytes > LARGE else b.detach().clone())
            for at, m in model.named_modules()
            for n, b in m._buffers.items()
            if b is not None and not b.is_meta
        ]
        self._missing = [(m, n) for m in model.modules() for n, b in m._buffers.items() if b is None]
        self._attributes = [(m, _attributes(m)) for m in model.modules()]
        self._now: list[Tensor | None] = []
        self._handles = []
        if self._buffers or self._missing:
            self._handles.append(model.register_forward_pre_hook(lambda *_: self._before()))
            self._handles.append(model.register_forward_hook(lambda *_: self._after(), always_call=True))
        self._versions: list[int] = []

    def _before(self) -> None:
        # Whoever calls the model may have put other tensors in place for this call.
        self._now = [b.owner._buffers.get(b.name) for b in self._buffers]
        self._versions = [-1 if t is None else t._version for t in self._now]

    def _after(self) -> None:
        """Undo what the pass did to the buffers; the graph it leaves behind keeps the tensors it has seen."""
        for buffer, before, version in zip(self._buffers, self._now, self._versions, strict=True):
            if before is not None and before._version != version:
                if buffer.copy is None:
                    raise UnsupportedLayerError(
                        f"the forward pass writes to a buffer of {buffer.tensor.nbytes / 1e6:,.0f} MB in eval mode",
                        where=buffer.full,
                        remedy="keep it as it is in eval mode, or store it as a smaller buffer",
                    )
                before = buffer.copy.clone()
            buffer.owner._buffers[buffer.name] = before
        for owner, name in self._missing:
            owner._buffers[name] = None

    def put_back(self) -> None:
        """Put every buffer and attribute back."""
        for handle in self._handles:
            handle.remove()
        for buffer in self._buffers:
            if buffer.tensor._version != buffer.version and buffer.copy is not None:
                with torch.no_grad():
                    buffer.tensor.copy_(buffer.copy)
            buffer.owner._buffers[buffer.name] = buffer.tensor
        for owner, name in self._missing:
            owner._buffers[name] = None
        for owner, before in self._attributes:
            _put_back(owner, before)


def _attributes(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Collect each attribute of the user's with a shallow copy of what can change in place."""
    return {k: (v, _shallow(v)) for k, v in vars(module).items() if k not in _OWN}


def _shallow(value: Any) -> Any:
    return value.copy() if type(value) in (list, dict, set, deque) else None


def _put_back(module: nn.Module, before: dict[str, tuple[Any, Any]]) -> None:
    attributes = vars(module)
    for name in [k for k in attributes if k not in _OWN and k not in before]:
        del attributes[name]
    for name, (value, copy) in before.items():
        if attributes.get(name) is not value:
            attributes[name] = value
        if copy is not None and _differ(value, copy):
            value.clear()
            value.extend(copy) if hasattr(value, "extend") else value.update(copy)


def _changed(attributes: dict[str, Any], before: dict[str, tuple[Any, Any]]) -> bool:
    if {k for k in attributes if k not in _OWN} != set(before):
        return True
    return any(attributes[k] is not v or (copy is not None and _differ(v, copy)) for k, (v, copy) in before.items())


def _differ(value: Any, copy: Any) -> bool:
    """Tell whether a container holds other things than its shallow copy does."""
    return len(value) != len(copy) or any(a is not b for a, b in _pairs(value, copy))


def _pairs(a: Any, b: Any) -> Iterator[tuple[Any, Any]]:
    yield from zip(a, b, strict=True)
    if isinstance(a, dict):
        yield from zip(a.values(), b.values(), strict=True)
