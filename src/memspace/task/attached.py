"""Whether gradients reach a network's parameters from its outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from memspace.errors import TaskError, UnsupportedLayerError
from memspace.task.data import call_model, move

if TYPE_CHECKING:
    from memspace.task.task import Task

__all__ = ["check_attached", "detached", "ends_in_kernels"]


def check_attached(task: Task) -> None:
    """Check that gradients reach the outputs.

    Args:
        task: whose network is called on two training examples.

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
        whole = [n for n, m in task.model.named_modules() if "quantized" in type(m).__module__]
        raise UnsupportedLayerError(
            "gradients end in an operation that torch cannot differentiate: every layer before it would seem idle",
            where=f"module {whole[0]}" if whole and whole[0] else type(task.model).__name__,
            remedy="hand over the network before it was quantised; what rounding costs is measured on a copy"
            if whole
            else "write it with differentiable operations, or freeze the layers before it and call them in no_grad",
        )


def detached(model: nn.Module, f: Tensor) -> bool:
    """Whether no trainable parameter is in the graph of f."""
    own = {id(p) for p in model.parameters() if p.requires_grad}
    return not any(id(getattr(node, "variable", None)) in own for node in _nodes(f))


def ends_in_kernels(f: Tensor) -> bool:
    """Whether the graph of f holds a kernel without a derivative, whose backward gives no gradient but a warning."""
    return any("NotImplemented" in type(node).__name__ + node.name() for node in _nodes(f))


def _nodes(f: Tensor) -> Iterator[Any]:
    """Every operation in the graph of f, once."""
    seen, left = set(), [f.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            left.extend(n for n, _ in node.next_functions)
