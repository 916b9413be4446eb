"""Does a layer keep known factors apart? MIG, DCI, SAP and Fisher orthogonality, each with a random null.

MIG: Chen et al. 2018; DCI: Eastwood & Williams 2018; SAP: Kumar et al. 2018; discretisation as in Locatello et al.
2019 (20 bins). A random rotation of the representation is the null: it keeps all information and destroys alignment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import mutual_info_score
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from memspace.measurement import Measurement, Unmeasured
from memspace.progress import Progress
from memspace.task.checks import evaluating
from memspace.task.data import call_model
from memspace.task.task import Factors, Task

__all__ = [
    "Disentanglement",
    "dci",
    "disentangle",
    "fisher_orthogonality",
    "mig",
    "orthogonality",
    "representation",
    "sap",
]

Codes = NDArray[np.float64]
Levels = NDArray[np.int64]

MAX_CODES = 10
SAMPLES = 1000
ROTATIONS = 5


@dataclass(frozen=True)
class Disentanglement:
    """What was measured; ``layer`` and ``codes`` say on what."""

    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    layer: str
    codes: str


def representation(task: Task, inputs: Tensor, layer: str | None = None) -> tuple[Tensor, str]:
    """A layer's output (M, d) on inputs; by default the input of the last linear layer."""
    modules = dict(task.model.named_modules())
    linear = [n for n, m in modules.items() if isinstance(m, nn.Linear)]
    name = layer if layer is not None else (linear[-1] if linear else "")
    kept: list[Tensor] = []

    def hook(_m: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        kept.append((output if layer is not None else args[0]).detach())

    handle = modules[name].register_forward_hook(hook)
    out = []
    try:
        with torch.no_grad(), evaluating(task.model):
            for part in torch.split(inputs, 512):
                kept.clear()
                call_model(task.model, part.to(task.device, task.dtype))
                out.append(kept[0].flatten(1).double().cpu())
    finally:
        handle.remove()
    return torch.cat(out), name if layer is not None else f"the input of {name}"


def _bins(z: Codes, count: int = 20) -> Levels:
    edges = [np.histogram_bin_edges(c, count)[1:-1] for c in z.T]
    return np.stack([np.digitize(c, e) for c, e in zip(z.T, edges, strict=True)], 1).astype(np.int64)


def mig(z: Codes, v: Levels) -> float:
    """Mean gap between the two codes most informative about each factor, over the factor's entropy: 0..1."""
    b = _bins(z)
    gaps = []
    for k in range(v.shape[1]):
        information = np.sort([mutual_info_score(v[:, k], c) for c in b.T])[::-1]
        entropy = mutual_info_score(v[:, k], v[:, k])
        if entropy > 0:
            second = information[1] if len(information) > 1 else 0.0
            gaps.append((information[0] - second) / entropy)
    return float(np.mean(gaps)) if gaps else math.nan


def dci(z: Codes, v: Levels, seed: int = 0) -> tuple[float, float, float]:
    """Disentanglement, completeness, informativeness from a random forest per factor (50 trees): each 0..1."""
    half = len(z) // 2
    importance, accuracy = [], []
    for k in range(v.shape[1]):
        forest = RandomForestClassifier(50, max_depth=8, max_features=None, random_state=seed, n_jobs=1)
        forest.fit(z[:half], v[:half, k])
        importance.append(forest.feature_importances_)
        accuracy.append(forest.score(z[half:], v[half:, k]))
    r = np.stack(importance, 1)  # (codes, factors)
    by_code = r.sum(1)

    def spread(p: Codes) -> Codes:
        q = p / np.maximum(p.sum(-1, keepdims=True), 1e-300)
        entropy = -(q * np.log(np.maximum(q, 1e-300))).sum(-1)
        return np.asarray(1 - entropy / math.log(q.shape[-1]))

    disentangled = float((spread(r) * by_code).sum() / by_code.sum())
    complete = float(spread(r.T).mean())
    return disentangled, complete, float(np.mean(accuracy))


def sap(z: Codes, v: Levels, seed: int = 0) -> float:
    """Mean gap in accuracy between the two codes that predict each factor best through a linear SVM: 0..1."""
    half = len(z) // 2
    scale = np.maximum(z.std(0), 1e-12)
    gaps = []
    for k in range(v.shape[1]):
        scores = []
        for c in range(z.shape[1]):
            x = z[:, c : c + 1] / scale[c]
            svm = LinearSVC(C=0.01, dual=False, class_weight="balanced", random_state=seed)
            scores.append(svm.fit(x[:half], v[:half, k]).score(x[half:], v[half:, k]))
        ordered = np.sort(scores)[::-1]
        gaps.append(ordered[0] - (ordered[1] if len(ordered) > 1 else 0.0))
    return float(np.mean(gaps))


def orthogonality(directions: Tensor) -> Tensor:
    """1 − mean |cos| off the diagonal, per example; directions (M, K, d), zero ones left out; NaN with fewer than two."""
    norm = directions.norm(dim=-1)
    alive = norm > 1e-9 * norm.max().clamp_min(1e-300)
    unit = directions / norm.clamp_min(1e-300).unsqueeze(-1)
    cosine = (unit @ unit.transpose(1, 2)).abs()
    pair = alive.unsqueeze(1) & alive.unsqueeze(2)
    pair &= ~torch.eye(pair.shape[1], dtype=torch.bool, device=pair.device)
    count = pair.sum((1, 2))
    mean = (cosine * pair).sum((1, 2)) / count.clamp_min(1)
    return torch.where(count > 0, 1 - mean, torch.nan)


def fisher_orthogonality(task: Task, factors: Factors, count: int, seed: int) -> tuple[Tensor, int]:
    """Fisher orthogonality of factor directions at the network's output, pointwise (M,), and the root's dimension.

    g_ab = (∂_a f)ᵀ H (∂_b f), derivatives of the outputs along each ordered factor by central differences of the
    renderer; factors without an order (two or three levels of kind) are left out by the caller.
    """
    assert factors.render is not None
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(factors.values), generator=generator)[:count]
    levels = factors.values[chosen].double()
    ordered = [k for k, s in enumerate(factors.sizes) if s > 3]
    moved = []
    with torch.no_grad(), evaluating(task.model):
        base = call_model(task.model, factors.render(levels).to(task.device, task.dtype)).double()
        root = task.likelihood.fisher_root(base)
        for k in ordered:
            step = torch.zeros_like(levels)
            step[:, k] = 0.5
            up = call_model(task.model, factors.render(levels + step).to(task.device, task.dtype)).double()
            down = call_model(task.model, factors.render(levels - step).to(task.device, task.dtype)).double()
            moved.append(torch.einsum("nck,nc->nk", root, up - down))
    return orthogonality(torch.stack(moved, 1)), root.shape[-1]


