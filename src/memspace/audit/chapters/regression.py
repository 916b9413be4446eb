"""What is said of a Gaussian law: explained variance, noise in the targets' unit, and targets that are outliers.

None of it moves with the unit of the targets or with the law's σ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.audit.chapters.agreement import CLOSE, agreement
from memspace.audit.claims import above, below
from memspace.audit.pictures import item
from memspace.audit.reading import Reading
from memspace.audit.results import Finding, Gallery
from memspace.measurement import Measurement, from_error, from_ratio, from_samples
from memspace.measures.outliers import fit_outliers, standardised_residuals
from memspace.task.likelihood import Gaussian

__all__ = ["Explained", "explained", "outliers"]

EXPECTED = "outliers.expected"
FEW = 0.05  # share of outliers below which none is said to look like one
SHOWN = 24
NAMED = 8  # outputs that get a measurement of their own


@dataclass(frozen=True)
class Explained:
    """Shares of the variance explained, the noise, and what they say together."""

    measurements: tuple[Measurement, ...]
    finding: Finding | None
    said: str


def _parts(f: Tensor, y: Tensor, centre: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error and squared distance from the mean target, per example, in the targets' own spread."""
    left = ((y.double() - f.double()) / scale).square().flatten(1).sum(1)
    return left, ((y.double() - centre) / scale).square().flatten(1).sum(1)


def _share(name: str, f: Tensor, y: Tensor, centre: Tensor, scale: Tensor, how: str) -> Measurement:
    """1 − Σ(y − f)²/Σ(y − ȳ)², ȳ the mean training target."""
    above, below = _parts(f, y, centre, scale)
    m = from_ratio(name, above, below, "1", how)
    ends = None if m.interval is None else (1 - m.interval[1], 1 - m.interval[0])
    return Measurement(name, 1 - m.value, "1", how, m.n, ends, "Wright 1921", m.reliable, m.note)


def explained(r: Reading) -> Explained | None:
    """R² in training, without each example, and on test examples; the noise of each output. None for other laws."""
    law = r.task.likelihood
    if not isinstance(law, Gaussian):
        return None
    flat = r.y.double().reshape(-1, r.y.shape[-1])
    centre = flat.mean(0)
    scale = flat.std(0, correction=0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    found = [_share("regression.r2_train", r.f, r.y, centre, scale, "share of the variance explained, training")]
    if r.loo_f is not None:
        how = f"share of the variance explained without the example itself; {r.estimator}"
        loo = _share("regression.r2_loo", r.loo_f, r.y, centre, scale, how)
        reliable = loo.reliable and r.damping.reliable
        found.append(Measurement(**{**loo.__dict__, "reliable": reliable, "note": loo.note or r.damping.statement}))
        found += _noise(r)
    finding, said = None, ""
    if r.test_f is not None and r.test_y is not None:
        test = _share("regression.r2_test", r.test_f, r.test_y, centre, scale, "share explained, test examples")
        found.append(test)
        said = f" It explains {test.value:.0%} of the variance of the test targets."
        if r.loo_f is not None:
            gap, finding = _agreement(r, found[1], test, centre, scale)
            found.append(gap)
    return Explained(tuple(found), finding, said)


def _noise(r: Reading) -> list[Measurement]:
    """Root mean square of the leave-one-out residuals of each output: σ for an example not seen."""
    assert r.loo_f is not None
    squares = (r.y.double() - r.loo_f.double()).square()
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
    inside, outside = (_parts(f, y, centre, scale)[0] for f, y in ((r.loo_f, r.y), (r.test_f, r.test_y)))
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
    return gap, agreement(gap, CLOSE * float(outside.mean()), evidence)


def outliers(
    r: Reading,
    tables: dict[str, dict[str, object]],
    measurements: list[Measurement],
    findings: list[Finding],
    galleries: list[Gallery],
) -> bool:
    """Targets ranked by their probability to be outliers, into ``examples``; False where they cannot be judged."""
    law = r.task.likelihood
    if not isinstance(law, Gaussian) or r.loo_f is None or r.leverage is None:
        return False
    z = standardised_residuals(law, r.y, r.loo_f, r.leverage, own=r.fidelity is None)
    models = [fit_outliers(z[:, c]) for c in range(z.shape[1])]
    each = torch.stack([m.p_outlier(z[:, c]) for c, m in enumerate(models)], 1)
    p = 1 - (1 - each).prod(1)
    scale = torch.tensor([m.scale for m in models], dtype=torch.float64, device=z.device)
    largest = (z / scale).abs().argmax(1, keepdim=True)
    tables["examples"] |= {
        "p_outlier": p.tolist(),
        "standardised_residual": (z / scale).gather(1, largest).squeeze(1).tolist(),
    }
    expected = float(p.sum())
    error = math.sqrt(float((p * (1 - p)).sum())) / r.n
    fit = math.hypot(*(m.weight * m.share_error for m in models if m.share_error == m.share_error), 0.0)
    how = f"two-part normal noise of standardised leave-one-out residuals; {r.estimator}"
    measurements.append(
        from_error("outliers.share", expected / r.n, math.hypot(error, fit), "1", how, r.n, lower=0.0, upper=1.0,
                   source="Tukey 1960", reliable=r.damping.reliable)
    )  # fmt: skip
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
    measurements.append(
        from_error(
            EXPECTED, expected, error * r.n, "targets", f"sum of the probabilities; {how}", r.n, lower=0.0,
            reliable=r.damping.reliable,
        )
    )  # fmt: skip
    findings.append(_verdict(likely, f"Estimated share {measurements[-2].value:.1%}, {expected:.1f} targets."))
    return True


def _verdict(likely: int, evidence: str) -> Finding:
    unsure = Finding(
        "note",
        "Whether targets are outliers cannot be told",
        evidence,
        "Read the likeliest ones in examples.parquet, sorted by p_outlier, as a list to look at, not as a count.",
        "stored",
    )
    none = Finding(
        "good",
        "No target looks like an outlier",
        evidence,
        "Nothing to do.",
        "stored",
        claims=(below("outliers.share", FEW),),
        otherwise=unsure,
    )
    word = "target looks like an outlier" if likely == 1 else "targets look like outliers"
    if not likely:
        return none
    return Finding(
        "warn",
        f"{likely} {word}",
        evidence,
        "Review them in examples.parquet, sorted by p_outlier.",
        "stored",
        claims=(above(EXPECTED, 0.5),),
        otherwise=none,
    )
