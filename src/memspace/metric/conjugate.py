"""Conjugate gradients on a stack of right-hand sides, with an estimate of each solution's error.

Where a problem is badly scaled the residual says little about the error: measured, scores were 10 to 30% off at a
relative residual of 1%. With A = F + γI, e = x − x* and r = −Ae, the error in the norm of A is √(rᵀA⁻¹r). Three
quantities estimate ‖e‖²_A:

* The steps decrease it by Δ_j = α_j ρ_j (Hestenes & Stiefel 1952, Strakoš & Tichý 2002). The last Δ times the largest
  Σ_{l≥i} Δ_l / Δ_i so far (Meurant et al. 2021) is too low while convergence stalls.
* rᵀM̂⁻¹r/θ, with θ the smallest Ritz value of M̂⁻¹A, is an upper bound once θ has converged.
* ‖r‖²/γ is always an upper bound, up to rounding.

The error stated is the larger of the first two, or the third where that is smaller. Every new residual is made
orthogonal to the earlier ones: rounding undoes that otherwise, and badly scaled problems take several times the steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from memspace.metric.krylov import Operator
from memspace.metric.metric import FisherMetric

__all__ = ["Solution", "conjugate_gradients", "solve_damped"]

BASIS = 2**24  # numbers of earlier residuals that are held by default
FLAT = 1e-6  # of ‖x‖_A: below, ‖x‖_F is rounding
TINY = 1e-14  # relative residual that no further step lowers


@dataclass(frozen=True)
class Solution:
    """Solutions of conjugate gradients, with their errors.

    Args:
        x: (k, P), float64.
        residual: (k,) ‖b − Ax‖/‖b‖.
        error: (k,) estimated ‖x − x*‖_A/‖x*‖_F, of A = F + γI; infinite where no γ was given.
        iterations: steps taken.
        converged: whether all solutions met the tolerance.
    """

    x: Tensor
    residual: Tensor
    error: Tensor
    iterations: int
    converged: bool


def conjugate_gradients(
    operator: Operator,
    b: Tensor,
    *,
    tolerance: float = 1e-6,
    limit: int = 1000,
    preconditioner: Operator | None = None,
    damping: float | None = None,
    basis: int | None = None,
) -> Solution:
    """Solve A x = b for a stack of right-hand sides, in float64.

    Every right-hand side has its own recurrence and leaves the stack when it has converged.

    Args:
        operator: v ↦ A v on stacks (k, P), positive definite.
        b: (k, P) right-hand sides.
        tolerance: of every solution; without ``damping`` on ‖b − A x‖/‖b‖, with it on the estimated relative error
            ‖x − x*‖_A/‖x*‖_F, which is at least ‖x − x*‖_F/‖x*‖_F, the root mean square error of scores.
        limit: steps at most; ``converged`` is False where they ran out.
        preconditioner: r ↦ M̂⁻¹ r on stacks, M̂ positive definite and near A; None: none.
        damping: γ of A = F + γI, F positive semi-definite. Where the tolerance is met, one further product then
            measures the true residual, rounding included.
        basis: numbers of earlier residuals that may be held, in float64; None: 2^24.

    Returns:
        The solutions (k, P) float64, their residuals, and with ``damping`` their errors.
    """
    run = _Run(b.double(), preconditioner, damping, BASIS if basis is None else basis)
    while run.steps < limit and len(run.active):
        run.step(operator)
        run.check(tolerance)
    converged = not len(run.active) and bool(torch.isfinite(run.x).all())
    error = torch.full_like(run.scale, math.inf)
    if damping is not None:
        run.settle(operator if converged else None)
        error = run.errors()
    residual = run.residual.norm(dim=1) / run.scale.clamp_min(1e-300)
    return Solution(run.x, residual, error, run.steps, converged)


def solve_damped(
    operator: Operator,
    b: Tensor,
    damping: float,
    *,
    near: FisherMetric | None = None,
    tolerance: float = 1e-6,
    limit: int = 1000,
    basis: int | None = None,
) -> Solution:
    """Solve (F + γI) x = b by conjugate gradients on exact products, with a metric near F as preconditioner.

    Args:
        operator: v ↦ F v on stacks (k, P), F positive semi-definite.
        b: (k, P) right-hand sides.
        damping: γ > 0.
        near: a metric near F whose damped solves precondition (EKFAC; after ASTRA, Wang et al. 2025); None: no
            preconditioner.
        tolerance: on every solution's estimated relative error, see :func:`conjugate_gradients`.
        limit: steps at most.
        basis: numbers of earlier residuals that may be held, in float64; None: 2^24.

    Returns:
        The solutions (k, P) float64, with their residuals and estimated errors.
    """
    return conjugate_gradients(
        lambda p: operator(p) + damping * p,
        b,
        tolerance=tolerance,
        limit=limit,
        preconditioner=None if near is None else lambda r: near.solve(r, damping),
        damping=damping,
        basis=basis,
    )


class _Run:
    """One solve: the recurrences of all right-hand sides and their error estimates.

    Args:
        b: (k, P) float64.
        room: numbers of earlier residuals that may be held.
    """

    def __init__(self, b: Tensor, preconditioner: Operator | None, damping: float | None, room: int) -> None:
        self.b, self._preconditioner, self._damping = b, preconditioner, damping
        self.x, self.residual, self.scale, self.steps = torch.zeros_like(b), b.clone(), b.norm(dim=1), 0
        self.active = (self.scale > 0).nonzero().flatten()
        self._p = self._conditioned(self.residual)
        self._energy = (self.residual * self._p).sum(1)  # rᵀM̂⁻¹r
        self._taken = torch.zeros(len(b), dtype=torch.long, device=b.device)
        # α, β and the decrease of ‖e‖²_A of every step that a right-hand side has taken
        self._alpha, self._beta, self._drop = (b.new_zeros(len(b), 0) for _ in range(3))
        self._theta = math.inf
        self._most = room // max(1, b.numel())
        self._rows = b.new_zeros(len(b), 0, b.shape[1])
        self._remember()

    def step(self, operator: Operator) -> None:
        """Take one step of those that have not converged."""
        now, every = self.active, len(self.active) == len(self.b)
        p, energy = self._p[now], self._energy[now]
        product = operator(p).double()
        alpha = energy / (p * product).sum(1)
        self.x[now] += alpha.unsqueeze(1) * p
        r = self.residual[now] - alpha.unsqueeze(1) * product
        z = self._conditioned(r)
        if self._rows.shape[1]:
            rows = self._rows if every else self._rows[now]
            r = r - torch.bmm(torch.bmm(rows, z.unsqueeze(2)).mT, rows).squeeze(1)
            z = self._conditioned(r)
        fresh = (r * z).sum(1)
        beta = fresh / energy
        if self._alpha.shape[1] <= int(self._taken.max()):
            self._alpha, self._beta, self._drop = (pad(t, (0, 32)) for t in (self._alpha, self._beta, self._drop))
        at = self._taken[now]
        self._alpha[now, at], self._beta[now, at], self._drop[now, at] = alpha, beta, alpha * energy
        self._taken[now] += 1
        self.residual[now], self._energy[now] = r, fresh
        self._p[now] = z + beta.unsqueeze(1) * p
        self.steps += 1
        self._remember()

    def check(self, tolerance: float) -> None:
        """Update which have not converged; a new Ritz value may show that an earlier verdict came too soon."""
        size = self.residual.norm(dim=1) / self.scale.clamp_min(1e-300)
        done = size <= (tolerance if self._damping is None else TINY)
        if self._damping is not None:
            near = ~done & (self._decrease() <= tolerance * self._length())
            fresh = near & torch.zeros_like(near).index_fill(0, self.active, value=True)
            self._theta = min(self._theta, self._smallest(fresh))
            done |= near & (self.errors() <= tolerance)
        done |= ~torch.isfinite(size) | ~(self._energy > 0)  # the residual is zero, or no longer finite
        self.active = (~done).nonzero().flatten()

    def settle(self, operator: Operator | None) -> None:
        """Replace the recurrences' residual, which knows nothing of rounding, by b − Ax."""
        self._theta = min(self._theta, self._smallest(self._taken > 0))
        if operator is None:
            return
        self.residual = self.b - operator(self.x).double()
        self._energy = (self.residual * self._conditioned(self.residual)).sum(1)

    def errors(self) -> Tensor:
        """Return the estimates (k,) of ‖x − x*‖_A/‖x*‖_F."""
        assert self._damping is not None
        ritz = (self._energy.clamp_min(0) / self._theta).sqrt()
        bound = self.residual.norm(dim=1) / math.sqrt(self._damping)
        error = torch.minimum(torch.maximum(self._decrease(), ritz), bound) / self._length()
        error = torch.where(torch.isfinite(error), error, torch.full_like(error, math.inf))
        return torch.where(self.scale > 0, error, torch.zeros_like(error))

    def _length(self) -> Tensor:
        """‖x‖_F, with Ax = b − r."""
        whole = (self.x * (self.b - self.residual)).sum(1)
        inside = whole - (self._damping or 0.0) * self.x.square().sum(1)
        return inside.maximum(FLAT**2 * whole).clamp_min(0).sqrt()

    def _decrease(self) -> Tensor:
        """‖e‖_A estimated from the decreases so far."""
        if not self.steps:
            return torch.full_like(self.scale, math.inf)
        to_come = self._drop.flip(1).cumsum(1).flip(1)
        share = torch.where(self._drop > 0, to_come / self._drop.clamp_min(1e-300), torch.ones_like(to_come))
        last = self._drop.gather(1, (self._taken - 1).clamp_min(0).unsqueeze(1)).squeeze(1)
        return (share.amax(1) * last).clamp_min(0).sqrt()

    def _smallest(self, which: Tensor) -> float:
        """The smallest Ritz value of M̂⁻¹A, from the tridiagonal matrices of the chosen recurrences."""
        if not bool(which.any()):
            return math.inf
        most = int(self._taken[which].max())
        alpha, beta = self._alpha[which, :most], self._beta[which, :most].clamp_min(0)
        real = alpha > 0
        inverse = torch.where(real, 1 / alpha.clamp_min(1e-300), torch.zeros_like(alpha))
        main = inverse + pad((beta * inverse)[:, :-1], (1, 0))
        main = torch.where(real, main, 2 * main.amax(1, keepdim=True))  # beyond the last step: not the smallest
        off = torch.where(real[:, 1:], beta[:, :-1].sqrt() * inverse[:, :-1], torch.zeros_like(main[:, 1:]))
        matrix = torch.diag_embed(main) + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
        if not bool(torch.isfinite(matrix).all()):
            return math.inf
        values = torch.linalg.eigvalsh(matrix)[:, 0]
        return float(values[values > 0].min()) if bool((values > 0).any()) else math.inf

    def _conditioned(self, r: Tensor) -> Tensor:
        return r.clone() if self._preconditioner is None else self._preconditioner(r).double()

    def _remember(self) -> None:
        """Store residuals r/√(rᵀM̂⁻¹r), the first ones: rounding brings back the directions that converge early."""
        now = self.active[self._taken[self.active] < self._most]
        if not len(now):
            return
        at = self._taken[now]
        if self._rows.shape[1] <= int(at.max()):
            self._rows = pad(self._rows, (0, 0, 0, min(self._most, max(8, 2 * int(at.max()))) - self._rows.shape[1]))
        self._rows[now, at] = self.residual[now] / self._energy[now].clamp_min(1e-300).sqrt().unsqueeze(1)
