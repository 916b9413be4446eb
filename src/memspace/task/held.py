"""Trainable parameters that have no gradient here, named so that nobody takes their zero for a measurement."""

from __future__ import annotations

from torch import nn

from memspace.task.observed import Observation

__all__ = ["held_fixed"]

SHOWN = 6  # names in one sentence


def held_fixed(model: nn.Module, alone: Observation | None) -> str:
    """Say what is held as it is although it requires a gradient.

    Args:
        alone: one example's forward pass, run with gradients on; None where the model could not be run: that is left
            to the checks.

    Returns:
        complex parameters, and layers that the forward pass runs under ``torch.no_grad``, in words; ``""`` where there
        are none.
    """
    said = []
    complex_ones = [n for n, p in model.named_parameters() if p.requires_grad and p.is_complex()]
    if complex_ones:
        said.append(f"complex parameters ({_listed(complex_ones)})")
    constant = [] if alone is None else _without_gradient(model, alone)
    if constant:
        said.append(f"layers run under torch.no_grad ({_listed(constant)})")
    return " and ".join(said)


def _without_gradient(model: nn.Module, alone: Observation) -> list[str]:
    """Modules with trainable parameters of their own, all of whose calls were made with gradients off."""
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    own = {n for n, m in model.named_modules() if any(id(p) in trainable for p in m._parameters.values())}
    seen: dict[str, bool] = {}
    for call in alone.calls:
        if call.name in own:
            seen[call.name] = seen.get(call.name, False) or call.gradients
    return [name for name, with_gradient in seen.items() if not with_gradient] if any(seen.values()) else []


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
