"""Minimising a smooth function of a tensor by L-BFGS, in coordinates in which it is nearly round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CHUNK", "Minimum", "descend"]

CHUNK = 20  # evaluations between two reports of progress
HISTORY = 20
MEMORY = 2**27  # numbers of the history at most (1 GiB)


@dataclass(frozen=True)
class Minimum:
    """The end of a minimisation.

    Args:
        x: the point.
        value: the function there.
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
    report: Callable[[float], None] | None = None,
) -> Minimum:
    """Minimise ``objective(start + root(z))`` over z by L-BFGS with strong Wolfe steps, in float64.

    Args:
        objective: point ↦ scalar, differentiable.
        start: the point to start from, of any shape.
        root: linear, z ↦ M^{-½} z for an M near the Hessian: the coordinates in which L-BFGS runs.
        limit: evaluations at most.
        tolerance: stop when a chunk of evaluations lowers the value by less than this share.
        report: called with the value after every chunk.

    Returns:
        The lowest point met.
    """
    z = torch.zeros_like(start, dtype=torch.float64, requires_grad=True)
    history = max(3, min(HISTORY, MEMORY // (2 * max(1, z.numel()))))

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
        reached = float(value.detach())
        assert z.grad is not None
        if reached < best[0]:
            best = (reached, z.detach().clone(), float(z.grad.square().sum()))
        return value.detach()

    before, converged = float("inf"), False
    while used < limit and not converged:
        optimiser.step(closure)  # type: ignore[no-untyped-call]
        if report is not None:
            report(best[0])
        converged = before - best[0] <= tolerance * abs(best[0])
        before = best[0]
    value, lowest, squared = best
    remaining = squared / (4 * abs(value)) if value else 0.0
    return Minimum(at(lowest).detach(), value, used, remaining, converged)
