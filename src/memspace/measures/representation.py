"""A layer's representation of some inputs, and the codes that scores of disentanglement are taken on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from memspace.errors import TaskError
from memspace.measures.scores.score import Codes
from memspace.task.checks import evaluating
from memspace.task.data import call_model, move
from memspace.task.task import Task

__all__ = ["codes_of", "read_layer", "representation", "signal_place", "tapped"]

MAX_CODES = 10


def signal_place(model: nn.Module, layer: str | None) -> tuple[str, bool]:
    """Find where a layer's signal is.

    Args:
        model: the network.
        layer: name of the layer, whose output is the signal; None: the input of the last linear layer, or the output
            where there is none.

    Returns:
        name of a module, and whether the signal is its input.

    Raises:
        TaskError: there is no such layer.
    """
    modules = dict(model.named_modules())
    if layer is not None and layer not in modules:
        known = ", ".join([n for n in modules if n][-5:])
        raise TaskError(
            f"the model has no layer {layer!r}",
            where="Task(layer=...)",
            remedy=f"name one of its layers, for example {known}" if known else "leave it out",
        )
    linear = [n for n, m in modules.items() if isinstance(m, nn.Linear)]
    into = layer is None and bool(linear)
    return layer if layer is not None else linear[-1] if linear else "", into


@contextmanager
def tapped(model: nn.Module, layer: str | None) -> Iterator[tuple[list[Tensor], str]]:
    """Collect a layer's signal at every call; the hook is always removed.

    Args:
        model: the network.
        layer: name of the layer, whose output is collected; None: the input of the last linear layer, or the output
            where there is none.

    Yields:
        a list that receives the signals, and what they are.

    Raises:
        TaskError: there is no such layer.
    """
    name, into = signal_place(model, layer)
    signals: list[Tensor] = []

    def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        signal = args[0] if into else output
        signals.append((signal if isinstance(signal, Tensor) else signal[0]).detach())

    handle = model.get_submodule(name).register_forward_hook(hook)
    try:
        yield signals, f"the input of {name}" if into else name or "the output"
    finally:
        handle.remove()


@torch.no_grad()
def read_layer(task: Task, inputs: Tensor, layer: str | None) -> tuple[Tensor, Tensor, str]:
    """Read a layer's signal and the outputs on some inputs.

    Args:
        task: the network.
        inputs: (M, ...).
        layer: name of the layer, whose output is read; None: the input of the last linear layer.

    Returns:
        the signal (M, d) and the outputs (M, ..., C), both float64 on the CPU, and the layer's name.
    """
    zs, fs = [], []
    with evaluating(task.model), tapped(task.model, layer) as (signals, name):
        for part in torch.split(inputs, 512):
            signals.clear()
            fs.append(call_model(task.model, move(part, task.device, task.dtype)).double().cpu())
            zs.append(signals[0].flatten(1).double().cpu())
    return torch.cat(zs), torch.cat(fs), name


def representation(task: Task, inputs: Tensor, layer: str | None = None) -> tuple[Tensor, str]:
    """Return a layer's output on some inputs.

    Args:
        task: the network.
        inputs: (M, ...).
        layer: name of the layer; None: the input of the last linear layer.

    Returns:
        (M, d) float64 on the CPU, and the layer's name.

    Raises:
        TaskError: there is no such layer.
    """
    z, _, name = read_layer(task, inputs, layer)
    return z, name


def codes_of(z: Tensor) -> tuple[Codes, str]:
    """Turn a representation into codes of unit variance: its units where few, else its leading principal components.

    Units that never change are dropped: they carry no information, and a rotation would spread the others over them.

    Args:
        z: (M, d) signal of a layer.

    Returns:
        codes (M, at most 10), and a description for people.
    """
    z = z - z.mean(0)
    scale = z.std(0, correction=0)
    live = scale > 1e-6 * scale.max()
    dead = int((~live).sum())
    z = z[:, live]
    if z.shape[1] <= MAX_CODES:
        what = f"{z.shape[1]} units"
    else:
        _, s, vh = torch.linalg.svd(z, full_matrices=False)
        captured = (s[:MAX_CODES].square().sum() / s.square().sum()).item()
        what = f"{MAX_CODES} leading principal components of {z.shape[1]} units, {captured:.0%} of the variance"
        z = z @ vh[:MAX_CODES].t()
    if dead:
        what += f" ({dead} that never change left out)"
    return (z / z.std(0, correction=0).clamp_min(1e-300)).numpy(), what
