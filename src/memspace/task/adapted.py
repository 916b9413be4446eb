"""The network and the data brought together: which reading of a batch the network takes, and what it returns.

Networks as libraries have them return named tuples and dicts, take tensors that all examples share, or work in place
on their inputs. All of memspace calls ``task.model(x)`` and expects a tensor of outputs. Whatever else a network needs
is put around its ``forward`` once, here, in a copy of its outermost module that shares all parameters and children.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from memspace.errors import DataError, LabelError, MemspaceError
from memspace.task.checks import untouched
from memspace.task.data import Data, call_model, move
from memspace.task.first_calls import FirstCalls
from memspace.task.layout import Layout, Signature, layouts
from memspace.task.likelihood import Likelihood
from memspace.task.recipe import Training
from memspace.task.samplers import same_draws
from memspace.task.tensors import leaves

__all__ = ["Adapter", "Together", "adapted", "brought_together", "copied", "logits_of", "part_of", "with_adapter"]


@dataclass(frozen=True)
class Adapter:
    """What goes around a network's ``forward``.

    Args:
        shared: inputs given at every call: by keyword (str) or at a place among the positional ones (int).
        pick: where the outputs are in what the network returns, or None where it returns a tensor.
        copies: whether the inputs are copied first, since the network writes into them.
    """

    shared: dict[Any, Any] = field(default_factory=dict)
    pick: Any = None
    copies: bool = False

    @property
    def needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.shared) or self.pick is not None or self.copies

    def inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arrange the inputs of a call as the network takes them.

        Args:
            args: positional inputs.
            kwargs: keyword inputs.

        Returns:
            Both, with the shared ones.
        """
        if self.copies:
            args = tuple(copied(a) for a in args)
            kwargs = {key: copied(v) for key, v in kwargs.items()}
        placed = list(args)
        for place in sorted(place for place in self.shared if isinstance(place, int)):
            placed.insert(place, self.shared[place])
        return tuple(placed), kwargs | {key: v for key, v in self.shared.items() if isinstance(key, str)}

    def outputs(self, returned: Any) -> Any:
        """Take the outputs out of what a call returned.

        Args:
            returned: by the network.

        Returns:
            The entry named by ``pick``; tensors as they are.
        """
        return returned if self.pick is None or isinstance(returned, Tensor) else part_of(returned, self.pick)


