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
    """Look parameters up by name.

    Args:
        task: the network.
        space: its parameters.
        theta: their values (P,); None: the model's own.

    Returns:
        name → tensor in the model's dtype.
    """
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
    """Sum Σ_i w_i ∇ℓ_i; a sequence's loss is the sum over its positions.

    Args:
        task: the network and its law.
        space: its parameters.
        data: examples; None: the training data.
        index: positions among them; None: all.
        theta: flat weights to be at instead of the model's.
        weights: one per example of ``index``; None: 1.

    Returns:
        the gradient (P,), float64, nats.
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
                gradients = torch.autograd.grad(f, list(at.values()), u)
            total += space.pack(dict(zip(at, gradients, strict=True))).double()
            seen += len(part)
    return total


def bregman_gradient(task: Task, space: ParameterSpace, theta: Tensor, index: Tensor) -> Tensor:
    """Differentiate Σ_i D(f_i(θ'), f_i(θ)) over training examples in θ'.

    D is the Bregman divergence of the loss: J'ᵀ(∇ℓ(f') − ∇ℓ(f)). For softmax it is KL(p_θ ‖ p_θ'); labels cancel
    (Bae et al. 2022, eq. 11).

    Args:
        task: the network at θ.
        space: its parameters.
        theta: θ' (P,).
        index: positions of the training examples.

    Returns:
        the gradient (P,), float64, nats.
    """
    total = torch.zeros(space.size, dtype=torch.float64, device=task.device)
    at = {n: p.clone().requires_grad_() for n, p in placed(task, space, theta).items()}
    now = placed(task, space, None)
    with evaluating(task.model):
        for part in task.train.batches(BATCH, index):
            outputs = function_of_parameters(task, move(part.x, task.device, task.dtype))
            y = move(part.y, task.device)
            with torch.no_grad():
                before = task.likelihood.residual(outputs(now), y)
            with torch.enable_grad():
                f = outputs(at)
                u = (task.likelihood.residual(f, y) - before).detach()
                gradients = torch.autograd.grad(f, list(at.values()), u)
            total += space.pack(dict(zip(at, gradients, strict=True))).double()
    return total


def gradient_products(task: Task, space: ParameterSpace, v: Tensor, *, index: Tensor | None = None) -> Tensor:
    """Compute ⟨∇ℓ_i, v⟩ of training examples, exactly, by one forward-mode pass.

    Args:
        task: the network and its law.
        space: its parameters.
        v: (P,).
        index: positions of the examples; None: all.

    Returns:
        (n,) float64.
    """
    columns = FisherOperator(task, space, index=index, batch=BATCH).directional(v)
    residual = task.likelihood.residual(columns["f"].double(), columns["y"])
    return (residual * columns["moved"].double()).flatten(1).sum(1)
