"""Whether gradients reach a network's parameters from its outputs, and which trainable ones have none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from memspace.errors import TaskError, UnsupportedLayerError
from memspace.task.data import call_model, move
from memspace.task.observed import Observation

if TYPE_CHECKING:
    from memspace.task.task import Task

__all__ = ["check_attached", "constant_parameters", "detached", "ends_in_kernels", "operations"]

SHOWN = 6  # names in one sentence


def check_attached(task: Task) -> None:
    """Check that gradients reach the outputs.

    Args:
        task: its network is called on two training examples.

    Raises:
        TaskError: the outputs are detached from the parameters.
        UnsupportedLayerError: gradients end in an operation that has no derivative.
    """
    x = move(task.train.batch(range(min(2, len(task.train)))).x, task.device, task.dtype)
    with torch.enable_grad():
        f = call_model(task.model, x)
    if f.is_inference() or not f.requires_grad:
        raise TaskError(
            "the outputs are detached from the parameters: nothing has a gradient",
            where=type(task.model).__name__,
            remedy="take torch.no_grad(), torch.inference_mode(), .detach() and .data out of its forward",
        )
    if ends_in_kernels(f):
        quantised = [n for n, m in task.model.named_modules() if "quantized" in type(m).__module__]
        raise UnsupportedLayerError(
            "gradients end in an operation that torch cannot differentiate: every layer before it would seem idle",
            where=f"module {quantised[0]}" if quantised and quantised[0] else type(task.model).__name__,
            remedy="pass the network before it was quantised; what rounding costs is measured on a copy"
            if quantised
            else "write it with differentiable operations, or freeze the layers before it and call them in no_grad",
        )


def detached(model: nn.Module, f: Tensor) -> bool:
    """Tell whether no trainable parameter is in the graph of the outputs.

    Args:
        model: the network.
        f: its outputs, any shape.

    Returns:
        True where the backward pass from ``f`` reaches no parameter that requires a gradient.
    """
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    return not any(id(getattr(node, "variable", None)) in trainable for node in operations(f))


def ends_in_kernels(f: Tensor) -> bool:
    """Tell whether the graph of the outputs holds a kernel without a derivative.

    The backward pass of such a kernel gives no gradient but a warning.

    Args:
        f: outputs, any shape.

    Returns:
        True where there is at least one.
    """
    return any("NotImplemented" in type(node).__name__ + node.name() for node in operations(f))


def constant_parameters(model: nn.Module, alone: Observation | None) -> str:
    """Name the parameters that are constant here although they require a gradient.

    They are named so that nobody takes their zero for a measurement.

    Args:
        model: the network.
        alone: one example's forward pass, run with gradients on; None where the model could not be run, which is left
            to the checks.

    Returns:
        Complex parameters, and layers that the forward pass runs under ``torch.no_grad``, in words; ``""`` where there
        are none.
    """
    parts = []
    complex_names = [n for n, p in model.named_parameters() if p.requires_grad and p.is_complex()]
    if complex_names:
        parts.append(f"complex parameters ({_listed(complex_names)})")
    constant = [] if alone is None else _without_gradient(model, alone)
    if constant:
        parts.append(f"layers run under torch.no_grad ({_listed(constant)})")
    return " and ".join(parts)


def _without_gradient(model: nn.Module, alone: Observation) -> list[str]:
    """List modules with trainable parameters of their own whose calls all ran with gradients off."""
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    owners = {n for n, m in model.named_modules() if any(id(p) in trainable for p in m._parameters.values())}
    with_gradients: dict[str, bool] = {}
    for call in alone.calls:
        if call.name in owners:
            with_gradients[call.name] = with_gradients.get(call.name, False) or call.gradients
    return [name for name, ever in with_gradients.items() if not ever] if any(with_gradients.values()) else []


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def operations(f: Tensor) -> Iterator[Any]:
    """Iterate over the operations in the graph of the outputs.

    Args:
        f: outputs, any shape.

    Yields:
        Every operation once.
    """
    seen, waiting = set(), [f.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(n for n, _ in node.next_functions)
