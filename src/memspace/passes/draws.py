"""Uniform numbers that belong to an example: the same in every batch, order and process.

A counter-based generator: the number is a hash of (seed, example, position within the example), by the finalising steps
of SplitMix64 (Steele et al. 2014), whose output passes the common batteries of tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["uniforms"]


def _signed(word: int) -> int:
    """The 64 bits of a word as torch's signed integer."""
    return word - 2**64 if word >= 2**63 else word


STEP = _signed(0x9E3779B97F4A7C15)
FIRST, SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _right(x: Tensor, bits: int) -> Tensor:
    """A logical shift: torch's own shift is arithmetic."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(x: Tensor) -> Tensor:
    x = x * STEP
    x = (x ^ _right(x, 30)) * FIRST
    x = (x ^ _right(x, 27)) * SECOND
    return x ^ _right(x, 31)


def uniforms(seed: int, index: Tensor, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Draw independent numbers in the open interval (0, 1).

    Args:
        seed: of the draw.
        index: (B,) int64, positions of the examples.
        shape: of one example's numbers.
        dtype: of the model; float64 has a finer grid.
        device: where the numbers are computed.

    Returns:
        (B, *shape): float64 on a grid of 2⁻⁵² for float64, else float32 on a grid of 2⁻²³. Both represent the grid
        exactly, so that neither 0 nor 1 is ever reached.
    """
    key = _mixed(torch.tensor([seed + 1], device=device))
    example = _mixed(key ^ (index.to(device) + 1))
    place = torch.arange(1, math.prod(shape) + 1, device=device)
    word = _mixed(example.unsqueeze(1) + place)
    bits, grid = (52, torch.float64) if dtype == torch.float64 else (23, torch.float32)
    return ((_right(word, 64 - bits).to(grid) + 0.5) * 2.0**-bits).reshape(len(index), *shape)