def adapted(model: nn.Module, adapter: Adapter) -> nn.Module:
    """Put an adapter around a network.

    Args:
        model: the network.
        adapter: what goes around its ``forward``.

    Returns:
        The model itself where nothing is needed, else a copy of its outermost module around the same contents.
    """
    if not adapter.needed or isinstance(model, torch.jit.ScriptModule):
        return model
    kind = type(model)
    replaced = model.__dict__.get("forward")  # a forward replaced on the instance

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = adapter.inputs(args, kwargs)
        return adapter.outputs(
            replaced(*args, **kwargs) if replaced is not None else kind.forward(self, *args, **kwargs)
        )

    names = {"forward": forward, "_adapter": adapter, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    if replaced is not None:  # for who asks what the model computes
        names["_own_forward"] = staticmethod(replaced)
    made: Any = type(kind.__name__, (kind,), names)
    new: nn.Module = made.__new__(made)
    new.__dict__ = {k: v for k, v in vars(model).items() if k != "forward"}
    return new


@dataclass(frozen=True)
class _Made:
    """A user's ``make()`` whose networks are called as the audited one."""

    make: Callable[[], nn.Module]
    adapter: Adapter

    def __call__(self) -> nn.Module:
        return adapted(self.make(), self.adapter)


def with_adapter(training: Training | None, adapter: Adapter) -> Training | None:
    """Return a training whose networks are called as the audited one.

    Args:
        training: any, or None.
        adapter: what goes around a network's ``forward``.

    Returns:
        The training; itself where nothing is needed.
    """
    if training is None or not adapter.needed or isinstance(training.make, _Made):
        return training
    return replace(training, make=_Made(training.make, adapter))


def logits_of(returned: Any, count: int | None = None) -> Any:
    """Find the outputs in what a network returned: the entry ``logits``, else the only one that can be them.

    Args:
        returned: by the network.
        count: of examples, where known: outputs have as many rows.

    Returns:
        An entry's name or place; None for a tensor, and where it is not clear.
    """
    if isinstance(returned, Tensor):
        return None
    if isinstance(returned, Mapping):
        named = dict(returned.items())
    elif hasattr(returned, "_asdict"):
        named = returned._asdict()
    elif isinstance(returned, tuple | list):
        named = dict(enumerate(returned))
    else:
        named = vars(returned) if hasattr(returned, "__dict__") else {}
    if isinstance(named.get("logits"), Tensor):
        return "logits"
    rows = [
        k
        for k, v in named.items()
        if isinstance(v, Tensor) and v.is_floating_point() and v.dim() > 1 and count in (None, len(v))
    ]
    return rows[0] if len(rows) == 1 else None


@dataclass(frozen=True)
class Together:
    """A model and data that fit.

    Args:
        model: as the passes read it.
        data: as the passes read them.
        adapter: what is around the model's forward.
        shape: of the outputs of two examples (of one, where there is but one); None where the model refused them.
    """

    model: nn.Module
    data: Data
    adapter: Adapter = field(default_factory=Adapter)
    shape: tuple[int, ...] | None = None


def brought_together(
    model: nn.Module,
    data: Data,
    law: Likelihood,
    dtype: torch.dtype,
    device: torch.device,
    first: FirstCalls | None = None,
) -> Together:
    """Find the model as ``call_model`` can use it, and the data read the way the model takes them.

    Two examples go through the network, in eval mode, without gradients and without a trace in it or in any random
    state.

    Args:
        model: the network.
        data: any.
        law: the output law, which tells a label from an input where both readings run.
        dtype: of floating inputs.
        device: of the network.
        first: what a plain network did with these data, if it is one: nothing goes through it again.

    Returns:
        Both, and what is around the model.

    Raises:
        DataError: the data cannot be read, or it is not clear which part of them is the label.
    """
    if first is not None:
        return Together(model, data.read_as(Layout(), dtype), shape=tuple(first.used.shape))
    if any(p.is_meta or p.is_inference() for p in model.parameters()):  # the checks name them
        return Together(model, data.read_as(None, dtype))
    with same_draws(), untouched(model), torch.inference_mode(False), torch.no_grad():
        index = torch.tensor(sorted({0, len(data) - 1}))
        raw = data.raw(index)
        known = getattr(type(model), "_adapter", Adapter())
        readings = [_with_shared(r, data, raw, index) for r in layouts(raw, Signature.of(model), data.name)]
        tried = [_tried(model, r, raw, data, law, dtype, device, known) for r in readings]
    good = [k for k, t in enumerate(tried) if t is not None]
    places = isinstance(raw, tuple) and len(raw) > 2
    if places and len(good) > 1:
        what = " and ".join(f"entry {readings[k].label}" for k in good)
        raise DataError(
            f"an item of the {data.name} has {len(raw)} entries, and either of {what} could be the label",
            where=data.name,
            remedy="let the dataset return (input, label) pairs, with a tuple of inputs where there are several",
        )
    chosen = good[0] if good else (len(readings) - 1 if places else 0)
    reading = tried[chosen]
    data = data.read_as(readings[chosen], dtype)
    if reading is None:
        return Together(model, data)
    adapter, shape = reading
    return Together(adapted(model, adapter), data, adapter, shape)


def _with_shared(layout: Layout, data: Data, raw: Any, index: Tensor) -> Layout:
    """Set apart the inputs that have no axis of examples."""
    try:
        x = layout.split(raw, data.name)[0]
    except MemspaceError:
        return layout
    if not isinstance(x, dict | tuple) or layout.form == "dict":
        return layout
    # A collate function may add what belongs to no example: it does not grow with the batch.
    one = layout.split(data.raw(index[:1]), data.name)[0] if data.collated and len(index) > 1 else None
    keys = x if isinstance(x, dict) else range(len(x))
    return replace(
        layout, shared=tuple(k for k in keys if _is_shared(x[k], None if one is None else one[k], len(index)))
    )


def _is_shared(batch: Any, one: Any, count: int) -> bool:
    """Tell whether an input, in a batch of ``count`` examples and in one example alone, has no axis of examples."""
    if isinstance(batch, Tensor):
        if batch.dim() == 0 or not isinstance(one, Tensor) or one.dim() == 0:
            return batch.dim() == 0 or len(batch) != count
        return len(one) == len(batch)  # a list of all examples' parts grows with the batch too
    return not leaves(batch)


def _tried(
    model: nn.Module,
    layout: Layout,
    raw: Any,
    data: Data,
    law: Likelihood,
    dtype: torch.dtype,
    device: torch.device,
    known: Adapter,
) -> tuple[Adapter, tuple[int, ...] | None] | None:
    """Find what the network needs around it under this reading, and its outputs' shape.

    None where the network refuses the data.
    """
    try:
        x, y = layout.split(raw, data.name)
    except MemspaceError:
        return None
    inside = x if isinstance(x, dict) else dict(enumerate(x)) if isinstance(x, tuple) else {}
    shared = {k: move(inside[k], device, dtype) for k in layout.shared}
    batch = move(layout.without_shared(x), device, dtype)
    if known.shared:
        shared = {}
    if not leaves(batch):
        return None
    batch = copied(batch)  # the versions of new tensors count from 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of readings that are tried in vain
            returned = call_model(adapted(model, Adapter(shared=shared)), batch)
    except Exception:  # whatever a network raises at inputs it does not take
        return None
    if _keeps_a_cache(model, returned):
        shared = shared | {"use_cache": False}
    written = any(t._version > 0 for t in leaves(batch))
    pick = logits_of(returned, len(leaves(batch)[0]))
    f = returned if pick is None else part_of(returned, pick)
    if isinstance(raw, tuple) and len(raw) > 2 and isinstance(f, Tensor):
        try:
            law.check(f, move(data.encode(y), device), data.name)
        except (LabelError, DataError):
            return None
    return Adapter(shared, pick, written), tuple(f.shape) if isinstance(f, Tensor) else None


def _keeps_a_cache(model: nn.Module, returned: Any) -> bool:
    """Tell whether the network filled a cache of keys and values, for generation alone, that can be switched off.

    Its blocks write into that cache at every call, so that a block called again alone would read its own keys.
    """
    cached = (
        returned.get("past_key_values") if isinstance(returned, Mapping) else getattr(returned, "past_key_values", None)
    )
    return cached is not None and "use_cache" in inspect.signature(model.forward).parameters


def part_of(returned: Any, pick: Any) -> Any:
    """Take one entry or attribute of what a network returned.

    Args:
        returned: by the network.
        pick: a name or a place.

    Returns:
        That part.
    """
    if isinstance(returned, Mapping) or isinstance(pick, int):
        return returned[pick]
    return getattr(returned, pick)


def copied(x: Any) -> Any:
    """Copy inputs into memory of their own.

    Args:
        x: a tensor, or nested tuples and dicts of tensors.

    Returns:
        Inputs of the same structure.
    """
    if isinstance(x, Tensor):
        return x.clone()
    if isinstance(x, dict):
        return {k: copied(v) for k, v in x.items()}
    return tuple(copied(v) for v in x) if isinstance(x, tuple) else x
