"""What can be cut: accuracy and loss against the share of weights kept, measured on a pruned copy.

Saliencies: magnitude |θ|, and optimal brain damage ½ F_ii θ_i² (LeCun et al. 1990) with the exact or
Monte-Carlo Fisher diagonal. Only weight matrices are cut; biases and norm layers stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memspace.intervals import LEVEL, of_change, of_mean
from memspace.measurement import from_share
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["Needed", "PruningCurve", "accuracy_curve", "needed_share", "prunable", "pruning_curve"]


@dataclass(frozen=True)
class PruningCurve:
    """Per share kept: accuracy and loss on ``n`` examples, with 95% intervals (S, 2).

    Args:
        accuracy, accuracy_ends: empty where the output law has no classes.
        right: (S, n) 1 where an example is right, for sequences the share of its positions that are.
    """

    method: str
    kept: np.ndarray
    accuracy: np.ndarray
    accuracy_ends: np.ndarray
    loss: np.ndarray
    loss_ends: np.ndarray
    right: np.ndarray
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
    law = task.likelihood
    accuracies, accuracy_ends, losses, loss_ends, rights, n = [], [], [], [], [], 0
    for flat in progress.track(networks, f"pruning by {method}", len(kept)):
        f, y = outputs(task, data, state=space.unpack(flat), index=index)
        n, weight = len(f), law.weight(f, y).double()
        counts = weight.flatten() > 0
        groups = (
            torch.arange(n, device=f.device).reshape(-1, *[1] * (weight.dim() - 1)).expand_as(weight).flatten()[counts]
        )
        of = groups.cpu().numpy() if weight.dim() > 1 else None  # positions of one sequence are one draw
        loss = law.nll(f.double(), y).reshape(weight.shape).flatten()[counts]
        losses.append(float(loss.mean()))
        ends = of_mean(loss, groups=of, lower=-math.inf if law.continuous else 0.0).ends
        loss_ends.append(ends or (math.nan, math.nan))
        if law.classifies:
            hit = law.hits(f, y).double()
            hit = (hit.mean(-1) if hit.dim() > weight.dim() else hit).flatten()[counts]
            share = from_share("accuracy", hit, "share right", groups=of)
            accuracies.append(share.value)
            accuracy_ends.append(share.interval or (math.nan, math.nan))
            total = torch.zeros(n, dtype=torch.float64, device=f.device)
            right, number = total.index_add(0, groups, hit), total.index_add(0, groups, torch.ones_like(hit))
            rights.append((right / number.clamp_min(1)).cpu().numpy())
    return PruningCurve(
        method,
        np.asarray(kept),
        np.asarray(accuracies),
        np.asarray(accuracy_ends),
        np.asarray(losses),
        np.asarray(loss_ends),
        np.asarray(rights),
        n,
    )


@dataclass(frozen=True)
class Needed:
    """The share of weights that must be kept for an accuracy within ``drop`` of the unpruned one, on a grid.

    Args:
        share: the smallest that the examples confirm; 1 where they confirm none.
        low: the smallest that they do not refute.
        method: the one that reaches ``share``.
    """

    share: float
    low: float
    method: str


def needed_share(curves: Sequence[PruningCurve], drop: float = 0.01) -> Needed | None:
    """What must be kept, over methods and grid at once: true in 95 of 100 samples of examples.

    For each method shares are tested from the largest down, by the paired interval of the change of accuracy, and the
    first that fails ends the descent: in a fixed order no level is lost (Angelopoulos et al. 2021).
    The level is divided by the number of methods, so that choosing among them on the same examples is allowed.

    Args:
        curves: with the unpruned network first; all on the same examples.

    Returns:
        None where there are no accuracies.
    """
    measured = [c for c in curves if len(c.accuracy)]
    if not measured:
        return None
    best, low, method = 1.0, 1.0, measured[0].method
    for c in measured:
        confirmed = possible = float(c.kept[0])
        sure = True
        for k in range(1, len(c.kept)):
            ends = of_change(c.right[0], c.right[k], level=1 - (1 - LEVEL) / len(measured)).ends
            if ends is None or ends[1] < -drop:
                break
            possible = float(c.kept[k])
            sure = sure and ends[0] >= -drop
            if sure:
                confirmed = possible
        low = min(low, possible)
        if confirmed < best:
            best, method = confirmed, c.method
    return Needed(best, low, method)
