"""A small network's parameters as a manifold: the whole metric at every point, for curvature and exact geodesics."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import jacfwd

from memspace.geometry.manifold import Manifold
from memspace.geometry.network_flow import embedded_outputs
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["Family"]


class Family(Manifold):
    """F + γI of a task's model as a function of its parameters θ (P,), in float64; P² numbers at a time.

    Args:
        task: the model, its law and data.
        index: training examples whose predictions make F (all where not given).
        damping: γ. Curvature needs an invertible metric: with γ = 0, no symmetry may be left in the parameters.
    """

    def __init__(self, task: Task, index: Tensor | None = None, damping: float = 0.0) -> None:
        self.space = ParameterSpace.of(task)
        self.size, self.damping = self.space.size, damping
        chosen = torch.arange(len(task.train)) if index is None else index
        self.embedding = embedded_outputs(task, self.space, chosen)

    def metric(self, x: Tensor) -> Tensor:
        """JᵀJ + γI."""
        frame = jacfwd(self.embedding)(x)
        whole: Tensor = frame.t() @ frame + self.damping * torch.eye(self.size, dtype=x.dtype, device=x.device)
        return whole
