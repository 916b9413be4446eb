"""What can be cut: accuracy and loss against the share of weights kept, measured on a pruned copy.

Saliencies: magnitude |θ|, and optimal brain damage ½ F_ii θ_i² (LeCun, Denker & Solla 1990) with the exact or
Monte-Carlo Fisher diagonal. Only weight matrices are cut; biases and norm layers stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memspace.passes.outputs import outputs
from memspace.progress import Progress
from memspace.task.data import Data
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["PruningCurve", "accuracy_curve", "prunable", "pruning_curve", "smallest_share"]


@dataclass(frozen=True)
class PruningCurve:
    """Per share kept: accuracy and loss on ``n`` examples, with binomial and sample standard errors."""

    method: str
    kept: np.ndarray
    accuracy: np.ndarray
    accuracy_error: np.ndarray
    loss: np.ndarray
    loss_error: np.ndarray
    n: int


def prunable(space: ParameterSpace, task: Task) -> Tensor:
    """True for the entries of weight matrices, flat (P,)."""
    own = space.parameters(task.model)
    return space.pack({n: torch.full_like(p, float(p.dim() > 1)).detach() for n, p in own.items()}) > 0.5


def pruning_curve(
    task: Task,
    space: ParameterSpace,
    saliency: Tensor,
    method: str,
    *,
    data: Data,
    index: Tensor | None,
    kept: tuple[float, ...],
    progress: Progress,
) -> PruningCurve:
    """Cut the weights of least saliency, globally, to each share of ``kept``, without retraining."""
    theta, mask = space.flat(task.model), prunable(space, task)
    order = torch.where(mask, saliency.to(theta), torch.inf).argsort()
    total = int(mask.sum())

    def networks() -> Iterator[Tensor]:
        for share in kept:
            moved = theta.clone()
            moved[order[: total - round(share * total)]] = 0
            yield moved

    return accuracy_curve(task, space, networks(), method, data=data, index=index, kept=kept, progress=progress)


def accuracy_curve(
    task: Task,
    space: ParameterSpace,
    networks: Iterable[Tensor],
    method: str,
    *,
    data: Data,
    index: Tensor | None,
    kept: Sequence[float],
    progress: Progress,
) -> PruningCurve:
    """Accuracy and loss of networks given as flat weights, one per share of ``kept``."""
    acc, acc_error, losses, loss_errors, n = [], [], [], [], 0
    for flat in progress.track(networks, f"pruning by {method}", len(kept)):
        f, y = outputs(task, data, state=space.unpack(flat), index=index)
        weight = task.likelihood.weight(f, y)
        loss = task.likelihood.nll(f.double(), y)
        units = float(weight.sum())
        losses.append(float(loss.sum()) / units)
        loss_errors.append(float(loss.flatten().std()) / units**0.5)
        if task.likelihood.classifies:
            hit = (task.likelihood.predict(f) == y).double()
            hit = hit.mean(-1) if hit.dim() > weight.dim() else hit * weight
            a = float(hit.sum()) / units
            acc.append(a)
            acc_error.append((max(a * (1 - a), 1 / units) / units) ** 0.5)
        n = len(f)
    return PruningCurve(
        method, np.asarray(kept), np.asarray(acc), np.asarray(acc_error), np.asarray(losses), np.asarray(loss_errors), n
    )


def smallest_share(curve: PruningCurve, drop: float = 0.01) -> float | None:
    """The smallest share kept with accuracy within ``drop`` of the unpruned (first) entry, all larger shares too."""
    if not len(curve.accuracy):
        return None
    fine = curve.accuracy >= curve.accuracy[0] - drop
    last = 0
    while last + 1 < len(fine) and fine[last + 1]:
        last += 1
    return float(curve.kept[last])
