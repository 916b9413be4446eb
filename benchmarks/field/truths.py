"""What an audit says beside what is true: intervals against truths, the ranking of labels against rivals' rankings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from benchmarks.field.refits import Refits
from benchmarks.field.tasks import Job
from memspace.auditing.results import Results
from memspace.measurement import Measurement
from memspace.measures.declaration import declared_measures

__all__ = ["Draw", "coverage", "label_verdict", "outlier_verdict"]


@dataclass(frozen=True)
class Draw:
    """One draw of a job: training data as given and as they are, test examples, and a pool that tells the truth."""

    x: Tensor
    y: Tensor
    truth: Tensor
    wrong: Tensor
    test: tuple[Tensor, Tensor]
    pool: tuple[Tensor, Tensor]


def _record(m: Measurement, truth: float, known: tuple[float, float] | None = None) -> dict[str, Any]:
    """An interval and its truth, with the truth's own interval where that was measured."""
    assert m.interval is not None
    return {
        "measure": m.name,
        "value": m.value,
        "low": m.interval[0],
        "high": m.interval[1],
        "truth": truth,
        "known": known,
        "reliable": m.reliable,
    }


def _visible(model: nn.Module, draw: Draw) -> float:
    """Share of targets shifted by three standard deviations of the network's error on right ones, or more."""
    with torch.no_grad():
        error = (model(draw.test[0]) - draw.test[1]).std(0)
    shifted = (draw.y - draw.truth).abs() >= 3 * error
    return float(shifted.any(1).double().mean())


def coverage(results: Results, large: Results | None, draw: Draw, job: Job, model: nn.Module) -> list[dict[str, Any]]:
    """Every interval whose truth can be had, with that truth."""
    found = []
    every = {m.name: m for c in results.chapters for m in c.measurements if m.interval is not None}
    if large is not None:
        truths = {m.name: m for c in large.chapters for m in c.measurements if math.isfinite(m.value)}
        told = {d.name: d.truth for d in declared_measures()}
        for name, m in every.items():
            target = told.get(name)
            if target is None or target not in truths:
                continue
            truth = truths[target]
            if target != name or truth.n >= 8 * m.n:
                found.append(_record(m, truth.value, truth.interval))
    share = float(draw.wrong.double().mean())
    planted = {"labels.noise": share, "labels.expected_wrong": float(draw.wrong.sum())}
    if "outliers.share" in every and draw.y.dim() == 2:
        planted["outliers.share"] = _visible(model, draw)
    found += [_record(every[name], truth) for name, truth in planted.items() if name in every]
    return found


def label_verdict(results: Results, model: nn.Module, refits: Refits, draw: Draw) -> dict[str, Any]:
    """Ours and the rivals' rankings of wrong labels, from the same refits, and what the finding says."""
    table = results.tables["examples"]
    found: dict[str, Any] = {"planted": float(draw.wrong.double().mean()), "finding": _finding(results)}
    share = next((m for c in results.chapters for m in c.measurements if m.name == "labels.noise"), None)
    found["reliable"] = None if share is None else share.reliable
    if "p_wrong_label" not in table or not bool(draw.wrong.any()):
        return found
    wrong = draw.wrong.numpy()
    with torch.no_grad():
        f = model(draw.x)
    loss = torch.nn.functional.cross_entropy(f, draw.y, reduction="none")
    p = np.asarray(table["p_wrong_label"], dtype=float)
    scores = {"memspace": p, "training loss": loss.numpy()}
    probabilities, times = refits.probabilities()
    if refits.made:  # an example that every refit saw is judged by the network itself
        probabilities = torch.where((times > 0)[:, None], probabilities, torch.softmax(f.double(), -1))
        scores["held-out loss"] = -probabilities.gather(1, draw.y[:, None])[:, 0].clamp_min(1e-12).log().numpy()
        scores["cleanlab"] = _cleanlab(draw.y.numpy(), probabilities.numpy())
    found["precision"] = {name: float(average_precision_score(wrong, score)) for name, score in scores.items()}
    found["probability"] = [[round(float(a), 4), int(b)] for a, b in zip(p, wrong, strict=True)]
    return found


def _cleanlab(y: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Its recommended score: self-confidence of cross-validated probabilities."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return 1 - probabilities[np.arange(len(y)), y]  # what that function computes
    return 1 - np.asarray(get_label_quality_scores(y, probabilities))


def _finding(results: Results) -> str:
    """``alarm`` (labels look wrong), ``none`` (none does), ``unsure``, or ``absent``."""
    titles = [(f.title.lower(), f.level) for f in results.chapter("stored").findings]
    about = [level for title, level in titles if "label" in title and "pair" not in title]
    if not about:
        return "absent"
    level = about[0]
    return "alarm" if level in ("bad", "warn") else "none" if level == "good" else "unsure"


def outlier_verdict(results: Results, model: nn.Module, draw: Draw) -> dict[str, Any]:
    """Planted outliers: average precision of the audit's probability and of |residual|."""
    table = results.tables["examples"]
    with torch.no_grad():
        residual = (model(draw.x) - draw.y).square().sum(1).numpy()
    wrong = draw.wrong.numpy()
    found: dict[str, Any] = {"precision": {"residual": float(average_precision_score(wrong, residual))}}
    column = next((c for c in table if "outlier" in c and c.startswith("p_")), None)
    if column is not None:
        p = np.asarray(table[column], dtype=float)
        found["precision"]["memspace"] = float(average_precision_score(wrong, p))
        found["probability"] = [[round(float(a), 4), int(b)] for a, b in zip(p, wrong, strict=True)]
    return found
