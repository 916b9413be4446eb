"""The orthogonality of directions: pure functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["orthogonality", "random_cosine"]

NEGLIGIBLE = 1e-5  # of an example's longest direction: below it, rounding decides where a direction points


def orthogonality(directions: Tensor) -> Tensor:
    """Compute 1 − mean |cos| over pairs of directions, per example.

    Args:
        directions: (M, K, d); those without length are left out.

    Returns:
        (M,) in [0, 1]; NaN for an example with fewer than two directions of some length.
    """
    norm = directions.norm(dim=-1)
    alive = (norm > NEGLIGIBLE * norm.amax(1, keepdim=True)) & (norm > 0)
    unit = directions / norm.clamp_min(1e-300).unsqueeze(-1)
    cosine = (unit @ unit.transpose(1, 2)).abs()
    pair = alive.unsqueeze(1) & alive.unsqueeze(2)
    pair &= ~torch.eye(pair.shape[1], dtype=torch.bool, device=pair.device)
    count = pair.sum((1, 2))
    mean = (cosine * pair).sum((1, 2)) / count.clamp_min(1)
    return torch.where(count > 0, 1 - mean, torch.nan)


def random_cosine(dimension: int) -> float:
    """Compute E |cos| of two independent isotropic directions, Γ(d/2) / (√π Γ((d+1)/2)): about √(2/(πd)).

    Args:
        dimension: d.

    Returns:
        the expectation, exact.
    """
    return math.exp(math.lgamma(dimension / 2) - math.lgamma((dimension + 1) / 2)) / math.sqrt(math.pi)
