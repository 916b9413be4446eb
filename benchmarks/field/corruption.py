"""Wrong labels and shifted targets, planted: which, and how many, is the truth that a verdict is held against."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.field.networks import NETWORKS, train

__all__ = ["corrupted"]


def corrupted(
    x: Tensor, y: Tensor, law: str, outputs: int, share: float, kind: str, seed: int
) -> tuple[Tensor, Tensor]:
    """(targets, wrong): ``share`` of them wrong, at least one; wrong is (n,) bool."""
    wrong = torch.zeros(len(y), dtype=torch.bool)
    if share == 0:
        return y, wrong
    generator = torch.Generator().manual_seed(seed + 97)
    chosen = _chosen(x, y, law, outputs, max(1, round(share * len(y))), kind, seed, generator)
    wrong[chosen] = True
    given = y.clone()
    if law == "gaussian":
        sign = torch.randint(0, 2, (len(chosen), y.shape[1]), generator=generator) * 2.0 - 1
        size = 1 + torch.rand(len(chosen), y.shape[1], generator=generator)
        given[chosen] = y[chosen] + sign * size * y.std(0)
    elif kind == "pairs":
        given[chosen] = (y[chosen] + 1) % outputs
    else:
        shift = torch.randint(1, outputs, (len(chosen),), generator=generator)
        given[chosen] = (y[chosen] + shift) % outputs
    return given, wrong


def _chosen(
    x: Tensor, y: Tensor, law: str, outputs: int, m: int, kind: str, seed: int, generator: torch.Generator
) -> Tensor:
    if kind != "hard":
        return torch.randperm(len(y), generator=generator)[:m]
    # Hard: drawn with chances that grow with the loss of a linear model on the true labels.
    seen = x if x.is_floating_point() else _counts(x)
    judge = train(NETWORKS["linear"], seen, y, law, outputs, seed + 5)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(judge(seen), y, reduction="none")
    return torch.multinomial(loss.clamp_min(1e-3).double(), m, generator=generator)


def _counts(tokens: Tensor) -> Tensor:
    """How often each token occurs in an example (n, vocabulary), padding (token 0) left out."""
    counts = torch.zeros(len(tokens), int(tokens.max()) + 1)
    counts.scatter_add_(1, tokens.long(), torch.ones(tokens.shape))
    counts[:, 0] = 0
    return counts
