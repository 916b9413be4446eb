"""Decisions, and how far the outputs are from changing one: gaps and Fisher–Rao distances to the boundary.

A *gap* is linear in the outputs and positive while the decision stands: f_y − f_k for each other class k of a
categorical law, ±f_k for each label of a Bernoulli law. The decision changes where a gap reaches zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from memspace.task.likelihood import Bernoulli, Categorical, Likelihood

__all__ = ["boundary_distance", "decides", "gap_rows", "gaps", "largest_information"]


def decides(likelihood: Likelihood) -> bool:
    """Whether the law's predictions are decisions, with a boundary between them."""
    return isinstance(likelihood, Categorical | Bernoulli)


def gaps(likelihood: Likelihood, f: Tensor, decision: Tensor) -> Tensor:
    """(n, C) gaps of outputs ``f`` (n, C) for a decision as ``likelihood.predict`` gives it; infinite for y itself."""
    if isinstance(likelihood, Bernoulli):
        return f * (2 * decision - 1)
    own = decision.unsqueeze(-1)
    return (f.gather(-1, own) - f).scatter(-1, own, math.inf)


def gap_rows(likelihood: Likelihood, jacobian: Tensor, decision: Tensor) -> Tensor:
    """Gradients of the gaps, (n, C, D), from those of the outputs; zero for y itself."""
    if isinstance(likelihood, Bernoulli):
        return jacobian * (2 * decision - 1).unsqueeze(-1)
    own = decision.reshape(-1, 1, 1).expand(-1, 1, jacobian.shape[-1])
    return jacobian.gather(1, own) - jacobian


def boundary_distance(likelihood: Likelihood, f: Tensor) -> Tensor:
    """Fisher–Rao distance (n,), nats^½, from p(·|f) to the nearest law with another decision; exact.

    Categorical: √p lies on a sphere of radius 2, the boundary in the hyperplanes √p_y = √p_k, so the distance is
    2 arcsin((√p_y − √p_k)/√2) to the runner-up k; at most π/2. Bernoulli: the least 2|arcsin √p_k − π/4|.
    """
    f = f.double()
    if isinstance(likelihood, Bernoulli):
        return (2 * (torch.atan(torch.exp(f.abs() / 2)) - math.pi / 4)).amin(-1)
    root = torch.softmax(f, -1).sqrt().topk(2, -1).values
    return 2 * torch.asin((root[..., 0] - root[..., 1]) / math.sqrt(2))


def largest_information(likelihood: Likelihood) -> float:
    """The least upper bound over all outputs of λ_max(H): ½ for a categorical law, ¼ for a Bernoulli law."""
    return 0.25 if isinstance(likelihood, Bernoulli) else 0.5
