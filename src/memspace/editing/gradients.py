"""Gradients of the summed loss at any weights, and inner products of every example's gradient with one vector."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.passes.linearise import FisherOperator, function_of_parameters
from memspace.passes.space import ParameterSpace
from memspace.task.checks import evaluating
from memspace.task.data import Data, move
from memspace.task.task import Task

__all__ = ["bregman_gradient", "gradient_products", "loss_gradient", "placed"]

BATCH = 512


def placed(task: Task, space: ParameterSpace, theta: Tensor | None) -> dict[str, Tensor]:
    """The parameters at flat ``theta`` (P,), or the model's own."""
    if theta is None:
        return {n: p.detach() for n, p in space.parameters(task.model).items()}
    return {n: t.to(task.dtype) for n, t in space.unpack(theta).items()}


def loss_gradient(
    task: Task,
    space: ParameterSpace,
    *,
    data: Data | None = None,
    index: Tensor | None = None,
    theta: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Σ_i w_i ∇ℓ_i over ``index`` of the data, (P,), float64; a sequence's loss is the sum over its positions.

    Args:
        theta: flat weights to be at instead of the model's.
        weights: one per example of ``index`` (default 1).
    """
    data = task.train if data is None else data
    total = torch.zeros(space.size, dtype=torch.float64, device=task.device)
    seen = 0
    at = {n: p.clone().requires_grad_() for n, p in placed(task, space, theta).items()}
    with evaluating(task.model):
        for part in data.batches(BATCH, index):
            with torch.enable_grad():
                f = function_of_parameters(task, move(part.x, task.device, task.dtype))(at)
                u = task.likelihood.residual(f.detach(), move(part.y, task.device))
                if weights is not None:
                    u = u * weights[seen : seen + len(part)].to(u).reshape(-1, *[1] * (u.dim() - 1))
                found = torch.autograd.grad(f, list(at.values()), u)
            total += space.pack(dict(zip(at, found, strict=True))).double()
            seen += len(part)
    return total


def bregman_gradient(task: Task, space: ParameterSpace, theta: Tensor, index: Tensor) -> Tensor:
    """The gradient in θ' of Σ_i D(f_i(θ'), f_i(θ)) over training examples, (P,), float64.

    D is the Bregman divergence of the loss: J'ᵀ(∇ℓ(f') − ∇ℓ(f)). For softmax it is KL(p_θ ‖ p_θ'); labels cancel
    (Bae et al. 2022, eq. 11).
    """
    total = torch.zeros(space.size, dtype=torch.float64, device=task.device)
    at = {n: p.clone().requires_grad_() for n, p in placed(task, space, theta).items()}
    own = placed(task, space, None)
    with evaluating(task.model):
        for part in task.train.batches(BATCH, index):
            outputs = function_of_parameters(task, move(part.x, task.device, task.dtype))
            y = move(part.y, task.device)
            with torch.no_grad():
                before = task.likelihood.residual(outputs(own), y)
            with torch.enable_grad():
                f = outputs(at)
                u = (task.likelihood.residual(f, y) - before).detach()
                found = torch.autograd.grad(f, list(at.values()), u)
            total += space.pack(dict(zip(at, found, strict=True))).double()
    return total


def gradient_products(task: Task, space: ParameterSpace, v: Tensor, *, index: Tensor | None = None) -> Tensor:
    """⟨∇ℓ_i, v⟩ of every training example (or those at ``index``), (n,), float64, exact: one forward-mode pass."""
    found = FisherOperator(task, space, index=index, batch=BATCH).directional(v)
    residual = task.likelihood.residual(found["f"].double(), found["y"])
    return (residual * found["moved"].double()).flatten(1).sum(1)
