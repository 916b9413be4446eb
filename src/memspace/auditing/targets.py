"""Every number that is a label judged, by one rule for the audit, ``memspace labels`` and Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from memspace.auditing.reading import Reading
from memspace.intervals import around, of_share
from memspace.measurement import Measurement
from memspace.measures.outliers import FEWEST, OutlierModel, fit_outliers, standardised_residuals

__all__ = ["Targets", "judge_targets"]

DRAWS = 32  # places within the step of a discrete law, over which its probability is averaged


def _share_ends(p: Tensor, error: float, models: Sequence[OutlierModel]) -> tuple[float, float]:
    """Ends of the share of outliers: of every noise not excluded, of the count expected, of the count that surely are.

    How much of the middle a wide part takes along is the model's assumption, which no sample shows: outliers that all
    lie far out make the fitted share too large, their count (p > ½) does not.
    """
    n, expected = len(p), float(p.sum())
    each = [m.ends() for m in models]
    ends = [(max(low for low, _ in each), min(1.0, math.fsum(high for _, high in each)))]
    ends.append(around(expected / n, error, lower=0.0, upper=1.0))
    for count in (min(expected, float(n)), float((p > 0.5).sum())):
        counted = of_share(count, n).ends
        ends += [counted] if counted is not None else []
    return min(low for low, _ in ends), max(high for _, high in ends)


@dataclass(frozen=True)
class Targets:
    """What is thought of each target.

    Args:
        p: (n,) probability that any of the example's numbers is an outlier; each: (n, C) of every one.
        z: (n, C) leave-one-out residuals in standard deviations of the noise; output: (n,) where |z| is largest.
        share, expected: of the examples, and how many they are.
        prediction: (n, C) outputs without the example's own influence.
        estimator: by whom, for people.
    """

    p: Tensor
    each: Tensor
    z: Tensor
    output: Tensor
    share: Measurement
    expected: Measurement
    prediction: Tensor
    estimator: str

    def columns(self, r: Reading) -> dict[str, list[Any]]:
        """By example, of the output that is furthest off, in the targets' unit."""
        at = self.output.unsqueeze(1)
        found = {"value": r.y, "prediction": self.prediction, "standardised_residual": self.z}
        columns = {name: v.double().gather(1, at).squeeze(1).tolist() for name, v in found.items()}
        several = {"output": self.output.tolist()} if self.z.shape[1] > 1 else {}
        return several | columns | {"p_outlier": self.p.tolist()}


def judge_targets(r: Reading, seed: int = 0) -> Targets | None:
    """Outliers by leave-one-out residuals (see ``measures.outliers``); None where labels are no numbers.

    None also where leave-one-out outputs are out of reach.
    """
    if r.loo_f is None or r.leverage is None:
        return None
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(r.loo_f.shape, generator=generator, dtype=torch.float64).to(r.y.device)

    law, own = r.task.likelihood, r.fidelity is None
    residuals = partial(standardised_residuals, law, r.f, r.y, r.loo_f, r.leverage, own=own)
    z = residuals(u=u)
    if z is None:
        return None
    models = [fit_outliers(z[:, c]) for c in range(z.shape[1])]
    places = [(k + 0.5) / DRAWS for k in range(DRAWS)]
    several = torch.stack([v for k in places if (v := residuals(u=torch.full_like(u, k))) is not None])
    each = torch.stack([m.p_outlier(several[..., c]).mean(0) for c, m in enumerate(models)], 1)
    p = 1 - (1 - each).prod(1)
    scale = torch.tensor([m.scale for m in models], dtype=torch.float64, device=z.device)
    middle = several.mean(0) / scale
    expected, n = float(p.sum()), len(p)
    error = math.sqrt(float((p * (1 - p)).sum())) / n
    doubts = sorted({m.doubt for m in models if m.doubt})
    ends = _share_ends(p, error, models)
    how = f"targets three standard deviations off or more, by leave-one-out residuals; {r.estimator}"
    share = Measurement(
        "outliers.share",
        expected / n,
        "1",
        how,
        n,
        ends,
        "tukey1960",
        r.damping.reliable and not doubts,
        "; ".join(doubts),
    )
    counted = f"sum of the probabilities; {how}"
    count = replace(
        share,
        name="outliers.expected",
        value=expected,
        unit="targets",
        estimator=counted,
        interval=(ends[0] * n, ends[1] * n),
    )
    if n < FEWEST:
        note = f"fewer than {FEWEST} examples: which of them are outliers cannot be told"
        share = replace(share, interval=(0.0, 1.0), reliable=False, note=note)
        count = replace(count, interval=(0.0, float(n)), reliable=False, note=note)
    prediction = law.mean(r.loo_f.double())
    return Targets(p, each, middle, middle.abs().argmax(1), share, count, prediction, f"leave-one-out ({r.estimator})")
