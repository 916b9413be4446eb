"""Outcomes of networks on chosen examples: what a retraining study measures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.errors import DataError
from memspace.task.checks import evaluating
from memspace.task.data import Data, Inputs, call_model, move, take
from memspace.task.likelihood import Likelihood
from memspace.task.task import Task
from memspace.training.loss import example_losses

__all__ = ["OutcomeQueries", "measured", "outcomes", "queries_of"]

BATCH = 512


@dataclass(frozen=True)
class OutcomeQueries:
    """Q examples whose outcomes are measured.

    Args:
        x: inputs.
        y: labels.
        split: ``"train"`` or ``"test"`` of each.
        index: positions there, (Q,).
    """

    x: Inputs
    y: Tensor
    split: tuple[str, ...]
    index: Tensor

    def __len__(self) -> int:
        return len(self.y)


def queries_of(task: Task, *, train: Tensor | None = None, test: Tensor | None = None) -> OutcomeQueries:
    """Take training examples and test examples as queries, in this order.

    Args:
        task: with the data.
        train: positions in the training data.
        test: positions in the test data.

    Returns:
        The queries, on the task's device.

    Raises:
        DataError: none are asked for, positions that are not there, or test examples of a task that has none.
    """
    parts: list[tuple[str, Data | None, Tensor]] = []
    if train is not None and len(train):
        parts.append(("train", task.train, train))
    if test is not None and len(test):
        parts.append(("test", task.test, test))
    batches = []
    for name, data, at in parts:
        if data is None or int(at.min()) < 0 or int(at.max()) >= len(data):
            have = "no examples" if data is None else f"{len(data):,} examples"
            raise DataError(
                f"queries at {int(at.min())}..{int(at.max())} of the {name} data, which hold {have}",
                where=task.name,
                remedy="ask for positions that are there",
            )
        batches.append(data.batch(at))
    if not batches:
        raise DataError("no queries are given", where=task.name, remedy="name training or test examples")
    split = tuple(name for name, _, at in parts for _ in range(len(at)))
    xs = [move(b.x, task.device) for b in batches]
    x = xs[0] if len(xs) == 1 else _below(xs[0], xs[1])
    return OutcomeQueries(
        x, torch.cat([b.y for b in batches]).to(task.device), split, torch.cat([b.index for b in batches])
    )


def _below(a: Inputs, b: Inputs) -> Inputs:
    if isinstance(a, Tensor):
        return torch.cat([a, b])
    if isinstance(a, dict):
        return {k: _below(a[k], b[k]) for k in a}
    return tuple(_below(s, t) for s, t in zip(a, b, strict=True))


def outcomes(likelihood: Likelihood, f: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Compute a network's outcomes from its outputs.

    The margin is log p_y − log(1 − p_y) = f_y − log Σ_{c≠y} exp f_c (Park et al. 2023, eq. 3); ``correct`` is 1 where
    the most probable class is the label. Of a sequence: means over the positions that count.

    Args:
        likelihood: the output law.
        f: outputs (Q, ..., C).
        y: labels.

    Returns:
        ``loss`` (Q,), nats, and where there are classes ``margin`` and ``correct``.
    """
    loss = example_losses(likelihood, f, y)
    margin = None if y.is_floating_point() else likelihood.log_odds(f, y.clamp_min(0))
    if margin is None:
        return {"loss": loss}
    right = likelihood.hits(f, y)
    counted = likelihood.weight(f, y)

    def mean(t: Tensor) -> Tensor:
        if t.dim() == 1:
            return t
        return (t * counted).flatten(1).sum(1) / counted.flatten(1).sum(1).clamp_min(1)

    return {"loss": loss, "margin": mean(margin), "correct": mean(right)}


@torch.no_grad()
def measured(model: nn.Module, queries: OutcomeQueries, likelihood: Likelihood) -> dict[str, Tensor]:
    """Measure a network on the queries, in eval mode, on the CPU in float64.

    Args:
        model: the network.
        queries: Q examples.
        likelihood: the output law.

    Returns:
        Outcomes (Q,) by name.
    """
    first = next(model.parameters())
    parts = []
    with evaluating(model):
        for start in range(0, len(queries), BATCH):
            span = slice(start, start + BATCH)
            x = move(take(queries.x, span), first.device, first.dtype)
            y = queries.y[span].to(first.device)
            f = call_model(model, x)
            parts.append(outcomes(likelihood, f.double(), y if not y.is_floating_point() else y.double()))
    return {k: torch.cat([p[k] for p in parts]).cpu() for k in parts[0]}