def _codes(z: Tensor) -> tuple[Codes, str]:
    """The representation standardised as codes: as it is where small, else its leading principal components."""
    z = z - z.mean(0)
    if z.shape[1] <= MAX_CODES:
        return z.numpy(), f"{z.shape[1]} units"
    _, s, vh = torch.linalg.svd(z, full_matrices=False)
    kept = (s[:MAX_CODES].square().sum() / s.square().sum()).item()
    return (z @ vh[:MAX_CODES].t()).numpy(), f"{MAX_CODES} leading principal components, {kept:.0%} of the variance"


def _rotations(width: int, seed: int) -> list[Codes]:
    generator = np.random.default_rng(seed)
    out = []
    for _ in range(ROTATIONS):
        q, r = np.linalg.qr(generator.standard_normal((width, width)))
        out.append(q * np.sign(np.diag(r)))
    return out


def disentangle(task: Task, *, seed: int, progress: Progress) -> Disentanglement:
    """All scores of ``task.layer`` on ``task.factors``, with nulls. The task must have factors."""
    factors = task.factors
    assert factors is not None
    generator = torch.Generator().manual_seed(seed + 10)
    chosen = torch.randperm(len(factors.values), generator=generator)[:SAMPLES]
    raw, layer = representation(task, factors.inputs[chosen], task.layer)
    z, codes = _codes(raw)
    v = factors.values[chosen].numpy().astype(np.int64)
    n = len(z)
    measurements: list[Measurement] = []
    variants = [z, *(z @ q for q in _rotations(z.shape[1], seed + 11))]
    scores: dict[str, list[float]] = {
        "mig": [],
        "dci": [],
        "dci.completeness": [],
        "dci.informativeness": [],
        "sap": [],
    }
    for x in progress.track(variants, "disentanglement scores", len(variants)):
        scores["mig"].append(mig(x, v))
        d, c, i = dci(x, v, seed)
        scores["dci"].append(d)
        scores["dci.completeness"].append(c)
        scores["dci.informativeness"].append(i)
        scores["sap"].append(sap(x, v, seed))
    sources = {"mig": "Chen et al. 2018", "dci": "Eastwood & Williams 2018", "sap": "Kumar et al. 2018"}
    for key, values in scores.items():
        null = np.asarray(values[1:])
        half = 1.96 * float(null.std(ddof=1))
        how = {"mig": "20-bin histograms", "sap": "linear SVM"}.get(
            key, "random forests, 50 trees, half the samples held out"
        )
        measurements.append(
            Measurement(
                f"disentanglement.{key}",
                values[0],
                "1",
                f"{how}; {codes}",
                n,
                None,
                sources[key.split(".")[0]],
            )
        )
        measurements.append(
            Measurement(
                f"disentanglement.{key}.null",
                float(null.mean()),
                "1",
                f"the same after {ROTATIONS} random rotations; interval: their spread",
                n,
                (float(null.mean()) - half, float(null.mean()) + half),
            )
        )
    unmeasured: list[Unmeasured] = []
    if factors.render is None:
        unmeasured.append(
            Unmeasured(
                "disentanglement.fisher_orthogonality",
                "the inputs cannot be rendered from their factors",
                "hand over Factors(render=...)",
            )
        )
    else:
        o, width = fisher_orthogonality(task, factors, 500, seed + 12)
        o = o[torch.isfinite(o)]
        half = 1.96 * float(o.std()) / max(len(o), 2) ** 0.5
        measurements.append(
            Measurement(
                "disentanglement.fisher_orthogonality",
                float(o.mean()),
                "1",
                "pointwise 1 − mean |cos| of factor directions under the output's Fisher metric",
                len(o),
                (float(o.mean()) - half, float(o.mean()) + half),
                "THEORY 7",
            )
        )
        g = torch.Generator().manual_seed(seed + 13)
        directions = torch.randn(
            len(o), sum(s > 3 for s in factors.sizes), max(width - 1, 1), generator=g, dtype=torch.float64
        )
        floor = orthogonality(directions)
        half = 1.96 * float(floor.std()) / len(floor) ** 0.5
        measurements.append(
            Measurement(
                "disentanglement.fisher_orthogonality.null",
                float(floor.mean()),
                "1",
                f"random directions in {max(width - 1, 1)} dimensions",
                len(floor),
                (float(floor.mean()) - half, float(floor.mean()) + half),
            )
        )
    return Disentanglement(tuple(measurements), tuple(unmeasured), layer, codes)
