"""Leave-one-out of a convex model by N trainings: the truth that an estimate of it is held against."""

from __future__ import annotations

import copy

import torch
from torch import nn

from benchmarks.field.networks import LAWS, Network, loss_of
from benchmarks.field.truths import Draw

__all__ = ["exact_leave_one_out"]


def exact_leave_one_out(network: Network, model: nn.Module, draw: Draw, law: str) -> float:
    """Mean loss (nats) of each example under the minimum without it; every training begins at the common minimum.

    The penalty stays what it is for the mean over all N examples: leaving one out takes its loss away, no more.
    """
    likelihood = LAWS[law]()
    x = draw.x.double()
    y = draw.y.double() if draw.y.is_floating_point() else draw.y
    n, decay = len(x), network.recipe.decay
    losses = []
    for i in range(n):
        fresh = copy.deepcopy(model).double()
        keep = torch.arange(n) != i
        _minimise(fresh, x[keep], y[keep], law, (n - 1) / n, decay)
        with torch.no_grad():
            losses.append(float(likelihood.nll(fresh(x[i : i + 1]), y[i : i + 1]).sum()))
    return sum(losses) / n


def _minimise(model: nn.Module, x: torch.Tensor, y: torch.Tensor, law: str, scale: float, decay: float) -> None:
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=100, tolerance_grad=1e-8, tolerance_change=1e-13, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        penalty = sum((p.square().sum() for p in model.parameters()), torch.zeros((), dtype=torch.float64))
        loss = scale * loss_of(law, model(x), y) + decay / 2 * penalty
        loss.backward()
        return loss

    optimiser.step(closure)
