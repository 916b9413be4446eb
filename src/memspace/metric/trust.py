"""From which error on an approximate metric, and what is solved with it, is not to be relied on.

Three readings of one question. The distance of a solution from the exact one, in the norm of F, is the root of the
mean square by which the scores made of it are wrong, relative to the scores. The residual ‖b − Ax‖/‖b‖ is cheap but
weighs stiff directions most; the fidelity error is that of a product with a random vector and knows no right-hand side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.metric.conjugate import conjugate_gradients
from memspace.metric.krylov import Operator

__all__ = ["FIDELITY", "RESIDUAL", "SOLUTION", "SolutionError", "beyond", "solution_error"]

SOLUTION = 0.2  # a score stands for more than nought, and apart from one half as large, within two such errors
RESIDUAL = 1.0  # what x = 0 leaves: beyond it the solution fulfils its equation worse than none
FIDELITY = 0.5  # of a product: beyond it less than seven eighths of its direction is right (cos² = 1 − 0.25 at best)
ROUND, ROUNDS = 2, 4  # steps of conjugate gradients between two looks at what is left, and looks at most
CLEAR = 0.25  # of a bound: an error estimated so small needs no further step


@dataclass(frozen=True)
class SolutionError:
    """How far solutions x of A x = b, A = F + γI, are from the exact ones.

    Args:
        relative: (k,) ‖x − x*‖_F/‖x*‖_F, x* as near as conjugate gradients came, with what they left.
        cosine: (k,) between x and x* in the norm of F: near 1 the order of scores holds, whatever their size.
        residual: (k,) ‖b − Ax‖/‖b‖.
        settled: whether what they left does not matter to the verdict; else ``relative`` is a lower bound.
        products: of stacks of k vectors.
    """

    relative: Tensor
    cosine: Tensor
    residual: Tensor
    settled: bool
    products: int

    @property
    def typical(self) -> float:
        """Root of the mean square over the right-hand sides."""
        return float(self.relative.square().mean().sqrt())


def solution_error(
    operator: Operator, b: Tensor, x: Tensor, damping: float, preconditioner: Operator, bound: float = SOLUTION
) -> SolutionError:
    """Hold solutions against exact products, and where the verdict is open go on from them by conjugate gradients.

    With r what is left, rᵀM̂⁻¹r ≈ ‖x − x*‖²_A says from one product how far it is to go. Steps are taken only until
    that is small, or the way gone is beyond the bound by itself: 1 product of F where the approximation is good, 4 at
    the first look, 13 at most.

    Args:
        operator: v ↦ F v for stacks (k, P), exact.
        b, x: (k, P); damping: γ of A = F + γI; preconditioner: r ↦ M̂⁻¹ r, what x was found with.
    """
    start = x.double()
    b = b.double()
    image = operator(start).double()
    products, now, here = 1, start, image
    left = b - image - damping * start
    residual = left.norm(dim=1) / b.norm(dim=1).clamp_min(1e-300)
    for look in range(ROUNDS + 1):
        scale = (now * here).sum(1).clamp_min(1e-300)
        gone = ((now - start) * (here - image)).sum(1).clamp_min(0) / scale
        open_ = (left * preconditioner(left).double()).sum(1).clamp_min(0) / scale
        small = _root(open_) <= CLEAR * bound
        settled = small or _root(gone) - _root(open_) > bound
        if settled or look == ROUNDS:
            break
        step = conjugate_gradients(
            lambda p: operator(p) + damping * p, left, tolerance=1e-8, limit=ROUND, preconditioner=preconditioner
        )
        now = now + step.x
        here = operator(now).double()
        products += step.iterations + 1
        left = b - here - damping * now
    lengths = (scale * (start * image).sum(1).clamp_min(1e-300)).sqrt()
    cosine = ((start * here).sum(1) / lengths).clamp(-1, 1)
    return SolutionError((gone + open_).sqrt() if small else gone.sqrt(), cosine, residual, settled, products)


def _root(squares: Tensor) -> float:
    return math.sqrt(float(squares.mean())) if bool(torch.isfinite(squares).all()) else math.inf


def beyond(value: float, bound: float, what: str) -> str:
    """The sentence of a number beyond its bound; empty where it is within."""
    if value <= bound:
        return ""
    return f"{what} is {value:.2g}, beyond the {bound:g} up to which it is relied on"
