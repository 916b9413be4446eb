"""Parts of torch between a network and its formula, switched off while it is read.

Fused kernels, lower precision inside a forward pass, recomputation of its parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any

import torch
import torch.utils.checkpoint as checkpointing
from torch import nn

__all__ = ["as_written", "differentiable_kernels", "without_gradient_hooks"]

_AUTOCAST = torch.amp.autocast_mode.autocast


class _Switches:
    """Process-wide switches of torch; several readers may hold them at once, the last one puts them back."""

    def __init__(self) -> None:
        self._lock, self._readers, self._recurrent = Lock(), 0, 0
        self._fast, self._onednn, self._cudnn = True, True, True

    def take(self, recurrent: bool) -> None:
        with self._lock:
            if not self._readers:
                self._fast = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            if recurrent and not self._recurrent:
                self._onednn, self._cudnn = torch._C._get_mkldnn_enabled(), torch._C._get_cudnn_enabled()
                torch._C._set_mkldnn_enabled(False)
                torch._C._set_cudnn_enabled(False)
            self._readers += 1
            self._recurrent += recurrent

    def give_back(self, recurrent: bool) -> None:
        with self._lock:
            self._readers -= 1
            self._recurrent -= recurrent
            if not self._readers:
                torch.backends.mha.set_fastpath_enabled(self._fast)
            if recurrent and not self._recurrent:
                torch._C._set_mkldnn_enabled(self._onednn)
                torch._C._set_cudnn_enabled(self._cudnn)


_SWITCHES = _Switches()


@contextmanager
def differentiable_kernels(model: nn.Module) -> Iterator[None]:
    """Run the model's forward pass alike with and without gradients, with all the derivatives asked for.

    * The fused kernel of ``nn.TransformerEncoderLayer`` runs without gradients only, and empties or cuts off padded
      positions there: outputs would differ from those that are differentiated.
    * The recurrent kernels of oneDNN and cuDNN have no derivative in eval mode, or only the first one.

    Args:
        model: the network.

    Yields:
        Nothing.
    """
    recurrent = any(isinstance(m, nn.RNNBase) for m in model.modules())
    _SWITCHES.take(recurrent)
    try:
        yield
    finally:
        _SWITCHES.give_back(recurrent)


class _Straight:
    """In the place of torch's reentrant checkpoint, whose gradients only ``backward`` can ask for."""

    @staticmethod
    def apply(function: Any, preserve: bool, *args: Any) -> Any:
        """What the checkpointed part gives, kept instead of computed again.

        As in torch, a part whose inputs need no gradient gives its parameters none.
        """
        if get_ident() in _READERS:
            with torch.set_grad_enabled(torch.is_grad_enabled() and any(map(_tracked, args))):
                return function(*args)
        return _CHECKPOINT.apply(function, preserve, *args)  # type: ignore[no-untyped-call]


def _tracked(value: Any) -> bool:
    """Tell whether a derivative may flow through a value, in reverse mode or inside a functional transform."""
    if not isinstance(value, torch.Tensor):
        return False
    while torch._C._functorch.is_batchedtensor(value):
        value = torch._C._functorch.get_unwrapped(value)
    return value.requires_grad or torch._C._functorch.is_gradtrackingtensor(value)


def _enter(context: Any) -> Any:
    """``autocast.__enter__`` that casts nothing for a thread that reads a network."""
    asked = context._enabled
    context._enabled = asked and get_ident() not in _READERS
    try:
        return _ENTER(context)  # type: ignore[no-untyped-call]
    finally:
        context._enabled = asked


_READERS: dict[int, int] = {}  # threads that read a network, and how deep
_CHECKPOINT, _ENTER = checkpointing.CheckpointFunction, _AUTOCAST.__enter__
_LOCK = Lock()


@contextmanager
def as_written() -> Iterator[None]:
    """Run forward passes of this thread in the precision of the weights, without recomputation.

    Autocast inside a forward pass rounds every layer to half precision; the same weights are read without. Checkpointed
    parts keep what they would compute again.

    Yields:
        Nothing.
    """
    mine = get_ident()
    with _LOCK:
        _READERS[mine] = _READERS.get(mine, 0) + 1
        checkpointing.CheckpointFunction = _Straight  # type: ignore[misc, assignment]
        _AUTOCAST.__enter__ = _enter  # type: ignore[method-assign]
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        with _LOCK:
            _READERS[mine] -= 1
            if not _READERS[mine]:
                del _READERS[mine]
            if not _READERS:
                checkpointing.CheckpointFunction = _CHECKPOINT  # type: ignore[misc]
                _AUTOCAST.__enter__ = _ENTER  # type: ignore[method-assign]


@contextmanager
def without_gradient_hooks(model: nn.Module) -> Iterator[None]:
    """Remove hooks on gradients of parameters and modules inside: they belong to a training, not to the outputs.

    A mask or a clip put on a gradient (``weight.register_hook``, ``register_full_backward_hook``) would make of it
    something that is no derivative. Hooks registered inside work as usual.

    Args:
        model: the network; its hooks are put back afterwards.

    Yields:
        Nothing.
    """
    kinds = ("_backward_hooks", "_backward_pre_hooks")
    removed: list[tuple[Any, dict[Any, Any]]] = []
    for owner in (*model.modules(), *model.parameters()):
        for kind in kinds:
            hooks = getattr(owner, kind, None)
            if hooks:
                removed.append((hooks, dict(hooks)))
                hooks.clear()
    try:
        yield
    finally:
        for hooks, before in removed:
            added = dict(hooks)
            hooks.clear()
            hooks.update({**before, **added})
