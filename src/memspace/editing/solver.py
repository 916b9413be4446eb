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
    """How far conjugate gradients go.

    Four steps are enough to forget: measured, the divergence from the retrained network is level from there on, though
    the solution itself is not reached by then.

    Args:
        tolerance: relative error of the solution at which they stop.
        limit: steps at most.
    """

    tolerance: float = 0.05
    limit: int = 4


@dataclass
class Solver:
    """Damped solves with the retained examples' metric, at the model's weights; it counts what it spends.

    Args:
        task: the network, its law and data.
        space: its parameters.
        kept: positions of the retained training examples.
        method: dual, cg or ekfac.
        accuracy: of the conjugate gradients.
        seed: of sampled labels.
        gradients: of one example, spent so far.
        products: with the Fisher matrix, spent so far.
        residual: relative residual of the last solve.
        error: relative error of the last solution.
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
        """Solve (F_R + γI) X = V, F_R the mean over the retained examples, for vectors that share every product.

        Args:
            v: (k, P).
            damping: γ.

        Returns:
            (k, P), float64.
        """
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
        """State residual and error of the last solve; those of EKFAC by exact products.

        Args:
            of: first part of the names: ``of``.solve_residual and ``of``.solution_error.

        Returns:
            the two measurements, or why they are absent.
        """
        names = (f"{of}.solve_residual", f"{of}.solution_error")

        def by_products() -> tuple[float, float]:
            assert self._last is not None
            v, damping, x = self._last
            product, metric = self._product(), self.metric
            errors = solution_error(product, v.double(), x, damping, lambda r: metric.solve(r, damping))
            self.products += errors.products * len(v)
            self.gradients += 2 * errors.products * len(v) * len(self.kept)
            return float(errors.residual.max()), errors.typical

        errors: tuple[float, float] | Unmeasured = (self.residual, self.error)
        if self._last is not None:
            errors = attempt(names[0], by_products, "use the method dual or cg")
        if isinstance(errors, Unmeasured):
            return errors, replace(errors, name=names[1])
        residual, error = errors
        by = "exact dual" if self.method == "dual" else f"{self.method}, by exact products"
        doubt = beyond(residual, RESIDUAL, "the relative residual of the solve")
        how = f"‖v − (F + γI)x‖/‖v‖; {by}"
        first = Measurement(names[0], residual, "1", how, len(self.kept), reliable=not doubt, note=doubt)
        doubt = beyond(error, SOLUTION, "the relative error of the solution")
        if doubt:
            doubt += ": what it does is measured apart; Accuracy(0.05, 100) or the method dual come nearer"
        how = f"‖x − x*‖/‖x*‖ in the norm of F; {by}"
        return first, Measurement(names[1], error, "1", how, len(self.kept), reliable=not doubt, note=doubt)

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
    """Count outputs × positions of one example.

    Args:
        task: the network and its data.

    Returns:
        the count.
    """
    f, _ = outputs(task, task.train, index=torch.tensor([0]))
    return int(f.numel())


def pick_method(method: str, rows: int) -> str:
    """Choose the method for so many rows.

    Args:
        method: as asked for; ``auto``: exact where that takes a few seconds.
        rows: examples × outputs × positions.

    Returns:
        dual, cg or ekfac.

    Raises:
        SettingsError: there is no such method.
    """
    if method not in METHODS:
        raise SettingsError(
            f"unknown method {method!r}; one of {', '.join(METHODS)}", where="method", remedy="give one of these"
        )
    if method != "auto":
        return method
    return "dual" if rows <= DUAL_ROWS else "cg"
