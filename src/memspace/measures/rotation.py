"""What a rotation of the codes changes: scores of single units, but no Fisher angle. And DCI at the best rotation.

The metric of a normal posterior N(μ, S) is that of the family of laws, so carrying both along, μ Q and Qᵀ S Q, leaves
g_ab as it is. Where S is isotropic the rotated posterior is one of the same kind, and the rotated encoder as good a
model as the first. Scores that look for factors in single units fall all the same. So Fisher orthogonality can't imply
them, and a fair comparison takes them at the rotation that serves them best.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from memspace.geometry.factor_loop import STEP, Render, read_at
from memspace.measures.factor_metric import Encoder, cosines, encoder_directions
from memspace.measures.scores.dci import dci
from memspace.measures.scores.repeated import one_more
from memspace.measures.scores.repeated import rotations as rotations_of
from memspace.measures.scores.score import Codes, Levels, ScoreSettings, scores_named
from memspace.value import Value

__all__ = [
    "AlignedDci",
    "RotationIntervention",
    "aligned_dci",
    "aligned_rotation",
    "rotated_encoder",
    "rotation_intervention",
]

SCORES = ("mig", "dci", "sap")
SWEEPS = 4
ANGLES = np.linspace(-math.pi / 4, math.pi / 4, 19)  # a quarter turn swaps two codes and changes nothing
RANDOM_STARTS = 3
CENTRE = 9  # position of no rotation among the angles


@dataclass(frozen=True)
class RotationIntervention:
    """Scores and angles of an encoder before and after random rotations of its latent.

    Args:
        before: score by name, of the encoder as it is.
        after: mean of each score over rotations; the interval holds 95% of single rotations.
        change: largest change of any |cos| between two factors at any input, over all rotations.
        isotropic: largest variance of a posterior over its smallest; 1 where a rotated posterior is of the same kind.
    """

    before: dict[str, float]
    after: dict[str, Value]
    change: float
    isotropic: float


def rotated_encoder(encoder: Encoder, rotation: Tensor) -> Encoder:
    """Rotate the latent of an encoder: μ Q and Qᵀ S Q.

    Args:
        encoder: inputs ↦ mean (B, d) and variance (B, d) or covariance (B, d, d).
        rotation: Q (d, d), orthogonal.

    Returns:
        an encoder whose posteriors have covariances (B, d, d).
    """

    def rotated(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = encoder(x)
        q = rotation.to(mean)
        covariance = spread if spread.dim() == 3 else torch.diag_embed(spread)
        return mean @ q, q.mT @ covariance @ q

    return rotated


def rotation_intervention(
    encoder: Encoder,
    render: Render,
    levels: Tensor,
    names: Sequence[str],
    factors: Sequence[int],
    *,
    rotations: int = 5,
    step: float = STEP,
    seed: int = 0,
) -> RotationIntervention:
    """Rotate an encoder's latent at random and compare scores and Fisher angles before and after.

    Args:
        encoder: inputs ↦ mean (B, d) and variance (B, d) or covariance (B, d, d).
        render: levels ↦ inputs.
        levels: (M, K) whole levels at which codes are read and factors are moved.
        names: of all factors.
        factors: positions of those that are moved.
        rotations: number of random rotations.
        step: of the central differences, in levels.
        seed: random seed of rotations and scores.

    Returns:
        MIG, DCI and SAP of the means before and after, and the largest change of an angle.
    """
    levels = levels.double()
    v = levels.numpy().round().astype(np.int64)
    z = read_at(lambda x: encoder(x)[0], render, levels).numpy()
    spread = read_at(lambda x: encoder(x)[1], render, levels)
    width = z.shape[1]
    scale = spread if spread.shape[1] == width else torch.linalg.eigvalsh(spread.reshape(-1, width, width))
    before = cosines(encoder_directions(encoder, render, levels, names, factors, step).metric)
    scores: dict[str, list[float]] = {name: [] for name in SCORES}
    change = 0.0
    for q in rotations_of(width, rotations, seed):
        turned = rotated_encoder(encoder, torch.from_numpy(q))
        after = cosines(encoder_directions(turned, render, levels, names, factors, step).metric)
        change = max(change, float((after - before).nan_to_num().abs().max()))
        for name, value in _scores(z @ q, v, seed).items():
            scores[name].append(value)
    means = {name: np.asarray(values) for name, values in scores.items()}
    return RotationIntervention(
        _scores(z, v, seed),
        {n: Value(float(x.mean()), rotations, one_more(x), how="95% of single rotations") for n, x in means.items()},
        change,
        float((scale.amax(1) / scale.amin(1)).max()),
    )


def _scores(z: Codes, v: Levels, seed: int) -> dict[str, float]:
    settings = ScoreSettings(seed=seed)
    return {s.name: s.compute(z, v, settings)[s.name] for s in scores_named(SCORES)}


@dataclass(frozen=True)
class AlignedDci:
    """DCI of held-out codes at the rotation that was chosen for it, and as they are.

    Args:
        rotation: (d, d), codes become z @ rotation.
        disentanglement: at that rotation, in [0, 1].
        completeness: likewise.
        informativeness: likewise, a share of right predictions.
        unrotated: disentanglement of the same codes as they are.
        n: held-out codes.
    """

    rotation: Codes
    disentanglement: float
    completeness: float
    informativeness: float
    unrotated: float
    n: int


def aligned_dci(z: Codes, v: Levels, seed: int = 0) -> AlignedDci:
    """Compute DCI (Eastwood & Williams 2018) at the rotation in O(d) that serves it best.

    It is the fair competitor of quantities that no rotation changes. The rotation is chosen on every second code and
    scored on the others, so that the choice adds no optimism. The search may miss the best one: a lower bound.

    Args:
        z: (M, d) codes.
        v: (M, K) levels of the factors.
        seed: random seed of starts and forests.

    Returns:
        the scores on held-out codes.
    """
    rotation = aligned_rotation(z[::2], v[::2], seed)
    rest, levels = z[1::2], v[1::2]
    settings = ScoreSettings(seed=seed)
    best, plain = dci(rest @ rotation, levels, settings), dci(rest, levels, settings)
    return AlignedDci(rotation, *best, plain[0], len(rest))


def aligned_rotation(z: Codes, v: Levels, seed: int = 0) -> Codes:
    """Search the rotation at which each code is explained by one factor alone.

    The importance of a factor for a code is the correlation ratio η², the share of the code's variance between the
    factor's levels. It is a ratio of quadratic forms in the code's direction, so a rotation costs no new fit. The
    disentanglement of DCI with these importances is raised by rotations in planes of two codes, from the codes as they
    are, the nearest rotation to independent components (FastICA), the factors' own directions, and random ones.

    Args:
        z: (M, d) codes.
        v: (M, K) levels of the factors.
        seed: random seed of starts.

    Returns:
        (d, d) orthogonal Q; the codes are z @ Q. The best of all starts, not worse than the identity on these codes.
    """
    z = z - z.mean(0)
    total = z.T @ z / len(z)
    between = np.stack([_between(z, column) for column in v.T])
    width = z.shape[1]
    starts = [np.eye(width), *rotations_of(width, RANDOM_STARTS, seed)]
    starts += [q for q in (_independent(z, seed), _by_factor(between, total)) if q is not None]
    return max((_climbed(q, between, total) for q in starts), key=lambda q: _objective(q, between, total))


def _between(z: Codes, column: Levels) -> Codes:
    """Covariance of the codes' means by level, (d, d)."""
    levels, at = np.unique(column, return_inverse=True)
    count = np.bincount(at, minlength=len(levels)).astype(float)
    means = np.stack([np.bincount(at, c, len(levels)) for c in z.T], 1) / count[:, None]
    return np.asarray((means * count[:, None]).T @ means / len(z))


