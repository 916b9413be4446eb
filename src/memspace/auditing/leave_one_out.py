"""Every training example's prediction without itself, and the test loss that follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from memspace.arguments import typed
from memspace.auditing.plan import AuditSettings, make_plan
from memspace.auditing.quick import LeverageGrid, read_exact, read_quick
from memspace.auditing.stationary import known_damping, settled
from memspace.display import Columns, Shown
from memspace.errors import TaskError
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.cross_fit import cross_fit, folds_of
from memspace.measures.damping import DampingChoice
from memspace.measures.declaration import measurement_of
from memspace.measures.expected import expected_calibration, expected_test_loss
from memspace.measures.explained import TargetSpread, r2_loo
from memspace.measures.generalisation import calibration_to_expect, loo_estimate
from memspace.measures.judge import Judged, Unseen, judge
from memspace.measures.values import HeldOut, TrainingOutputs
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import checked_space
from memspace.progress import Progress, Silent
from memspace.task.checks import untouched
from memspace.task.likelihood import Likelihood
from memspace.task.task import Task
from memspace.value import Value

__all__ = ["LeaveOneOut", "leave_one_out"]


@dataclass(frozen=True, repr=False)
class LeaveOneOut(Shown):
    """Outputs and losses of every training example with and without itself, in the order of the training data.

    Args:
        y: labels.
        f: (n, C) outputs.
        loss: (n,) nats.
        loo_f: (n, C) outputs without the example itself.
        loo_loss: (n,) nats, without the example itself.
        damping: γ and how it was chosen.
        test_loss: estimate from training data alone; against the inferred true label where labels are judged.
        calibration: expected calibration error likewise; Unmeasured for other output laws than categorical.
        explained: share of the variance of the targets explained without the example itself, R², free of their unit;
            Unmeasured where labels are no numbers, or all the same.
        numbers: positions of the examples in the data as given, where some have no label; None: all in order.
    """

    y: Tensor
    f: Tensor
    loss: Tensor
    loo_f: Tensor
    loo_loss: Tensor
    damping: DampingChoice
    test_loss: Measurement
    calibration: Measurement | Unmeasured
    explained: Measurement | Unmeasured
    numbers: Tensor | None = None

    def _title(self) -> str:
        return f"{len(self.loss)} training examples, each without itself; {self.damping.statement}"

    def _quantities(self) -> tuple[Measurement | Unmeasured, ...]:
        return self.test_loss, self.calibration, self.explained

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"examples": lambda: self.table}

    @property
    def table(self) -> dict[str, list[Any]]:
        """Columns ``index``, ``train_loss``, ``loo_loss``, ``rise`` (nats)."""
        rise = (self.loo_loss - self.loss).tolist()
        index = range(len(self.loss)) if self.numbers is None else self.numbers.tolist()
        columns = {"index": list(index), "train_loss": self.loss.tolist()}
        return columns | {"loo_loss": self.loo_loss.tolist(), "rise": rise}


@typed
def leave_one_out(
    task: Task, *, settings: AuditSettings | None = None, folds: int = 5, progress: Progress | None = None
) -> LeaveOneOut:
    """Return f_i + V_i (I − H_i V_i)⁻¹ g_i for every training example; see ``measures.leave_one_out``.

    Exact dual where its rows fit, else EKFAC. γ is where the estimate agrees with ``folds`` networks trained without
    their part of the data (0, or nothing to train by: the evidence, known to come out too high).

    Args:
        task: the network and its data.
        settings: seed, memory and representation.
        folds: parts of the partition in refits.
        progress: where long work reports.

    Returns:
        outputs and losses with and without each example, and what they say of test data.

    Raises:
        SettingsError: ``folds`` is 1 or negative.
        TaskError: a sequence model or too many outputs: V_i is out of reach.
    """
    settings, progress = settings or AuditSettings(), progress or Silent()
    folds = folds_of(folds, len(task.train))
    space = checked_space(task)
    with untouched(task.model):
        grid, refits, damping, loo = _read(task, space, settings, folds, progress)
    law, y, by = task.likelihood, grid.y, grid.estimator
    loss, after = law.nll(grid.f.double(), y), law.nll(loo, y)
    outputs = TrainingOutputs(grid.f, y, loss, law.weight(grid.f, y))
    unseen = Unseen(refits, loo, damping.reliable and refits is not None)
    judged = judge(task, grid.f, y, unseen, seed=settings.seed)
    expected = expected_test_loss(law, outputs, unseen, damping, judged, after)
    how, note = f"{expected.how}; {by}, γ={damping.value:.2g}", expected.note or damping.statement
    test_loss = Value(expected.value, outputs.n, expected.interval, how, expected.reliable, note)
    return LeaveOneOut(
        y,
        grid.f,
        loss,
        loo,
        after,
        damping,
        measurement_of(loo_estimate, test_loss),
        _calibration(law, y, judged, unseen, damping, by),
        _explained(law, loo, y, by, damping),
        task.train.numbers(torch.arange(outputs.n)),
    )


def _read(
    task: Task, space: ParameterSpace, settings: AuditSettings, folds: int, progress: Progress
) -> tuple[LeverageGrid, HeldOut | None, DampingChoice, Tensor]:
    """Leverage, refits, the damping where both agree, and leave-one-out outputs (n, C) at it."""
    plan = make_plan(task, space, settings)
    if plan.first_order or plan.positions > 1:
        count = plan.positions * plan.outputs
        raise TaskError(
            f"leave-one-out outputs need a matrix between all {count:,} outputs of an example",
            where="leave-one-out",
            remedy="run `memspace audit`, which estimates the losses to first order",
        )
    refits = cross_fit(task, folds, 1, settings.seed, progress) if folds else None
    if plan.representation != "dual":
        grid = read_quick(task, space, plan, settings.seed, progress, settings.damping).at
        damping = grid.choose(refits)
        return grid, refits, damping, grid.leave_one_out(damping.value)
    known = known_damping(task, space) if settings.damping is None else None
    fixed = settings.damping if known is None else known.value
    grid = read_exact(task, space, plan, settings.seed, progress, fixed)
    if known is not None and grid.exact is not None:
        return grid, refits, known, settled(task, grid.f, grid.y, grid.exact, known)
    damping = known or grid.choose(refits)
    return grid, refits, damping, grid.leave_one_out(damping.value)


def _calibration(
    law: Likelihood, y: Tensor, judged: Judged | None, unseen: Unseen, damping: DampingChoice, by: str
) -> Measurement | Unmeasured:
    """Calibration error to expect on test data, where labels are classes."""
    error = None if judged is None else expected_calibration(law, y, judged, unseen, damping, by)
    if error is not None:
        return measurement_of(calibration_to_expect, error)
    reason = f"the output law is {law.name}"
    return Unmeasured("generalisation.calibration_estimate", reason, "calibration is that of classes")


def _explained(law: Likelihood, loo: Tensor, y: Tensor, by: str, damping: DampingChoice) -> Measurement | Unmeasured:
    """R² of the predictions without the example itself, where labels are numbers."""
    name = "regression.r2_loo"
    if law.classifies:
        return Unmeasured(name, "labels are classes", "read test_loss and calibration")
    m = measurement_of(r2_loo, TargetSpread.of(y).explained(law.mean(loo), y, by))
    if not math.isfinite(m.value):
        return Unmeasured(name, "the targets do not vary", "pass examples with different targets")
    return replace(m, reliable=m.reliable and damping.reliable, note=m.note or damping.statement)
