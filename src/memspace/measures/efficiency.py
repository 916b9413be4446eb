"""What can be cut: accuracy and loss against the share of weights that remain, measured on a pruned copy.

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
    """Accuracy and loss by the share of weights that remain, each with 95% intervals.

    Args:
        method: by which weights are chosen.
        kept: (S,) shares.
        accuracy: (S,); empty where the output law has no classes.
        accuracy_ends: (S, 2) interval of the accuracy.
        loss: (S,) nats.
        loss_ends: (S, 2) interval of the loss.
        right: (S, n) 1 where an example is right; for sequences the share of its positions that are.
        n: examples.
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
    """Mark the entries of weight matrices.

    Args:
        space: the parameters.
        task: the network.

    Returns:
        (P,) True at entries of matrices, False at vectors.
    """
    parameters = space.parameters(task.model)
    return space.pack({n: torch.full_like(p, float(p.dim() > 1)).detach() for n, p in parameters.items()}) > 0.5


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
    """Cut the weights of least saliency, globally, to each share, without retraining.

    Args:
        task: the network.
        space: the parameters.
        saliency: (P,) what a weight is worth.
        method: name of the saliency.
        data: on which accuracy and loss are measured.
        index: (m,) examples of ``data``; None: all.
        kept: shares of the prunable weights that remain.
        progress: where the forward passes report.

    Returns:
        the curve over the shares.
    """
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
    """Measure accuracy and loss of networks given as flat weights.

    Args:
        task: the network.
        space: the parameters.
        networks: (P,) weights, one tensor per share.
        method: name of the curve.
        data: on which accuracy and loss are measured.
        index: (m,) examples of ``data``; None: all.
        kept: shares, one per network.
        progress: where the forward passes report.

    Returns:
        the curve over the shares.
    """
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
    """Find the smallest share that must be kept, over methods and grid at once, with 95% confidence over examples.

    For each method shares are tested from the largest down, by the paired interval of the change of accuracy. The
    first that fails ends the descent: in a fixed order no level is lost (Angelopoulos et al. 2021).
    The level is divided by the number of methods, so that choosing among them on the same examples is allowed.

    Args:
        curves: with the unpruned network first; all on the same examples.
        drop: loss of accuracy that is allowed.

    Returns:
        the share with its lower end and method; None where there are no accuracies.
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
