"""What an optimiser says of its step: the learning rate, and a name."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

__all__ = ["name_of", "rate_of"]


def rate_of(optimizer: Optimizer) -> float | Tensor:
    """Read the learning rate of the step just made.

    Args:
        optimizer: torch's.

    Returns:
        Of several groups the mean over parameters; a tensor where a loss scaler decided on the device whether the step
        was made, and 0 where it was not.
    """
    groups = optimizer.param_groups
    rate: float | Tensor = groups[0]["lr"]
    if len(groups) > 1:
        sizes = [sum(p.numel() for p in g["params"]) for g in groups]
        rate = sum(g["lr"] * size for g, size in zip(groups, sizes, strict=True)) / sum(sizes)
    skipped = getattr(optimizer, "found_inf", None)  # a loss scaler's fused step may have done nothing
    if isinstance(skipped, Tensor):
        rate = rate * (1 - skipped.double().squeeze())
    return rate


def name_of(optimizer: Optimizer) -> str:
    """Name what made the steps as :class:`memspace.Run` does: the class, and SGD's momentum where it has any.

    Args:
        optimizer: torch's.

    Returns:
        For example ``"SGD with momentum 0.9"``.
    """
    momentum = max((float(g.get("momentum") or 0.0) for g in optimizer.param_groups), default=0.0)
    name = type(optimizer).__name__
    return f"{name} with momentum {momentum:g}" if momentum else name
