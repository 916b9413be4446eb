"""One call for every way of pruning: which weights are set to zero, and what the others become."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from memspace.errors import TaskError
from memspace.measures.compensated import Pruned, PruneSettings, prune_compensated
from memspace.measures.efficiency import prunable
from memspace.measures.filters import filtered_layers, prune_filters
from memspace.metric.fisher import build
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.task.task import Task

__all__ = ["METHODS", "cut", "prune"]

METHODS = ("magnitude", "fisher-diagonal", "fisher-inverse", "geometric-median")


def cut(theta: Tensor, saliency: Tensor, mask: Tensor, shares: Sequence[float], method: str) -> list[Pruned]:
    """Set the weights of least saliency to zero, globally.

    Args:
        theta: (P,) weights.
        saliency: (P,) what a weight is worth.
        mask: (P,) True where a weight may go.
        shares: of these weights that remain.
        method: name of the saliency.

    Returns:
        one network for each share, the largest first.
    """
    order, total = torch.where(mask, saliency.to(theta), torch.inf).argsort(), int(mask.sum())
    networks = []
    for share in sorted(set(shares), reverse=True):
        remaining = torch.ones_like(mask)
        remaining[order[: total - round(share * total)]] = False
        networks.append(Pruned(method, share, torch.where(remaining, theta, torch.zeros_like(theta)), remaining))
    return networks


def prune(
    task: Task,
    space: ParameterSpace,
    method: str,
    shares: Sequence[float],
    *,
    surgery: PruneSettings | None = None,
    progress: Progress | None = None,
) -> list[Pruned]:
    """Remove entries of the weight matrices without retraining.

    Args:
        task: the network and its training data.
        space: the parameters.
        method: ``magnitude`` |θ|; ``fisher-diagonal`` ½ F_ii θ_i² (optimal brain damage, LeCun et al. 1990);
            ``fisher-inverse``, with compensation (``memspace.measures.compensated``); ``geometric-median``: whole
            filters (``memspace.measures.filters``), whose share is the largest possible below the one asked for.
        shares: of the entries that remain, in (0, 1].
        surgery: settings of ``fisher-inverse``, and the memory of ``fisher-diagonal``; None: the defaults.
        progress: where rounds report.

    Returns:
        one network for each share, the largest first.

    Raises:
        TaskError: geometric-median without a layer to filter, or one filter per layer exceeds the share.
        ValueError: an unknown method, or a share outside (0, 1].
    """
    if method not in METHODS:
        raise ValueError(f"the method is one of {', '.join(METHODS)}, got {method!r}")
    if not shares or not all(0 < s <= 1 for s in shares):
        raise ValueError(f"shares kept lie in (0, 1], got {list(shares)}")
    theta, mask = space.flat(task.model), prunable(space, task)
    if method == "magnitude":
        return cut(theta, theta.abs(), mask, shares, method)
    if method == "fisher-diagonal":
        diagonal = build(task, space, "diagonal", memory=(surgery or PruneSettings()).memory).diagonal()
        return cut(theta, 0.5 * diagonal.to(theta) * theta.square(), mask, shares, method)
    if method == "fisher-inverse":
        return prune_compensated(task, space, mask, shares, surgery, progress)
    if not filtered_layers(space):
        raise TaskError(
            "the network has no layer whose filters could go",
            where="geometric-median",
            remedy="prune single weights by another method",
        )
    networks = prune_filters(task, space, mask, shares)
    if len(networks) < len(set(shares)):
        raise TaskError(
            f"one filter in every layer still keeps more than {min(shares):.0%} of the weights",
            where="geometric-median",
            remedy="keep a larger share",
        )
    return networks
