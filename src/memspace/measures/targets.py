"""Every number that is a label judged, by one rule for the audit, ``memspace labels`` and Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from memspace.intervals import around, of_share
from memspace.measures.damping import DampingChoice
from memspace.measures.declaration import measure, provides, table
from memspace.measures.outliers import FEWEST, OutlierModel, fit_outliers, standardised_residuals
from memspace.measures.values import Budget, Curvature, LeaveOneOutOutputs, Leverage, TrainingOutputs
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["Targets", "expected_outliers", "outlier_columns", "outlier_share"]

DRAWS = 32  # positions within the step of a discrete law, over which its probability is averaged


@dataclass(frozen=True)
class Targets:
    """What is thought of each target.

    Args:
        p: (n,) probability that any of the example's numbers is an outlier.
        z: (n, C) leave-one-out residuals in standard deviations of the noise.
        output: (n,) where |z| is largest.
        share: of the examples.
        expected: how many they are.
        prediction: (n, C) outputs without the example's own influence.
        estimator: by whom, for people.
    """

    p: Tensor
    z: Tensor
    output: Tensor
    share: Value
    expected: Value
    prediction: Tensor
    estimator: str

    def columns(self, y: Tensor) -> dict[str, list[Any]]:
        """Return columns by example, of the output that is furthest off, in the targets' unit.

        Args:
            y: (n, C) targets.

        Returns:
            columns of n numbers.
        """
        at = self.output.unsqueeze(1)
        tensors = {"value": y, "prediction": self.prediction, "standardised_residual": self.z}
        columns = {name: v.double().gather(1, at).squeeze(1).tolist() for name, v in tensors.items()}
        several = {"output": self.output.tolist()} if self.z.shape[1] > 1 else {}
        return several | columns | {"p_outlier": self.p.tolist()}


@provides()
def judged_targets(
    task: Task,
    outputs: TrainingOutputs,
    curvature: Curvature,
    damping: DampingChoice,
    budget: Budget,
    leverage: Leverage | None,
    loo: LeaveOneOutOutputs | None,
) -> Targets | Absent:
    """Judge by leave-one-out residuals which targets are outliers (see ``measures.outliers``)."""
    if leverage is None or loo is None:
        return Absent()
    generator = torch.Generator().manual_seed(budget.seed)
    u = torch.rand(loo.f.shape, generator=generator, dtype=torch.float64).to(outputs.y.device)
    law, exact = task.likelihood, curvature.fidelity is None
    places = ((torch.arange(DRAWS, dtype=torch.float64) + 0.5) / DRAWS).to(u).reshape(-1, 1, 1)
    levels = torch.cat([u.unsqueeze(0), places.expand(-1, *u.shape)])
    residuals = standardised_residuals(law, outputs.f, outputs.y, loo.f, leverage.matrices, own=exact, u=levels)
    if residuals is None:
        return Absent()
    z, several = residuals[0], residuals[1:]
    models = [fit_outliers(z[:, c]) for c in range(z.shape[1])]
    p_each = torch.stack([m.p_outlier(several[..., c]).mean(0) for c, m in enumerate(models)], 1)
    p = 1 - (1 - p_each).prod(1)
    scale = torch.tensor([m.scale for m in models], dtype=torch.float64, device=z.device)
    middle = several.mean(0) / scale
    share, expected = _counted(p, models, curvature.estimator, reliable=damping.reliable)
    by = f"leave-one-out ({curvature.estimator})"
    return Targets(p, middle, middle.abs().argmax(1), share, expected, law.mean(loo.f.double()), by)


def _counted(p: Tensor, models: Sequence[OutlierModel], by: str, *, reliable: bool) -> tuple[Value, Value]:
    """The share of the examples whose targets are outliers, and how many they are."""
    total, n = float(p.sum()), len(p)
    error = math.sqrt(float((p * (1 - p)).sum())) / n
    doubts = sorted({m.doubt for m in models if m.doubt})
    low, high = _share_ends(p, error, models)
    share = Value(total / n, n, (low, high), by, reliable and not doubts, "; ".join(doubts))
    expected = replace(share, value=total, interval=(low * n, high * n))
    if n < FEWEST:
        note = f"fewer than {FEWEST} examples: outliers among them cannot be distinguished"
        share = replace(share, interval=(0.0, 1.0), reliable=False, note=note)
        expected = replace(expected, interval=(0.0, float(n)), reliable=False, note=note)
    return share, expected


def _share_ends(p: Tensor, error: float, models: Sequence[OutlierModel]) -> tuple[float, float]:
    """Ends of the share of outliers: of every noise not excluded, of the count expected, of the count that surely are.

    How much of the middle belongs to a wide component is the model's assumption, which no sample can show. Outliers
    that all lie far out make the fitted share too large; their count (p > ½) does not.
    """
    n, expected = len(p), float(p.sum())
    fitted = [m.ends() for m in models]
    ends = [(max(low for low, _ in fitted), min(1.0, math.fsum(high for _, high in fitted)))]
    ends.append(around(expected / n, error, lower=0.0, upper=1.0))
    for count in (min(expected, float(n)), float((p > 0.5).sum())):
        counted = of_share(count, n).ends
        ends += [counted] if counted is not None else []
    return min(low for low, _ in ends), max(high for _, high in ends)


@measure(
    "outliers.share",
    chapter="stored",
    unit="1",
    estimator="targets three standard deviations off or more, by leave-one-out residuals",
    source="tukey1960",
    shown="share",
)
def outlier_share(targets: Targets) -> Value:
    """Share of the training examples with a target that is an outlier."""
    return targets.share


@measure(
    "outliers.expected",
    chapter="stored",
    unit="targets",
    estimator="sum of the probabilities; targets three standard deviations off or more, by leave-one-out residuals",
    source="tukey1960",
)
def expected_outliers(targets: Targets) -> Value:
    """How many training examples have a target that is an outlier."""
    return targets.expected


@table("examples")
def outlier_columns(targets: Targets, outputs: TrainingOutputs) -> dict[str, list[Any]]:
    """Return each example's target that is furthest off."""
    return targets.columns(outputs.y)
