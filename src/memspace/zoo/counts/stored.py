"""Bits of its training labels that a network holds, beyond what their frequencies say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["StoredLabels", "label_entropy", "stored_labels"]

LN2 = math.log(2.0)


@dataclass(frozen=True)
class StoredLabels:
    """Bits of labels.

    Args:
        offered: N·H, H the entropy of the labels' frequencies.
        bits: Σ (H − CE_i/ln 2): what is saved when the labels are sent with the network's predictions instead of their
            frequencies. Negative where it predicts worse than these. The frequencies themselves, at most
            (K − 1)/2·log2 N bits, count as stored where it has learned nothing else.
        error: its standard error over examples, √m times the spread of their sums.
        labels: N.
        right: share of labels that are the most probable class.
    """

    offered: float
    bits: float
    error: float
    labels: int
    right: float


def label_entropy(y: Tensor) -> float:
    """Compute the entropy of labels' frequencies.

    Args:
        y: labels, any shape.

    Returns:
        Bits a label.
    """
    shares = torch.bincount(y.flatten()).double() / y.numel()
    return float(torch.special.entr(shares).sum()) / LN2


def stored_labels(f: Tensor, y: Tensor) -> StoredLabels:
    """Count the bits of labels that outputs hold.

    Args:
        f: (m, ..., K) outputs.
        y: (m, ...) labels as the network was trained on them.

    Returns:
        The count.
    """
    entropy = label_entropy(y)
    nll = nn.functional.cross_entropy(f.double().flatten(0, -2), y.flatten(), reduction="none")
    saved = (entropy - nll / LN2).reshape(len(y), -1).sum(1)  # an example's positions are not independent
    error = math.sqrt(len(saved)) * float(saved.std()) if len(saved) > 1 else math.inf
    right = float((f.argmax(-1) == y).double().mean())
    return StoredLabels(entropy * y.numel(), float(saved.sum()), error, y.numel(), right)
