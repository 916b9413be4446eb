"""One forward pass observed call by call: shapes, links and gradients; of its numbers only the outputs are kept.

Shapes, and which call feeds which, belong to the architecture: they stay right when the weights change.
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
        shape: of its output, the first of a tuple, or a packed sequence's data; None where that is no tensor.
        state_in: the hidden state that went in, on the meta device: a tensor that one call makes and another is given
            is one object in both.
        state_out: the hidden state that came out, likewise.
        intact: whether neither was overwritten later in the pass, and they are two.
        gradients: whether gradients were on.
        learned: whether the inputs depend on trainable parameters.
    """

    name: str
    first: tuple[int, ...] | None
    shape: tuple[int, ...] | None
    state_in: Tensor | None
    state_out: Tensor | None
    intact: bool
    gradients: bool
    learned: bool


@dataclass(frozen=True)
class Observation:
    """What one forward pass showed.

    Args:
        key: of the architecture and of the inputs' form: another pass with the same key has the same calls.
        calls: of every module, in the order in which they ended.
        widest: numbers in the largest tensor that the graph holds, the parameters apart, or in the outputs.
        f: the outputs, detached.
    """

    key: Hashable
    calls: tuple[ObservedCall, ...]
    widest: int
    f: Tensor


def observed(model: nn.Module, x: Inputs) -> Observation:
    """Run the model once, with gradients, and record its modules' calls.

    Args:
        model: in the state it is to be read in (see ``checks.evaluating``).
        x: inputs of one example, or of a batch.

    Returns:
        The observation; nothing of the graph is kept.

    Raises:
        TypeError: the outputs are no tensor.
    """
    sizes = [1]
    parameters = {p.data_ptr() for p in model.parameters()}

    def note(t: Tensor) -> Tensor:
        if t.data_ptr() not in parameters:
            sizes.append(t.numel())
        return t.detach()  # the tensor itself would hold its own graph, and the graph the tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda t: t)
    with _watching(model) as seen, torch.enable_grad(), hooks:
        f = call_model(model, x)
        if not isinstance(f, Tensor):
            raise TypeError(f"the model returns a {type(f).__name__}")
        return Observation(form_of(model, x), _without_numbers(seen), max(*sizes, int(f.numel())), f.detach())


def form_of(model: nn.Module, x: Inputs) -> Hashable:
    """Collect everything that the shapes of a forward pass depend on.

    Args:
        model: the network.
        x: inputs.

    Returns:
        Modules, parameters (not their values) and the inputs' shapes, to compare.
    """
    modules = tuple(
        (name, type(m), tuple((n, _kind(p), p.requires_grad) for n, p in m._parameters.items() if p is not None))
        for name, m in model.named_modules()
    )
    return modules, tuple(_kind(t) for t in leaves(x))


def _kind(t: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return t.shape, t.dtype, t.device


def state_of(value: Any) -> Tensor | None:
    """Find the hidden state in a block's inputs or outputs: the tensor itself, or the first of a tuple, list or dict.

    Args:
        value: a block's inputs or outputs.

    Returns:
        The tensor; None where there is none.
    """
    if isinstance(value, Tensor):
        return value
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((v for v in parts if isinstance(v, Tensor)), None)


def version_of(t: Tensor) -> int:
    """Count how often a tensor was written to.

    Args:
        t: any tensor.

    Returns:
        Its version; 0 for tensors made in inference mode, which counts none.
    """
    return 0 if t.is_inference() else t._version


@dataclass
class _Seen:
    """A call while the pass runs: its tensors are alive, so that identity and version can be compared."""

    name: str
    first: Tensor | None
    shape: tuple[int, ...] | None
    state_in: Tensor | None
    state_out: Tensor | None
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
        state_in = _given(args, kwargs)
        entered.setdefault(id(module), []).append(0 if state_in is None else version_of(state_in))

    def leaver(name: str) -> Any:
        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            state_in, state_out = _given(args, kwargs), state_of(output)
            versions = entered[id(module)].pop(), 0 if state_out is None else version_of(state_out)
            first = args[0] if args and isinstance(args[0], Tensor) else None
            learned = state_in is not None and state_in.requires_grad
            seen.append(
                _Seen(name, first, _shape(output), state_in, state_out, versions, torch.is_grad_enabled(), learned)
            )

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
        state_in, state_out = call.state_in, call.state_out
        whole = state_in is not None and state_out is not None and state_in is not state_out
        intact = whole and (version_of(state_in), version_of(state_out)) == call.versions  # type: ignore[arg-type]
        first = None if call.first is None else tuple(call.first.shape)
        states = emptied(state_in), emptied(state_out)
        calls.append(ObservedCall(call.name, first, call.shape, *states, intact, call.gradients, call.learned))
    return tuple(calls)
