"""One forward pass observed call by call: shapes, links and gradients, without keeping a number of it but the outputs.

Shapes, and which call feeds which, are the architecture's: they stay right when the weights change.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from memspace.task.data import Inputs, call_model
from memspace.task.tensors import leaves

__all__ = ["Observation", "ObservedCall", "form_of", "observed", "state_of", "version_of"]


@dataclass(frozen=True)
class ObservedCall:
    """One call of one module.

    Args:
        name: of the module; empty for the model itself.
        first: shape of the first positional argument, None where that is no tensor.
        shape: of what it gives: its output, the first of a tuple, a packed sequence's data; None where it is no tensor.
        given, made: the hidden states that went in and came out, on the meta device: a tensor that one call makes and
            another is given is one object in both.
        kept: whether neither was overwritten later in the pass, and they are two.
        gradients: whether gradients were on.
        learned: whether what went in depends on trainable parameters.
    """

    name: str
    first: tuple[int, ...] | None
    shape: tuple[int, ...] | None
    given: Tensor | None
    made: Tensor | None
    kept: bool
    gradients: bool
    learned: bool


@dataclass(frozen=True)
class Observation:
    """What one forward pass told.

    Args:
        calls: of every module, in the order in which they ended.
        widest: numbers in the largest tensor that the graph holds, the parameters apart, or in the outputs.
        f: the outputs, detached.
        key: of the architecture and of the inputs' form: another pass with the same key has the same calls.
    """

    key: Hashable
    calls: tuple[ObservedCall, ...]
    widest: int
    f: Tensor


def observed(model: nn.Module, x: Inputs) -> Observation:
    """Call the model once, with gradients, and tell what its modules did.

    Args:
        model: in the state it is to be read in (see ``checks.evaluating``).
        x: inputs of one example, or of a batch.

    Returns:
        the observation; nothing of the graph is kept.

    Raises:
        TypeError: the outputs are no tensor.
    """
    held = [1]
    own = {p.data_ptr() for p in model.parameters()}

    def note(t: Tensor) -> Tensor:
        if t.data_ptr() not in own:
            held.append(t.numel())
        return t.detach()  # the tensor itself would hold its own graph, and the graph the tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda t: t)
    with _watching(model) as seen, torch.enable_grad(), hooks:
        f = call_model(model, x)
        if not isinstance(f, Tensor):
            raise TypeError(f"the model returns a {type(f).__name__}")
        return Observation(form_of(model, x), _without_numbers(seen), max(*held, int(f.numel())), f.detach())


def form_of(model: nn.Module, x: Inputs) -> Hashable:
    """What the shapes of a forward pass depend on: modules, parameters (not their values) and the inputs' shapes."""
    modules = tuple(
        (name, type(m), tuple((n, _kind(p), p.requires_grad) for n, p in m._parameters.items() if p is not None))
        for name, m in model.named_modules()
    )
    return modules, tuple(_kind(t) for t in leaves(x))


def _kind(t: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return t.shape, t.dtype, t.device


def state_of(value: Any) -> Tensor | None:
    """The hidden state in what a block gets or gives: the tensor itself, or the first of a tuple, list or dict."""
    if isinstance(value, Tensor):
        return value
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((v for v in parts if isinstance(v, Tensor)), None)


def version_of(t: Tensor) -> int:
    """How often the tensor was written to; 0 for what inference mode made, which counts no versions."""
    return 0 if t.is_inference() else t._version


@dataclass
class _Seen:
    """A call while the pass runs: its tensors are alive, so that their identity and version can be told."""

    name: str
    first: Tensor | None
    shape: tuple[int, ...] | None
    given: Tensor | None
    made: Tensor | None
    versions: tuple[int, int]
    gradients: bool
    learned: bool


@contextmanager
def _watching(model: nn.Module) -> Iterator[list[_Seen]]:
    """Hooks on all modules inside, none left behind; gives the list that the calls are put into."""
    seen: list[_Seen] = []
    entered: dict[int, list[int]] = {}  # by module: versions of the inputs of its running calls
    handles = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = _given(args, kwargs)
        entered.setdefault(id(module), []).append(0 if given is None else version_of(given))

    def leaver(name: str) -> Any:
        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given, made = _given(args, kwargs), state_of(output)
            versions = entered[id(module)].pop(), 0 if made is None else version_of(made)
            first = args[0] if args and isinstance(args[0], Tensor) else None
            learned = given is not None and given.requires_grad
            seen.append(_Seen(name, first, _shape(output), given, made, versions, torch.is_grad_enabled(), learned))

        return leave

    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leaver(name), with_kwargs=True))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    state = state_of(args)
    return state_of(kwargs) if state is None else state


def _shape(output: Any) -> tuple[int, ...] | None:
    first = output[0] if isinstance(output, tuple) and not isinstance(output, PackedSequence) and output else output
    first = first.data if isinstance(first, PackedSequence) else first
    return tuple(first.shape) if isinstance(first, Tensor) else None


def _without_numbers(seen: list[_Seen]) -> tuple[ObservedCall, ...]:
    """The calls with meta tensors in place of tensors, one for each."""
    empty: dict[int, Tensor] = {}

    def emptied(t: Tensor | None) -> Tensor | None:
        if t is None:
            return None
        return empty.setdefault(id(t), torch.empty(t.shape, dtype=t.dtype, device="meta"))

    calls = []
    for call in seen:
        given, made = call.given, call.made
        whole = given is not None and made is not None and given is not made
        kept = whole and (version_of(given), version_of(made)) == call.versions  # type: ignore[arg-type]
        first = None if call.first is None else tuple(call.first.shape)
        states = emptied(given), emptied(made)
        calls.append(ObservedCall(call.name, first, call.shape, *states, kept, call.gradients, call.learned))
    return tuple(calls)
