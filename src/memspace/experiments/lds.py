"""The linear datamodelling score of attribution scores, and the ceiling that seed noise sets (Park et al. 2023)."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from memspace.errors import DataError
from memspace.experiments.truth import Truth
from memspace.measurement import Measurement, from_error

__all__ = ["correlations", "lds", "lds_ceiling", "split_half"]

SOURCE = "park2023 [def. 2.5]"
SPLITS = 64  # ways to halve the seeds that are averaged
GROUPS = 12  # of subsets, each left out once
FEWEST = 6  # subsets of which one can be left out


def lds(scores: Tensor, truth: Truth, *, outcome: str = "loss") -> Measurement:
    """Measure how well summed scores predict retrained outcomes.

        LDS = mean over queries q of Spearman over subsets k of ( Σ_{i kept in k} τ_qi , mean over seeds of outcome_kq )

    Args:
        scores: τ, (Q, N) or (N, Q) (of a square one: (Q, N)); positive where the example supports the query, that is
            lowers its loss or raises its margin.
        truth: of random subsets. For one seed's batch order: ``truth.seed(s)``.
        outcome: ``loss``, ``margin`` or ``correct``.

    Returns:
        The mean with a 95% interval for other subsets and other queries: all queries share the subsets, so their
        correlations err together and the spread over queries alone says little. The error over subsets is a
        delete-a-group jackknife, that over queries is added, and Student's t has as many degrees of freedom as the
        fewer of both. A query whose summed scores do not vary counts as 0.

    Raises:
        DataError: shapes do not fit, scores are not finite, or there are fewer than three subsets.
    """
    by_query = correlations(scores, truth, outcome=outcome)
    without = [correlations(scores, part, outcome=outcome) for part in _parts(truth)]
    return _mean(f"lds.{outcome}", by_query, without, "Spearman over random subsets, mean over queries")


def correlations(scores: Tensor, truth: Truth, *, outcome: str = "loss") -> Tensor:
    """Compute the rank correlations whose mean is :func:`lds`.

    Args:
        scores: τ, (Q, N) or (N, Q).
        truth: of random subsets.
        outcome: ``loss``, ``margin`` or ``correct``.

    Returns:
        One a query, (Q,).

    Raises:
        DataError: shapes do not fit, scores are not finite, or there are fewer than three subsets.
    """
    target = truth.support(outcome).mean(1)
    masks = truth.design.kept.double()
    (k, n), q = masks.shape, target.shape[1]
    tau = scores.detach().double().cpu()
    if tau.shape == (n, q) and n != q:
        tau = tau.T
    if tau.shape != (q, n):
        raise DataError(
            f"scores are of shape {tuple(scores.shape)}, not ({q}, {n}) (queries, examples)",
            where="lds",
            remedy="score every training example for every query of the study",
        )
    if not bool(torch.isfinite(tau).all()):
        raise DataError("scores are not finite", where="lds", remedy="see what made them so")
    if k < 3:
        raise DataError(f"{k} subsets give no correlation", where="lds", remedy="retrain on at least three")
    return _spearman(masks @ tau.T, target)


def split_half(truth: Truth, outcome: str = "loss") -> Tensor:
    """Estimate the reliability of the mean over seeds by halves of the seeds and the Spearman–Brown formula.

        r = mean over splits of Spearman over subsets of (mean over half A, mean over half B), h = ⌊S/2⌋ seeds each
        R = (S/h) r / (1 + (S/h − 1) r)          [Spearman 1910, Brown 1910; for two equal halves 2r/(1 + r)]

    Negative r, which chance makes where there is little but noise, count as 0.

    Args:
        truth: of random subsets, two or more seeds each.
        outcome: ``loss``, ``margin`` or ``correct``.

    Returns:
        R of every query, (Q,).

    Raises:
        DataError: one seed, or fewer than three subsets.
    """
    y = truth.support(outcome)
    k, s, _ = y.shape
    if s < 2 or k < 3:
        raise DataError(
            f"{k} subsets × {s} seeds: the noise of seeds needs at least 3 × 2",
            where=truth.design.name,
            remedy="retrain with more seeds",
        )
    half = s // 2
    rng = np.random.default_rng(0)
    if s <= 8:
        every = [list(c) for c in combinations(range(s), half)]
    else:
        every = [rng.permutation(s)[:half].tolist() for _ in range(SPLITS)]
    halves = []
    for a in every:
        b = rng.permutation([i for i in range(s) if i not in a])[:half].tolist()
        halves.append(_spearman(y[:, a].mean(1), y[:, b].mean(1)))
    r = torch.stack(halves).mean(0).clamp_min(0)
    times = s / half
    return times * r / (1 + (times - 1) * r)


def lds_ceiling(truth: Truth, *, outcome: str = "loss") -> Measurement:
    """State the LDS that scores would reach which predict the mean over all possible seeds without error: mean of √R.

    R is the reliability of the truth's mean over its S seeds (:func:`split_half`): a noiseless predictor correlates
    √R with a measurement of reliability R (attenuation, Spearman 1904; exact for Pearson correlations, near it for
    ranks). A predictor that knows the seeds used may come above it.

    Args:
        truth: of random subsets, two or more seeds each.
        outcome: ``loss``, ``margin`` or ``correct``.

    Returns:
        The mean over queries.
    """
    r = split_half(truth, outcome)
    estimator = "√ of split-half reliability over seeds (Spearman–Brown), mean over queries"
    without = [split_half(part, outcome).sqrt() for part in _parts(truth)]
    return _mean(f"lds.{outcome}.ceiling", r.sqrt(), without, estimator, source="spearman1904, spearman1910")


def _spearman(a: Tensor, b: Tensor) -> Tensor:
    """Rank correlation over the first axis, per column; 0 where either is constant."""
    x, y = (torch.as_tensor(rankdata(t.numpy(), axis=0)) for t in (a, b))
    x, y = x - x.mean(0), y - y.mean(0)
    scale = x.norm(dim=0) * y.norm(dim=0)
    return torch.where(scale > 0, (x * y).sum(0) / scale.clamp_min(1e-300), 0.0)


def _parts(truth: Truth) -> list[Truth]:
    """The truth without one group of subsets at a time; none where too few would be left."""
    k = len(truth.design.kept)
    groups = min(k, GROUPS)
    if k < FEWEST:
        return []
    of = torch.arange(k) % groups
    return [truth.of_subsets(of != g) for g in range(groups)]


def _mean(name: str, values: Tensor, without: list[Tensor], estimator: str, source: str = SOURCE) -> Measurement:
    mean, n = float(values.mean()), len(values)
    if not without:
        note = f"fewer than {FEWEST} subsets: no error over them"
        return Measurement(name, mean, "1", estimator, n, None, source, False, note)
    parts = torch.stack([v.mean() for v in without])
    groups = len(parts)
    variance = (groups - 1) / groups * float((parts - parts.mean()).square().sum())
    if n > 1:
        variance += float(values.var()) / n
    note = "" if n > 1 else "one query: the interval holds for it alone"
    df = min(groups, n if n > 1 else groups) - 1
    return from_error(
        name, mean, variance**0.5, "1", estimator, n, df=df, lower=-1.0, upper=1.0, source=source, note=note
    )
