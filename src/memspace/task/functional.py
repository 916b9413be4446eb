"""A model called with other tensors in place of its own, for one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["functional_call"]


def functional_call(
    model: nn.Module, state: Mapping[str, Tensor], args: Any, kwargs: Mapping[str, Any] | None = None
) -> Any:
    """Evaluate ``model(*args, **kwargs)`` with the parameters and buffers of ``state`` in place of the model's.

    As ``torch.func.functional_call``, with every place of a shared tensor filled once. Torch's own fills a module that
    is registered under two names twice, and then leaves the given tensors in the model.

    Args:
        model: the network; left as it was.
        state: names and tensors; parameters that it lacks stay.
        args: positional arguments: a tuple, or one that is none.
        kwargs: keyword arguments.

    Returns:
        Whatever the model returns.
    """
    paths: dict[int, str] = {}
    places: dict[int, list[str]] = {}  # a tensor of the model → all its places, each under one name
    for path, module in model.named_modules():
        paths[id(module)] = f"{path}." if path else ""
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                places.setdefault(id(tensor), []).append(f"{paths[id(module)]}{name}")
    filled: dict[str, Tensor] = {}
    for key, value in state.items():
        path, _, name = key.rpartition(".")
        module = model.get_submodule(path)
        registered: Tensor | None = module._parameters.get(name)
        registered = module._buffers.get(name) if registered is None else registered
        for place in places.get(id(registered), [f"{paths[id(module)]}{name}"]):
            filled[place] = value
    return torch.func.functional_call(model, filled, args, dict(kwargs or {}), tie_weights=False)
