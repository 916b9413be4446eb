"""Questions about subsets that leave out a share of the data: the share, and subsets that treat all examples alike."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.errors import TaskError

__all__ = ["checked_share", "kept_parts"]


def checked_share(left_out: float) -> float:
    """Check the share of the examples that a question leaves out.

    Args:
        left_out: the share.

    Returns:
        the same.

    Raises:
        TaskError: it is not from 0 to below 1.
    """
    if not 0 <= left_out < 1:
        raise TaskError(
            f"a share of {left_out:g} of the examples cannot be left out",
            where="left_out",
            remedy="give a share from 0 to below 1",
        )
    return left_out


def kept_parts(n: int, left_out: float, count: int, seed: int) -> Tensor:
    """Draw the examples that stay when each of several networks leaves out a share of them.

    What is left out are consecutive pieces of a shuffle, a new one when a whole piece no longer fits: halves come as
    complementary pairs, and every example is left out as often as every other, up to one shuffle's rest.

    Args:
        n: number of examples.
        left_out: share that each network leaves out.
        count: number of networks.
        seed: of the shuffles.

    Returns:
        positions (count, n − out), increasing.
    """
    out = min(round(left_out * n), n - 1)
    if not out:
        return torch.arange(n).expand(count, n)
    generator = torch.Generator().manual_seed(seed + 6151)
    parts: list[Tensor] = []
    while len(parts) < count:
        order = torch.randperm(n, generator=generator)
        for lo in range(0, n - out + 1, out):
            parts.append(torch.cat([order[:lo], order[lo + out :]]).sort().values)
    return torch.stack(parts[:count])
