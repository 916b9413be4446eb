"""Leave-one-out predictions without retraining, from per-example leverage.

f_i^(−i) = f_i + V_i (I − H_i V_i)⁻¹ g_i with V_i = J_i M⁻¹ J_iᵀ: exact for ridge regression, one Newton step of the
model without example i otherwise (approximate leave-one-out for generalised linear models on the tangent features).
"""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.task.likelihood import Likelihood

__all__ = ["first_order_losses", "loo_outputs", "self_influence", "settled_outputs"]

NEARER = 0.9  # of the least error so far, above which a step is halved


def loo_outputs(likelihood: Likelihood, f: Tensor, y: Tensor, leverage: Tensor, *, own: bool = True) -> Tensor:
    """Compute the outputs each example would get from the model trained without it.

    f_i^(−i) = f_i + V_i (I − H_i V_i)⁻¹ g_i; exact for ridge regression, else one Newton step (rad2020).

    Args:
        likelihood: the output law.
        f: (n, C) outputs.
        y: labels.
        leverage: (n, C, C) V at M = N(F + γI).
        own: whether M contains the example's own curvature J_iᵀH_iJ_i, so that H_i V_i < 1: true of an exact F. An
            EKFAC's eigenvalues are averages in common bases, without what is particular to one example. Its leverage
            can come out far above one (54 was seen), where the inverse has no meaning. There V_i stands for the
            leverage in the model without the example, V_i (I − H_i V_i)⁻¹, and f_i^(−i) = f_i + V_i g_i.

    Returns:
        (n, C) float64.
    """
    f, v = f.double(), leverage.double()
    if not own:
        return torch.add(f, torch.einsum("ncd,nd->nc", v, likelihood.residual(f, y)))
    root = likelihood.fisher_root(f)
    h = root @ root.transpose(1, 2)
    eye = torch.eye(f.shape[1], dtype=f.dtype, device=f.device)
    pull: Tensor = torch.linalg.solve(eye - h @ v, likelihood.residual(f, y).unsqueeze(-1))
    return torch.add(f, (v @ pull).squeeze(-1))


def self_influence(likelihood: Likelihood, f: Tensor, y: Tensor, leverage: Tensor) -> Tensor:
    """Compute g_iᵀ V_i g_i, the rise of an example's own loss when it is left out, to first order.

    Args:
        likelihood: the output law.
        f: (n, C) outputs.
        y: labels.
        leverage: (n, C, C) V.

    Returns:
        (n,) nats.
    """
    r = likelihood.residual(f.double(), y)
    return torch.einsum("nc,ncd,nd->n", r, leverage.double(), r)


def first_order_losses(loss: Tensor, influence: Tensor) -> Tensor:
    """Add self-influence to the loss: leave-one-out losses to first order, for sequences, whose V_i are too large.

    Args:
        loss: (n,) nats.
        influence: (n,) self-influence, nats.

    Returns:
        (n,) nats, float64.
    """
    return loss.double() + influence.double()


def settled_outputs(likelihood: Likelihood, f: Tensor, y: Tensor, gram: Tensor, rounds: int = 100) -> Tensor | None:
    """Compute the outputs of the exact optimum without each example, where outputs are affine in the weights.

    With θ' = θ + M⁻¹Jᵀc the gradient without example i is Jᵀe, e = ∂ℓ'_{−i} − ∂ℓ + c − HKc. Newton steps at the Hessian
    of θ without i move c; the first of them is :func:`loo_outputs`.

    Args:
        likelihood: the output law.
        f: (n, C) outputs at the optimum.
        y: (n,) labels.
        gram: (nC, nC) K = J M⁻¹ Jᵀ at M = N(F + γI).
        rounds: Newton steps at most.

    Returns:
        (n, C) float64; None where the steps do not converge.
    """
    f, k = f.double(), gram.double()
    n, c = f.shape
    example = torch.arange(n, device=f.device)
    root = likelihood.fisher_root(f)
    h = root @ root.transpose(1, 2)
    blocks = k.reshape(n, c, n, c)[example, :, example]
    eye = torch.eye(c, dtype=f.dtype, device=f.device)
    pull = torch.linalg.solve(eye - h @ blocks, h)  # (I − HV)⁻¹H of each example
    slope = likelihood.residual(f, y)
    labels = y.repeat(n, *[1] * (y.dim() - 1))
    at = torch.zeros(n, n, c, dtype=f.dtype, device=f.device)
    step, least = f.new_ones(n, 1, 1), f.new_full((n,), float("inf"))
    for _ in range(rounds):
        shift = (at.reshape(n, n * c) @ k).reshape(n, n, c)
        there = likelihood.residual((f + shift).reshape(n * n, c), labels).reshape(n, n, c)
        there[example, example] = 0.0
        error = there - slope + at - torch.einsum("jcd,ijd->ijc", h, shift)
        through = (error.reshape(n, n * c) @ k).reshape(n, n, c)[example, example]
        error[example, example] += torch.einsum("ncd,nd->nc", pull, through)
        moved = error.abs().amax((1, 2))
        if not bool(torch.isfinite(moved).all()):
            return None
        # The Hessian stays that of θ: where the optimum lies far from it, whole steps oscillate.
        step[moved > NEARER * least] /= 2
        least = torch.minimum(least, moved)
        at = at - step * error
        if float(moved.max()) < 1e-9:
            break
    settled: Tensor = f + (at.reshape(n, n * c) @ k).reshape(n, n, c)[example, example]
    return settled if float(moved.max()) < 1e-4 else None
