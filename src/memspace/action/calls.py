"""The calls of some modules in a forward pass: what went in, what came out, and hooks that keep both."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from memspace.task.observed import state_of, version_of

__all__ = ["CallRecorder", "ModuleCall", "held", "with_state"]


@dataclass(frozen=True)
class ModuleCall:
    """A call as recorded.

    Args:
        name: the module's name in the model.
        module: the module.
        turn: which of its calls in a forward pass, from 0.
        input: the hidden state that went in.
        output: the hidden state that came out.
        versions: of input and output (in-place changes raise them).
    """

    name: str
    module: nn.Module
    turn: int
    input: Tensor
    output: Tensor
    versions: tuple[int, int]

    @property
    def kept(self) -> bool:
        """Whether both are still what they were."""
        return self.output is not self.input and (version_of(self.input), version_of(self.output)) == self.versions


def with_state(value: Any, h: Tensor) -> Any:
    """Put another hidden state in the place of the one that :func:`state_of` picks.

    Args:
        value: a tensor, or a tuple, list or mapping with one.
        h: the hidden state.

    Returns:
        A value of the same type.
    """
    if isinstance(value, Tensor):
        return h
    if isinstance(value, Mapping):
        first = next(k for k, v in value.items() if isinstance(v, Tensor))
        return type(value)(**{k: h if k == first else v for k, v in value.items()})
    first = next(i for i, v in enumerate(value) if isinstance(v, Tensor))
    several = [h if i == first else v for i, v in enumerate(value)]
    return type(value)(*several) if hasattr(value, "_fields") else type(value)(several)


def held(value: Any) -> Any:
    """Copy what a block is called with where a call may change it (a cache of keys).

    Tensors are shared: they may hang in a graph, and such objects replace rather than overwrite them.

    Args:
        value: arguments of a call, nested at will.

    Returns:
        The same as it is now.
    """
    if type(value) is dict:
        return {k: held(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(held(v) for v in value)
    if isinstance(value, Tensor | nn.Module | type) or not hasattr(value, "__dict__") or callable(value):
        return value
    copied = copy.copy(value)
    copied.__dict__.update({k: held(v) for k, v in vars(value).items()})
    return copied


@dataclass
class CallRecorder:
    """Hooks that keep the calls of some modules in the last forward pass; removed by :meth:`close`.

    Args:
        model: the network.
        modules: those to record, by name.
        calls: of the last forward pass, in order.
    """

    model: nn.Module
    modules: Mapping[str, nn.Module]
    calls: list[ModuleCall] = field(default_factory=list)
    _handles: list[Any] = field(default_factory=list)
    _entered: dict[int, int] = field(default_factory=dict)  # by module: the version of the input of its running call

    def __post_init__(self) -> None:
        self._handles.append(self.model.register_forward_pre_hook(self._begin))
        for name, module in self.modules.items():
            self._handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._keep(name), with_kwargs=True))

    def __enter__(self) -> CallRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the hooks off and let the tensors go."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.calls.clear()

    def _begin(self, *_: object) -> None:
        self.calls.clear()

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        h = _input_of(args, kwargs)
        self._entered[id(module)] = 0 if h is None else version_of(h)

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            h, out = _input_of(args, kwargs), state_of(output)
            if h is not None and out is not None:
                turn = sum(c.module is module for c in self.calls)
                versions = self._entered.pop(id(module), version_of(h)), version_of(out)
                self.calls.append(ModuleCall(name, module, turn, h, out, versions))

        return hook


def _input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    h = state_of(args)
    return state_of(kwargs) if h is None else h
