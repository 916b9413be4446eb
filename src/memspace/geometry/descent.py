"""Minimising a smooth function of a tensor by L-BFGS, in coordinates in which it is nearly round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CHUNK", "Minimum", "descend"]

CHUNK = 20  # evaluations between two looks at the progress
HISTORY = 20
HELD = 2**27  # numbers of the history held at most (1 GiB)


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended.

    Args:
        x: the point; value: the function there.
        evaluations: of the function and its gradient.
        remaining: ½‖∇_z‖²/(2·value), the share of the value that a Newton step would still gain if the curvature in
            the preconditioned coordinates were 2 (as it is for the energy of a string with the right preconditioner).
        converged: the last evaluations lowered the value by less than the tolerance.
    """

    x: Tensor
    value: float
    evaluations: int
    remaining: float
    converged: bool


def descend(
    objective: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    root: Callable[[Tensor], Tensor] | None = None,
    limit: int = 400,
    tolerance: float = 1e-5,
    told: Callable[[float], None] | None = None,
) -> Minimum:
    """Minimise ``objective(start + root(z))`` over z by L-BFGS with strong Wolfe steps, in float64.

    Args:
        root: linear, z ↦ M^{-½} z for an M near the Hessian: the coordinates in which L-BFGS runs.
        limit: evaluations at most; tolerance: stop when a chunk of evaluations lowers the value by less than this
            share.
        told: called with the value after every chunk.
    """
    z = torch.zeros_like(start, dtype=torch.float64, requires_grad=True)
    history = max(3, min(HISTORY, HELD // (2 * max(1, z.numel()))))

    def at(z: Tensor) -> Tensor:
        moved = z if root is None else root(z)
        return start + moved.to(start.dtype)

    optimiser = torch.optim.LBFGS(
        [z],
        max_iter=CHUNK,
        max_eval=CHUNK,
        history_size=history,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    best, used = (float("inf"), z.detach().clone(), 0.0), 0

    def closure() -> Tensor:
        nonlocal best, used
        optimiser.zero_grad()
        value = objective(at(z))
        torch.autograd.backward(value)
        used += 1
        found = float(value.detach())
        assert z.grad is not None
        if found < best[0]:
            best = (found, z.detach().clone(), float(z.grad.square().sum()))
        return value.detach()

    before, converged = float("inf"), False
    while used < limit and not converged:
        optimiser.step(closure)  # type: ignore[no-untyped-call]
        if told is not None:
            told(best[0])
        converged = before - best[0] <= tolerance * abs(best[0])
        before = best[0]
    value, found, squared = best
    remaining = squared / (4 * abs(value)) if value else 0.0
    return Minimum(at(found).detach(), value, used, remaining, converged)
