"""Bounds on the errors of an approximate metric and of its solutions, beyond which they are not reliable.

There are three errors. The distance of a solution from the exact one in the norm of F is the root mean square error of
its scores, relative to the scores. The residual ‖b − Ax‖/‖b‖ is cheap but weighs stiff directions most. The fidelity
error is that of a product with a random vector and knows no right-hand side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.metric.conjugate import conjugate_gradients
from memspace.metric.krylov import Operator

__all__ = ["FIDELITY", "RESIDUAL", "SOLUTION", "SolutionError", "beyond", "solution_error"]

SOLUTION = 0.2  # two such errors still tell a score from zero and from one half as large
RESIDUAL = 1.0  # that of x = 0: beyond it the solution fulfils its equation worse than none
FIDELITY = 0.5  # of a product: beyond it cos² between it and the exact one is below 1 − 0.25 at best
ROUND, ROUNDS = 2, 4  # steps of conjugate gradients between two checks of the error, and checks at most
CLEAR = 0.25  # share of a bound: an error below it needs no further step


@dataclass(frozen=True)
class SolutionError:
    """Errors of solutions x of A x = b, A = F + γI.

    Args:
        relative: (k,) ‖x − x*‖_F/‖x*‖_F, with x* from conjugate gradients and their remaining error added.
        cosine: (k,) between x and x* in the norm of F: near 1 the order of scores holds, whatever their size.
        residual: (k,) ‖b − Ax‖/‖b‖.
        settled: whether the remaining error is too small to matter to the verdict; else ``relative`` is a lower bound.
        products: number of products computed, with stacks of k vectors.
    """

    relative: Tensor
    cosine: Tensor
    residual: Tensor
    settled: bool
    products: int

    @property
    def typical(self) -> float:
        """Root mean square of the relative errors over right-hand sides."""
        return float(self.relative.square().mean().sqrt())


def solution_error(
    operator: Operator, b: Tensor, x: Tensor, damping: float, preconditioner: Operator, bound: float = SOLUTION
) -> SolutionError:
    """Estimate the errors of approximate solutions, going on from them by conjugate gradients where needed.

    With r the residual, rᵀM̂⁻¹r ≈ ‖x − x*‖²_A estimates the remaining error from one product. Steps are taken only until
    that is small, or until the distance covered is beyond the bound by itself. That costs 1 product with F where the
    approximation is good, 4 at the second check, 13 at most.

    Args:
        operator: v ↦ F v on stacks (k, P), exact.
        b: (k, P) right-hand sides.
        x: (k, P) their approximate solutions.
        damping: γ of A = F + γI.
        preconditioner: r ↦ M̂⁻¹ r on stacks, the approximation that x was found with.
        bound: on the relative error, whose verdict is to be settled.

    Returns:
        The errors, and whether they settle the verdict.
    """
    start = x.double()
    b = b.double()
    image = operator(start).double()
    products, refined, refined_image = 1, start, image
    remainder = b - image - damping * start
    residual = remainder.norm(dim=1) / b.norm(dim=1).clamp_min(1e-300)
    for check in range(ROUNDS + 1):
        scale = (refined * refined_image).sum(1).clamp_min(1e-300)
        covered = ((refined - start) * (refined_image - image)).sum(1).clamp_min(0) / scale
        to_go = (remainder * preconditioner(remainder).double()).sum(1).clamp_min(0) / scale
        small = _root(to_go) <= CLEAR * bound
        settled = small or _root(covered) - _root(to_go) > bound
        if settled or check == ROUNDS:
            break
        step = conjugate_gradients(
            lambda p: operator(p) + damping * p, remainder, tolerance=1e-8, limit=ROUND, preconditioner=preconditioner
        )
        refined = refined + step.x
        refined_image = operator(refined).double()
        products += step.iterations + 1
        remainder = b - refined_image - damping * refined
    lengths = (scale * (start * image).sum(1).clamp_min(1e-300)).sqrt()
    cosine = ((start * refined_image).sum(1) / lengths).clamp(-1, 1)
    relative = (covered + to_go).sqrt() if small else covered.sqrt()
    return SolutionError(relative, cosine, residual, settled, products)


def _root(squares: Tensor) -> float:
    return math.sqrt(float(squares.mean())) if bool(torch.isfinite(squares).all()) else math.inf


def beyond(value: float, bound: float, what: str) -> str:
    """Say that a number is beyond its bound.

    Args:
        value: the number.
        bound: the largest reliable value.
        what: name of the number, the subject of the sentence.

    Returns:
        The sentence; empty where the number is within the bound.
    """
    if value <= bound:
        return ""
    return f"{what} is {value:.2g}, above {bound:g}, up to which it is reliable"
