"""The share of a network's weights that can be cut while its training loss rises by no more than is allowed."""

from __future__ import annotations

import numpy as np
import torch

from memspace.measures.efficiency import PruningCurve, accuracy_curve
from memspace.measures.pruning import prune
from memspace.passes.space import ParameterSpace
from memspace.progress import Silent
from memspace.task.task import Task
from memspace.value import Value

__all__ = ["SHARES", "cut_share", "share_cut"]

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)  # of the weights kept


def cut_share(task: Task, space: ParameterSpace, method: str, *, examples: int, rise: float) -> Value:
    """Measure the share of weights that can be cut: copies are pruned, until the training loss has risen by so much.

    The loss is that of training: networks that were trained to one loss are then cut to one loss too, and what they do
    on test data plays no part.

    Args:
        task: the network and its training data.
        space: the parameters.
        method: of :func:`memspace.measures.pruning.prune`.
        examples: training examples, at most.
        rise: of the loss, nats.

    Returns:
        Share of the weights of matrices, as :func:`share_cut` has it.
    """
    networks = prune(task, space, method, SHARES)
    curve = accuracy_curve(
        task,
        space,
        [space.flat(task.model), *(n.flat for n in networks)],
        method,
        data=task.train,
        index=torch.arange(min(examples, len(task.train))),
        kept=(1.0, *(n.share for n in networks)),
        progress=Silent(),
    )
    return share_cut(curve, rise)


def share_cut(curve: PruningCurve, rise: float) -> Value:
    """Compute the first share cut at which the loss has risen by a given amount, on straight lines between shares.

    Args:
        curve: with the whole network first.
        rise: of the loss, nats.

    Returns:
        The share; its interval is where the ends of the 95% intervals of the losses cross. These are not paired with
        the whole network's loss, so it is wider than it need be.
    """
    allowed = float(curve.loss[0]) + rise
    low, high = (_crossing(curve.kept, ends, allowed) for ends in (curve.loss_ends[:, 1], curve.loss_ends[:, 0]))
    return Value(_crossing(curve.kept, curve.loss, allowed), curve.n, (low, high), how="training data")


def _crossing(kept: np.ndarray, loss: np.ndarray, allowed: float) -> float:
    """Share cut where the loss first exceeds what is allowed; the most that was tried where it never does."""
    over = np.flatnonzero(loss > allowed)
    if not len(over):
        return float(1 - kept[-1])
    k = int(over[0])
    if k == 0:
        return 0.0
    part = (allowed - loss[k - 1]) / (loss[k] - loss[k - 1])
    return float(1 - (kept[k - 1] + part * (kept[k] - kept[k - 1])))
