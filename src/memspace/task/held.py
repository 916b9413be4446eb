"""Trainable parameters that have no gradient here, named so that nobody takes their zero for a measurement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from memspace.task.checks import evaluating
from memspace.task.data import Inputs, call_model

__all__ = ["held_fixed"]

SHOWN = 6  # names in one sentence


def held_fixed(model: nn.Module, example: Callable[[], Inputs]) -> str:
    """What is held as it is although it requires a gradient, in words; ``""`` where there is nothing.

    Complex parameters, and layers that the forward pass runs under ``torch.no_grad``. A model that cannot be run on
    the example that ``example`` reads is left to the checks that follow.
    """
    said = []
    complex_ones = [n for n, p in model.named_parameters() if p.requires_grad and p.is_complex()]
    if complex_ones:
        said.append(f"complex parameters ({_listed(complex_ones)})")
    constant = _without_gradient(model, example)
    if constant:
        said.append(f"layers run under torch.no_grad ({_listed(constant)})")
    return " and ".join(said)


def _without_gradient(model: nn.Module, example: Callable[[], Inputs]) -> list[str]:
    """Modules with trainable parameters of their own, all of whose calls were made with gradients off."""
    seen: dict[str, bool] = {}
    handles = []

    def hook_of(name: str) -> Any:
        def hook(*_: Any) -> None:
            seen[name] = seen.get(name, False) or torch.is_grad_enabled()

        return hook

    for name, module in model.named_modules():
        if any(p is not None and p.requires_grad for p in module._parameters.values()):
            handles.append(module.register_forward_pre_hook(hook_of(name)))
    try:
        with evaluating(model), torch.enable_grad():
            call_model(model, example())
    except Exception:  # whatever it raises, the checks say it in their own words
        return []
    finally:
        for handle in handles:
            handle.remove()
    return [name for name, with_gradient in seen.items() if not with_gradient] if any(seen.values()) else []


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
