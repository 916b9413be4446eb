"""The units of a layer: read on examples, or set to a constant, by one hook that is always taken off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from memspace.action.calls import with_state
from memspace.errors import TaskError
from memspace.measures.representation import signal_place
from memspace.passes.profile import profile_of
from memspace.progress import Progress, Silent
from memspace.task.checks import evaluating
from memspace.task.data import Data, call_model, first_tensor, move
from memspace.task.observed import state_of
from memspace.task.task import Task

__all__ = ["LayerPlace", "UnitSignals", "changing", "layer_place", "read_units", "silenced"]

BATCH = 128
BY_CHANNEL = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.Upsample,
    nn.Dropout2d,
)
BY_FEATURE = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.MultiheadAttention, nn.RNNBase, nn.RMSNorm)
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}

Change = Callable[[Tensor], Tensor | None]  # a layer's signal ↦ what goes on in its place; None: the same


@dataclass(frozen=True)
class LayerPlace:
    """Where the units of a layer are.

    Args:
        module: its name.
        into: whether they are the module's input and not its output.
        axis: along which units stand: 1 for channels, −1 for features.
        units: how many.
        shape: of the positions of an example, empty where there is one value a unit.
    """

    module: str
    into: bool
    axis: int
    units: int
    shape: tuple[int, ...]

    @property
    def words(self) -> str:
        """Name the layer, for people."""
        name = self.module or "the network"
        return f"the input of {name}" if self.into else name


@dataclass(frozen=True)
class UnitSignals:
    """A layer's units and the network's outputs on some examples.

    Args:
        a: (n, P, U) activations, float32 on the CPU.
        f: (n, ..., C) outputs.
        y: labels; None where the examples have none.
        counted: (n, P) positions that an attention mask does not leave out; None without one.
    """

    a: Tensor
    f: Tensor
    y: Tensor | None
    counted: Tensor | None


@contextmanager
def changing(model: nn.Module, place: LayerPlace, change: Change) -> Iterator[None]:
    """Give a layer's signal to a function in every forward pass, and let what it returns go on in its place.

    Of a module that is called several times in a pass the first call alone is meant.

    Args:
        model: the network.
        place: of the layer.
        change: gets the signal, which it must not write to.

    Yields:
        nothing; afterwards the hooks are gone.
    """
    calls = [0]

    def begin(*_: object) -> None:
        calls[0] = 0

    def changed(value: Any) -> Any:
        calls[0] += 1
        signal = state_of(value)
        if calls[0] > 1 or signal is None:
            return None
        other = change(signal)
        return None if other is None else with_state(value, other)

    def enter(_module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        other = changed(args if args else keywords)
        return None if other is None else (other, keywords) if args else (args, other)

    def leave(_module: nn.Module, _args: Any, output: Any) -> Any:
        return changed(output)

    module = model.get_submodule(place.module)
    handles: list[Any] = [model.register_forward_pre_hook(begin)]
    if place.into:
        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
    else:
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def layer_place(task: Task, data: Data) -> LayerPlace:
    """Find the units of the task's layer.

    Args:
        task: the network and the layer's name.
        data: examples, of which two are read.

    Returns:
        where the units are.

    Raises:
        TaskError: there is no such layer, or its output has no row an example.
    """
    name, into = signal_place(task.model, task.layer)
    signals: list[Tensor] = []
    count = min(2, len(data))
    rough = LayerPlace(name, into, -1, 0, ())
    with torch.no_grad(), evaluating(task.model), changing(task.model, rough, signals.append):
        call_model(task.model, move(data.inputs(range(count)), task.device, task.dtype))
    shape = tuple(signals[0].shape) if signals else ()
    if len(shape) < 2 or shape[0] != count or not signals[0].is_floating_point():
        made = f"gives a tensor of shape {shape}" if signals else "is not called or gives no tensor"
        raise TaskError(
            f"{rough.words} {made} for {count} examples, not a row of units for each",
            where="Task(layer=...)",
            remedy="name a layer that gives (examples, units), (examples, positions, units) or maps of channels",
        )
    axis = -1 if len(shape) == 2 else _axis(task, name, into, len(shape))
    positions = shape[2:] if axis == 1 else shape[1:-1]
    return LayerPlace(name, into, axis, shape[axis], positions)


def _axis(task: Task, name: str, into: bool, dims: int) -> int:
    """Along which axis units stand: as in the layer itself, or in the last layer before it that tells."""
    if into:
        return -1
    modules = dict(task.model.named_modules())
    known = -1 if dims == 3 else 1
    for call in profile_of(task).calls:
        module = modules[call.name]
        if call.shape is not None and len(call.shape) == dims:
            if isinstance(module, BY_CHANNEL):
                known = 1
            elif isinstance(module, BY_FEATURE):
                known = -1
        if call.name == name:
            return known
    return known


def read_units(
    task: Task,
    place: LayerPlace,
    data: Data,
    index: Tensor,
    *,
    labelled: bool = True,
    size: tuple[int, ...] | None = None,
    pixels: Tensor | None = None,
    progress: Progress | None = None,
) -> UnitSignals:
    """Read a layer's units, outputs and labels in one forward pass an example.

    Args:
        task: the network.
        place: of the layer.
        data: the examples.
        index: (n,) which of them.
        labelled: whether they have labels.
        size: positions that maps are interpolated to, as Bau et al. 2017 do; None: the layer's own.
        pixels: (P,) of these positions, row by row; None: all.
        progress: notified of every batch; None: silent.

    Returns:
        activations by position, outputs and labels.

    Raises:
        TaskError: the layer gives other shapes for other examples.
    """
    activations: list[Tensor] = []
    fs, ys, masks = [], [], []
    parts = torch.split(index, BATCH)
    tracked = (progress or Silent()).track(parts, "activations", len(parts))

    def keep(signal: Tensor) -> None:
        maps = _by_position(signal, place.axis, size, pixels)
        activations.append(maps.to("cpu", torch.float32, copy=True))  # what follows may write to the signal

    with torch.no_grad(), evaluating(task.model), changing(task.model, place, keep):
        for part in tracked:
            x = data.batch(part) if labelled else data.inputs(part)
            inputs = x.x if labelled else x
            f = call_model(task.model, move(inputs, task.device, task.dtype))
            first, last = activations[0], activations[-1]
            if len(last) != len(first_tensor(inputs)) or last.shape[1:] != first.shape[1:]:
                raise TaskError(
                    f"{place.words} gives tensors of different shapes for different examples",
                    where="Task(layer=...)",
                    remedy="pad the examples to one length, or name a layer after the pooling",
                )
            fs.append(f)
            mask = inputs.get("attention_mask") if isinstance(inputs, dict) else None
            if isinstance(mask, Tensor) and mask.shape == activations[-1].shape[:2]:
                masks.append(mask.cpu() != 0)
            if labelled:
                ys.append(move(x.y, task.device))
    counted = torch.cat(masks) if masks else None
    return UnitSignals(torch.cat(activations), torch.cat(fs), torch.cat(ys) if labelled else None, counted)


def _by_position(signal: Tensor, axis: int, size: tuple[int, ...] | None, pixels: Tensor | None) -> Tensor:
    """Units last, positions in the middle: (B, P, U)."""
    if signal.dim() == 2:
        return signal[:, None]
    if size is not None and tuple(signal.shape[2:] if axis == 1 else signal.shape[1:-1]) != size:
        maps = signal if axis == 1 else signal.movedim(-1, 1)
        signal, axis = interpolate(maps, size=size, mode=MODES[len(size)], align_corners=False), 1
    flat = signal.movedim(axis, -1).flatten(1, -2)
    return flat if pixels is None else flat[:, pixels.to(flat.device)]


def silenced(model: nn.Module, place: LayerPlace, units: Tensor, value: Tensor) -> AbstractContextManager[None]:
    """Set some units to constants while the context lasts.

    Args:
        model: the network.
        place: of the layer.
        units: (k,) numbers of the units.
        value: (k,) what they are set to.

    Returns:
        a context; the model itself is not changed.
    """

    def change(signal: Tensor) -> Tensor:
        other = signal.clone()
        other.movedim(place.axis, -1)[..., units.to(signal.device)] = value.to(signal)
        return other

    return changing(model, place, change)
