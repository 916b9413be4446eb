"""A small root of the Fisher information of many classes: the probable ones apart, all others merged into one.

The label z that tells only "class c" for the classes kept and "another one" for the rest is a function of the label y.
The score of z is the conditional mean of y's score. So the Fisher information H' of z is never above H of y (data
processing: Zamir 1998):
H − H' = Σ_rest p_c (e_c − q)(e_c − q)ᵀ, with q = p restricted to the rest and normalised, a matrix ≥ 0 whose trace is
R − Σ_rest p_c²/R, R = Σ_rest p_c.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["kept_classes", "lost_trace", "merged_root"]


def lost_trace(p: Tensor) -> Tensor:
    """Compute tr(H − H') by how many classes are kept.

    Args:
        p: probabilities (..., C), largest first.

    Returns:
        (..., C): entry k for the k first classes kept. Entry 0 is tr H = 1 − Σ p²; the last is 0: one class alone is
        not merged with any other.
    """
    # Summed from the smallest on, so that small tails keep their digits.
    rest = p.flip(-1).cumsum(-1).flip(-1)
    squares = p.square().flip(-1).cumsum(-1).flip(-1)
    lost = (rest - squares / rest.clamp_min(torch.finfo(p.dtype).tiny)).clamp_min(0)
    lost[..., -1] = 0
    return lost


def kept_classes(p: Tensor, share: float) -> Tensor:
    """Count the classes that must be kept so that at most a share of tr H is lost.

    Each position has a number of its own, so that it does not depend on which examples are read together.

    Args:
        p: probabilities (..., C), largest first.
        share: of tr H, in [0, 1).

    Returns:
        (...) whole numbers.
    """
    lost = lost_trace(p)
    return (lost > share * lost[..., :1]).sum(-1)


def merged_root(p: Tensor, share: float) -> Tensor:
    """Compute S' with S' S'ᵀ = H'.

    Column 0 is √R (q − p), the score of the merged class; column j is √p_c (e_c − p) for the j-th class kept, or zero
    where a position keeps fewer.

    Args:
        p: probabilities (..., C), in any order.
        share: of tr H that may be lost at each position.

    Returns:
        (..., C, 1 + K), K the most classes that any position keeps.
    """
    ordered, at = p.sort(-1, descending=True)
    count = kept_classes(ordered, share)
    most = int(count.max()) if count.numel() else 0
    keeps = torch.arange(most, device=p.device) < count.unsqueeze(-1)
    at, probable = at[..., :most], ordered[..., :most] * keeps
    r = probable.sqrt()
    merged = p - torch.zeros_like(p).scatter_(-1, at, probable)
    rest = merged.sum(-1, keepdim=True)
    root = p.new_zeros(*p.shape, 1 + most)
    root[..., 0] = merged / rest.clamp_min(torch.finfo(p.dtype).tiny).sqrt() - p * rest.sqrt()
    root[..., 1:].scatter_(-2, at.unsqueeze(-2), r.unsqueeze(-2))
    root[..., 1:] -= p.unsqueeze(-1) * r.unsqueeze(-2)
    return root