def _objective(q: Codes, between: Codes, total: Codes) -> float:
    """Disentanglement with importances η² of the rotated codes."""
    explained = np.einsum("ij,kil,lj->jk", q, between, q, optimize=True)
    variance = np.einsum("ij,il,lj->j", q, total, q, optimize=True)
    importance = np.maximum(explained, 0) / np.maximum(variance, 1e-300)[:, None]
    weight = importance.sum(1)
    if importance.shape[1] < 2 or weight.sum() <= 0:
        return 0.0
    share = importance / np.maximum(weight, 1e-300)[:, None]
    entropy = -(share * np.log(np.maximum(share, 1e-300))).sum(1) / math.log(importance.shape[1])
    return float((weight * (1 - entropy)).sum() / weight.sum())


def _climbed(q: Codes, between: Codes, total: Codes) -> Codes:
    """Sweep over planes of two codes, finer from sweep to sweep; a step is only taken where it gains."""
    best, reached = q, _objective(q, between, total)
    for sweep in range(SWEEPS):
        for i, j in itertools.combinations(range(len(q)), 2):
            tried = [_turned(best, i, j, a / 3.0**sweep) for a in np.delete(ANGLES, CENTRE)]
            values = [_objective(t, between, total) for t in tried]
            k = int(np.argmax(values))
            if values[k] > reached:
                best, reached = tried[k], values[k]
    return best


def _turned(q: Codes, i: int, j: int, angle: float) -> Codes:
    out = q.copy()
    c, s = math.cos(angle), math.sin(angle)
    out[:, i], out[:, j] = c * q[:, i] - s * q[:, j], s * q[:, i] + c * q[:, j]
    return out


def _nearest(matrix: Codes) -> Codes:
    """The orthogonal matrix nearest to a square one."""
    u, _, vh = np.linalg.svd(matrix)
    return np.asarray(u @ vh)


def _independent(z: Codes, seed: int) -> Codes | None:
    """The rotation nearest to the directions of independent components; None where there are none to be found."""
    if np.linalg.matrix_rank(z) < z.shape[1]:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it only gives a start
        ica = FastICA(whiten="unit-variance", random_state=seed, max_iter=400).fit(z)
    return _nearest(ica.components_.T / np.linalg.norm(ica.components_, axis=1))


def _by_factor(between: Codes, total: Codes) -> Codes | None:
    """The rotation nearest to each factor's own best direction, the largest eigenvector of its η²."""
    root = np.linalg.cholesky(total + 1e-9 * np.trace(total) / len(total) * np.eye(len(total)))
    inverse = np.linalg.inv(root)
    leading = [inverse.T @ np.linalg.eigh(inverse @ b @ inverse.T)[1][:, -1] for b in between][: len(total)]
    matrix = np.stack([w / np.linalg.norm(w) for w in leading], 1)
    rest = np.linalg.svd(matrix, full_matrices=True)[0][:, matrix.shape[1] :]
    return _nearest(np.concatenate([matrix, rest], 1))
