"""M⁻¹v for an edit, M = Σ_i J_iᵀ H_i J_i + αI over the retained examples: exact by the dual, or iterative.

- ``dual``: exact (Woodbury on the Gram matrix of all rows), where there are at most 2,000 of them;
- ``cg``: conjugate gradients on exact products, preconditioned by EKFAC; its residual and its error are given;
- ``ekfac``: one block-diagonal solve: cheapest, and too long a step where layers work together (measured: on a
  1,000-image network its step at the same damping left nine to fourteen times the divergence on retained data).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace.attempt import attempt
from memspace.errors import SettingsError
from memspace.measurement import Measurement, Unmeasured
from memspace.metric.conjugate import solve_damped
from memspace.metric.fisher import build
from memspace.metric.metric import FisherMetric
from memspace.metric.trust import RESIDUAL, SOLUTION, beyond, solution_error
from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["DUAL_ROWS", "METHODS", "Accuracy", "Solver", "pick_method"]

METHODS = ("auto", "dual", "cg", "ekfac")
DUAL_ROWS = 2_000  # rows (examples × outputs × positions) up to which the exact dual takes a few seconds


@dataclass(frozen=True)
class Accuracy:
    """How far conjugate gradients go: to a relative error of the solution, or so many steps at most.

    Four steps are enough to forget: measured, the divergence from the retrained network is level from there on, though
    the solution itself is not reached by then.
    """

    tolerance: float = 0.05
    limit: int = 4


@dataclass
class Solver:
    """Damped solves with the retained examples' metric, at the model's weights.

    Args:
        kept: positions of the retained training examples.
        method: dual, cg or ekfac.
    """

    task: Task
    space: ParameterSpace
    kept: Tensor
    method: str
    accuracy: Accuracy
    seed: int = 0
    gradients: int = 0
    products: int = 0
    residual: float = 0.0
    error: float = 0.0
    _metric: FisherMetric | None = None
    _operator: FisherOperator | None = None
    _last: tuple[Tensor, float, Tensor] | None = None

    @property
    def metric(self) -> FisherMetric:
        """The dual, or EKFAC from one sampled label per example; built when first asked for."""
        if self._metric is None:
            if self.method == "dual":
                self._metric = build(self.task, self.space, "dual", index=self.kept)
                self.gradients += len(self.kept) * outputs_per_example(self.task)
            else:
                self._metric = build(self.task, self.space, "ekfac", kind="mc", index=self.kept, seed=self.seed)
                self.gradients += 2 * len(self.kept)
        return self._metric

    def __call__(self, v: Tensor, damping: float) -> Tensor:
        """(F_R + γI)⁻¹ v for flat v (P,), float64, F_R the mean over the retained examples."""
        return self.stack(v.reshape(1, -1), damping)[0]

    def stack(self, v: Tensor, damping: float) -> Tensor:
        """As a call, for a stack (k, P) that shares every product."""
        metric = self.metric
        if self.method != "cg":
            x = metric.solve(v.double(), damping)
            self._last = (v, damping, x) if self.method == "ekfac" else None
            return x
        product = self._product()
        before = product.products
        how = self.accuracy
        solution = solve_damped(product, v, damping, near=metric, tolerance=how.tolerance, limit=how.limit)
        made = product.products - before
        self.products += made
        self.gradients += 2 * made * len(self.kept)
        self.residual, self.error = float(solution.residual.max()), float(solution.error.max())
        return solution.x

    def measured(self, of: str) -> tuple[Measurement | Unmeasured, ...]:
        """``of``.solve_residual and ``of``.solution_error of the last solve; EKFAC's by exact products."""
        names = (f"{of}.solve_residual", f"{of}.solution_error")

        def by_products() -> tuple[float, float]:
            assert self._last is not None
            v, damping, x = self._last
            product, metric = self._product(), self.metric
            found = solution_error(product, v.double(), x, damping, lambda r: metric.solve(r, damping))
            self.products += found.products * len(v)
            self.gradients += 2 * found.products * len(v) * len(self.kept)
            return float(found.residual.max()), found.typical

        found: tuple[float, float] | Unmeasured = (self.residual, self.error)
        if self._last is not None:
            found = attempt(names[0], by_products, "use the method dual or cg")
        if isinstance(found, Unmeasured):
            return found, replace(found, name=names[1])
        residual, error = found
        by = "exact dual" if self.method == "dual" else f"{self.method}, by exact products"
        said = beyond(residual, RESIDUAL, "the relative residual of the solve")
        how = f"‖v − (F + γI)x‖/‖v‖; {by}"
        first = Measurement(names[0], residual, "1", how, len(self.kept), reliable=not said, note=said)
        said = beyond(error, SOLUTION, "the relative error of the solution")
        if said:
            said += ": what it does is measured apart; Accuracy(0.05, 100) or the method dual come nearer"
        how = f"‖x − x*‖/‖x*‖ in the norm of F; {by}"
        return first, Measurement(names[1], error, "1", how, len(self.kept), reliable=not said, note=said)

    def _product(self) -> FisherOperator:
        if self._operator is None:
            self._operator = FisherOperator(self.task, self.space, index=self.kept)
        return self._operator

    @property
    def told(self) -> str:
        """The method in words."""
        if self.method == "dual":
            return "exact dual"
        if self.method == "ekfac":
            return "EKFAC (one sampled label per example)"
        return f"conjugate gradients preconditioned by EKFAC, relative error {self.error:.1g}"


def outputs_per_example(task: Task) -> int:
    """Outputs × positions of one example."""
    f, _ = outputs(task, task.train, index=torch.tensor([0]))
    return int(f.numel())


def pick_method(method: str, rows: int) -> str:
    """The method for so many rows.

    Raises:
        ValueError: there is no such method.
    """
    if method not in METHODS:
        raise SettingsError(
            f"unknown method {method!r}; one of {', '.join(METHODS)}", where="method", remedy="give one of these"
        )
    if method != "auto":
        return method
    return "dual" if rows <= DUAL_ROWS else "cg"
