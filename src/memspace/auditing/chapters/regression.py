"""What is said of real targets: explained variance, noise in the targets' unit, and targets that are outliers.

None of it moves with the unit of the targets or with the law's σ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from memspace.auditing.chapters.agreement import agreement
from memspace.auditing.chapters.verdict import verdict
from memspace.auditing.claims import above
from memspace.auditing.pictures import item
from memspace.auditing.reading import Reading
from memspace.auditing.results import Finding, Gallery
from memspace.auditing.targets import judge_targets
from memspace.auditing.thresholds import ESTIMATE_OFF
from memspace.measurement import Measurement, from_error, from_samples
from memspace.measures.explained import centre_and_spread, explained_share, squares

__all__ = ["Explained", "explained", "outliers"]

SHOWN = 24
NAMED = 8  # outputs that get a measurement of their own


@dataclass(frozen=True)
class Explained:
    """Shares of the variance explained, the noise, and what they say together."""

    measurements: tuple[Measurement, ...]
    finding: Finding | None
    said: str


def explained(r: Reading) -> Explained | None:
    """R² in training, without each example, and on test examples; the noise of each output. None for other labels."""
    law = r.task.likelihood
    if not law.continuous or r.f.shape != r.y.shape:
        return None
    centre, scale = centre_and_spread(r.y)
    mean = law.mean
    found = [
        explained_share(
            "regression.r2_train", mean(r.f), r.y, centre, scale, "share of the variance explained, training"
        )
    ]
    if r.loo_f is not None:
        how = f"share of the variance explained without the example itself; {r.estimator}"
        loo = explained_share("regression.r2_loo", mean(r.loo_f), r.y, centre, scale, how)
        reliable = loo.reliable and r.damping.reliable
        found.append(Measurement(**{**loo.__dict__, "reliable": reliable, "note": loo.note or r.damping.statement}))
        found += _noise(r)
    finding, said = None, ""
    if r.test_f is not None and r.test_y is not None:
        test = explained_share(
            "regression.r2_test", mean(r.test_f), r.test_y, centre, scale, "share explained, test examples"
        )
        found.append(test)
        said = f" It explains {test.value:.0%} of the variance of the test targets."
        if r.loo_f is not None:
            gap, finding = _agreement(r, found[1], test, centre, scale)
            found.append(gap)
    return Explained(tuple(found), finding, said)


def _noise(r: Reading) -> list[Measurement]:
    """Root mean square of the leave-one-out residuals of each output: σ for an example not seen."""
    assert r.loo_f is not None
    squares = (r.y.double() - r.task.likelihood.mean(r.loo_f.double())).square()
    out = []
    for c in range(min(squares.shape[-1], NAMED)):
        name = "regression.sigma" if squares.shape[-1] == 1 else f"regression.sigma.{c}"
        m = from_samples(name, squares[..., c].tolist(), "target units", "mean square", lower=0.0)
        ends = None if m.interval is None else (math.sqrt(max(m.interval[0], 0.0)), math.sqrt(m.interval[1]))
        how = f"root mean square of leave-one-out residuals; {r.estimator}"
        reliable = m.reliable and r.damping.reliable
        out.append(Measurement(name, math.sqrt(m.value), m.unit, how, m.n, ends, "", reliable, r.damping.statement))
    return out


def _agreement(
    r: Reading, loo: Measurement, test: Measurement, centre: Tensor, scale: Tensor
) -> tuple[Measurement, Finding]:
    """Leave-one-out against test errors, both in the spread of the targets."""
    assert r.loo_f is not None
    assert r.test_f is not None
    assert r.test_y is not None
    inside, outside = (
        squares(r.task.likelihood.mean(f), y, centre, scale)[0] for f, y in ((r.loo_f, r.y), (r.test_f, r.test_y))
    )
    error = math.hypot(
        *(float(v.std()) / math.sqrt(max(len(v), 1)) if len(v) > 1 else math.inf for v in (inside, outside))
    )
    gap = from_error(
        "regression.loo_gap",
        float(inside.mean() - outside.mean()),
        error,
        "1",
        "squared error without the example itself less that on test examples, in the targets' variance",
        len(outside),
        df=max(min(len(inside), len(outside)) - 1, 0),
        reliable=loo.reliable,
    )
    evidence = f"{loo.value:.0%} of the variance explained from training data alone, {test.value:.0%} measured."
    return gap, agreement(gap, ESTIMATE_OFF * float(outside.mean()), evidence)


def outliers(
    r: Reading,
    tables: dict[str, dict[str, object]],
    measurements: list[Measurement],
    findings: list[Finding],
    galleries: list[Gallery],
) -> bool:
    """Targets ranked by their probability to be outliers, into ``examples``; False where they cannot be judged."""
    found = judge_targets(r)
    if found is None:
        return False
    p, z = found.p, found.z
    tables["examples"] |= found.columns(r)
    measurements += [found.share, found.expected]
    order = p.argsort(descending=True, stable=True)
    likely = int((p > 0.5).sum())
    shown = [int(i) for i in order[:SHOWN] if float(p[i]) > 0.5]
    if shown:
        items = tuple(
            item(r.task, r.task.train, i, f"{float(p[i]):.0%} outlier", f"{float(z[i].abs().max()):.1f} σ")
            for i in shown
        )
        galleries.append(
            Gallery(
                "outliers",
                "Targets that look wrong",
                "Most suspicious first, judged without the example itself.",
                items,
            )
        )
    said = f"Estimated share {found.share.value:.1%}, {found.expected.value:.1f} targets."
    findings.append(_verdict(likely, said))
    return True


def _verdict(likely: int, evidence: str) -> Finding:
    word = "target looks like an outlier" if likely == 1 else "targets look like outliers"
    titles = f"{likely} {word}", "No target looks like an outlier", "Whether targets are outliers cannot be told"
    found = verdict(
        titles, "warn", evidence, column="p_outlier", share="outliers.share", claim=above("outliers.expected", 0.5)
    )
    return found if likely or found.otherwise is None else found.otherwise
