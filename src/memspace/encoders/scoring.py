"""Scores of an encoder's codes against the factors of the images."""

from __future__ import annotations

import numpy as np

from memspace.encoders.model import Posterior
from memspace.encoders.reading import EncoderReading
from memspace.encoders.settings import COLLAPSED, EncoderMeasuring
from memspace.measures.rotation import aligned_dci
from memspace.measures.scores.every_score import score_all, standardised
from memspace.measures.scores.score import Levels
from memspace.value import Absent, Value

__all__ = ["score_readings"]

ONE = "1"


def score_readings(codes: Posterior, v: Levels, settings: EncoderMeasuring) -> list[EncoderReading]:
    """Score the means of posteriors.

    Args:
        codes: of M images in random order.
        v: (M, K) levels of their factors.
        settings: of the measures.

    Returns:
        Every number of every score with interval, the null of rotations and its chance; DCI at the rotation that
        serves it best, as ``aligned_dci``; and how many units vary, as ``active``.
    """
    z = codes.mean.double().numpy()
    readings = []
    for names, turns in ((settings.scores, settings.turns), (settings.without_null, 0)):
        if names:
            scored = score_all(z, v, settings.scoring, names=names, folds=settings.folds, turns=turns)
            readings += [EncoderReading(n, ONE, r.value, r.null, r.chance) for n, r in scored.items()]
    return [*readings, _aligned(z, v, settings), _active(z)]


def _aligned(z: np.ndarray, v: Levels, settings: EncoderMeasuring) -> EncoderReading:
    codes = standardised(z, COLLAPSED)
    active = codes[:, codes.any(0)]
    if active.shape[1] < 2:
        nothing = Absent("fewer than two units vary", "train it with less strength")
        return EncoderReading("aligned_dci", ONE, nothing)
    best = aligned_dci(active, v, settings.seed)
    note = "one choice of the rotation: no interval"
    return EncoderReading("aligned_dci", ONE, Value(best.disentanglement, best.n, reliable=False, note=note))


def _active(z: np.ndarray) -> EncoderReading:
    count = int((z.std(0) > COLLAPSED).sum())
    return EncoderReading("active", ONE, Value(float(count), len(z), how=f"units of standard deviation > {COLLAPSED}"))
