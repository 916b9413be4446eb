"""Scores of codes against known factors: MIG, DCI, SAP, and the orthogonality of directions. Pure functions.

All scores lie in 0..1 and take codes ``z`` (M, d) and integer levels ``v`` (M, K). A factor with a single level is
left out; where none is left, or where a score compares codes and there is only one, it is NaN.
Settings follow Locatello et al. 2019 (20 bins, linear SVM with C = 0.01, balanced classes) except DCI's regressor.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import mutual_info_score
from sklearn.svm import LinearSVC
from torch import Tensor

__all__ = ["Codes", "Levels", "dci", "mig", "orthogonality", "random_cosine", "sap"]

Codes = NDArray[np.float64]
Levels = NDArray[np.int64]

NEGLIGIBLE = 1e-5  # of an example's longest direction: below it, rounding decides where a direction points


def _bins(z: Codes, count: int = 20) -> Levels:
    edges = [np.histogram_bin_edges(c, count)[1:-1] for c in z.T]
    return np.stack([np.digitize(c, e) for c, e in zip(z.T, edges, strict=True)], 1).astype(np.int64)


def mig(z: Codes, v: Levels) -> float:
    """Compute the mutual information gap: between a factor's two most informative codes, over the factor's entropy.

    The estimate is the plug-in mutual information of 20 equal-width bins (Chen et al. 2018a). Its bias is about
    19 (levels − 1)/(2M) nats for every code, and cancels in the gap except where a code is exact.

    Args:
        z: (M, d) codes.
        v: (M, K) levels of the factors.

    Returns:
        the mean gap over the factors that vary, in [0, 1]; NaN where none varies.
    """
    b = _bins(z)
    gaps = []
    for k in range(v.shape[1]):
        information = np.sort([mutual_info_score(v[:, k], c) for c in b.T])[::-1]
        entropy = mutual_info_score(v[:, k], v[:, k])
        if entropy > 1e-12:
            second = information[1] if len(information) > 1 else 0.0
            gaps.append((information[0] - second) / entropy)
    return float(np.mean(gaps)) if gaps else math.nan


def dci(z: Codes, v: Levels, seed: int = 0) -> tuple[float, float, float]:
    """Compute disentanglement, completeness and informativeness (Eastwood & Williams 2018).

    Importances are the impurity decreases of a random forest per factor (50 trees, depth 8, every code offered at
    every split, so that an exact code takes all the importance). Gradient boosting, as in Locatello et al., costs ten
    times as much. Half the samples train, the other half give the informativeness.

    Args:
        z: (M, d) codes.
        v: (M, K) levels of the factors.
        seed: random seed of the forests.

    Returns:
        disentanglement and completeness in [0, 1], and informativeness, a share of right predictions. The first two are
        NaN where no code is informative; all three where no factor varies.
    """
    half = len(z) // 2
    importance, accuracy = [], []
    for k in range(v.shape[1]):
        if len(np.unique(v[:half, k])) < 2:
            continue
        forest = RandomForestClassifier(50, max_depth=8, max_features=None, random_state=seed, n_jobs=1)
        forest.fit(z[:half], v[:half, k])
        importance.append(forest.feature_importances_)
        accuracy.append(forest.score(z[half:], v[half:, k]))
    if not importance:
        return math.nan, math.nan, math.nan
    r = np.stack(importance, 1)  # (codes, factors)
    by_code = r.sum(1)
    if by_code.sum() <= 0:  # no code is informative about any factor: there is nothing to separate
        return math.nan, math.nan, float(np.mean(accuracy))
    used = by_code > 0
    disentangled = float((_concentration(r)[used] * by_code[used]).sum() / by_code.sum())
    explained = r.sum(0) > 0  # factors that some code is informative about
    return disentangled, float(_concentration(r.T[explained]).mean()), float(np.mean(accuracy))


def _concentration(p: Codes) -> Codes:
    """1 − entropy of each row over the most it could be; NaN where there is nothing to choose from."""
    if p.shape[-1] < 2:
        return np.full(len(p), math.nan)
    total = p.sum(-1)
    q = p / np.maximum(total, 1e-300)[:, None]
    entropy = -(q * np.log(np.maximum(q, 1e-300))).sum(-1)
    return np.where(total > 0, 1 - entropy / math.log(q.shape[-1]), math.nan)


def sap(z: Codes, v: Levels, seed: int = 0) -> float:
    """Compute the mean gap in held-out accuracy between the two codes that predict a factor best (Kumar et al. 2018).

    Args:
        z: (M, d) codes; half the samples train a linear classifier on each.
        v: (M, K) levels of the factors.
        seed: random seed of the classifiers.

    Returns:
        the mean gap over the factors that vary, in [0, 1]; NaN where none varies.
    """
    half = len(z) // 2
    scale = np.maximum(z.std(0), 1e-12)
    gaps = []
    for k in range(v.shape[1]):
        if len(np.unique(v[:half, k])) < 2:
            continue
        scores = []
        for c in range(z.shape[1]):
            x = z[:, c : c + 1] / scale[c]
            svm = LinearSVC(C=0.01, dual=False, class_weight="balanced", random_state=seed)
            scores.append(svm.fit(x[:half], v[:half, k]).score(x[half:], v[half:, k]))
        ordered = np.sort(scores)[::-1]
        gaps.append(ordered[0] - (ordered[1] if len(ordered) > 1 else 0.0))
    return float(np.mean(gaps)) if gaps else math.nan


def orthogonality(directions: Tensor) -> Tensor:
    """Compute 1 − mean |cos| over pairs of directions, per example.

    Args:
        directions: (M, K, d); those without length are left out.

    Returns:
        (M,) in [0, 1]; NaN for an example with fewer than two directions of some length.
    """
    norm = directions.norm(dim=-1)
    alive = (norm > NEGLIGIBLE * norm.amax(1, keepdim=True)) & (norm > 0)
    unit = directions / norm.clamp_min(1e-300).unsqueeze(-1)
    cosine = (unit @ unit.transpose(1, 2)).abs()
    pair = alive.unsqueeze(1) & alive.unsqueeze(2)
    pair &= ~torch.eye(pair.shape[1], dtype=torch.bool, device=pair.device)
    count = pair.sum((1, 2))
    mean = (cosine * pair).sum((1, 2)) / count.clamp_min(1)
    return torch.where(count > 0, 1 - mean, torch.nan)


def random_cosine(dimension: int) -> float:
    """Compute E |cos| of two independent isotropic directions, Γ(d/2) / (√π Γ((d+1)/2)): about √(2/(πd)).

    Args:
        dimension: d.

    Returns:
        the expectation, exact.
    """
    return math.exp(math.lgamma(dimension / 2) - math.lgamma((dimension + 1) / 2)) / math.sqrt(math.pi)
