"""Scores of an encoder's codes against the factors of the images."""

from __future__ import annotations

from memspace.encoders.model import Posterior
from memspace.encoders.reading import EncoderReading
from memspace.encoders.settings import COLLAPSED, EncoderMeasuring
from memspace.measures.rotation import aligned_dci
from memspace.measures.scores.every_score import score_all, standardised
from memspace.measures.scores.score import Levels, scores_named
from memspace.value import Absent, Value

__all__ = ["score_readings"]

ONE = "1"


def score_readings(codes: Posterior, v: Levels, settings: EncoderMeasuring) -> list[EncoderReading]:
    """Score the means of posteriors.

    Units whose means hardly vary are left out first. Kept, they would lower modularity, which counts them as 0, and
    raise completeness, whose scale is the number of units.

    Args:
        codes: of M images in random order.
        v: (M, K) levels of their factors.
        settings: of the measures.

    Returns:
        Every number of every score with interval, the null of rotations and its chance; DCI at the rotation that
        serves it best, as ``aligned_dci``; and how many units vary, as ``active``. Scores are absent where fewer than
        two units vary.
    """
    z, v = codes.mean.double().numpy()[: settings.rows], v[: settings.rows]
    active = z[:, z.std(0) > COLLAPSED]
    varying = EncoderReading(
        "active", ONE, Value(float(active.shape[1]), len(z), how=f"standard deviation > {COLLAPSED}")
    )
    if active.shape[1] < 2:
        nothing = Absent("fewer than two units vary", "train it with less strength")
        numbers = [n for s in scores_named((*settings.scores, *settings.without_null)) for n in s.numbers]
        return [*(EncoderReading(n, ONE, nothing) for n in (*numbers, "aligned_dci")), varying]
    readings = []
    for names, turns in ((settings.scores, settings.turns), (settings.without_null, 0)):
        if names:
            scored = score_all(active, v, settings.scoring, names=names, folds=settings.folds, turns=turns, shuffles=0)
            readings += [EncoderReading(n, ONE, r.value, r.null, r.chance) for n, r in scored.items()]
    best = aligned_dci(standardised(active), v, settings.seed)
    note = "one choice of the rotation: no interval"
    aligned = Value(best.disentanglement, best.n, reliable=False, note=note)
    return [*readings, EncoderReading("aligned_dci", ONE, aligned), varying]
