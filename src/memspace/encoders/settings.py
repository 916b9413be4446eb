"""How encoders are measured: one rule for all of them, so that their numbers compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from memspace.arguments import check_fields
from memspace.limits import COUNT, POSITIVE, SEED, SEVERAL, WHOLE
from memspace.measures.scores.score import ScoreSettings

__all__ = ["EncoderMeasuring"]

COLLAPSED = 0.05  # standard deviation of a code's mean below which it says nothing, as in the 2019 study


@dataclass(frozen=True)
class EncoderMeasuring:
    """What is the same for every encoder; a change makes other numbers.

    Args:
        rows: images whose codes are scored, at most.
        scores: by rotations and by leaving out parts.
        without_null: scores that take too long for a null of rotations.
        turns: rotations of the null.
        folds: parts of the codes that are left out in turn.
        places: images around which factors are moved.
        loops: images around which a pair of factors is carried in a loop.
        neighbours: of a cloud, of the holonomy of representations.
        probed: images at which the input metric is taken.
        cut: training images that a pruned copy is judged on.
        rise: share of what an encoder tells that pruning may cost.
        seed: of every draw.

    Raises:
        SettingsError: one of them is out of its range.
    """

    rows: Annotated[int, SEVERAL] = 1500
    scores: tuple[str, ...] = (
        "beta_vae", "dci", "explicitness", "factor_vae", "irs", "mig", "modularity", "sap", "snc",
    )  # fmt: skip
    without_null: tuple[str, ...] = ("nk",)
    turns: Annotated[int, WHOLE] = 19
    folds: Annotated[int, SEVERAL] = 5
    places: Annotated[int, SEVERAL] = 100
    loops: Annotated[int, SEVERAL] = 16
    neighbours: Annotated[int, SEVERAL] = 64
    probed: Annotated[int, SEVERAL] = 100
    cut: Annotated[int, COUNT] = 500
    rise: Annotated[float, POSITIVE] = 0.05
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_fields(self, besides=("scores", "without_null"))

    @property
    def scoring(self) -> ScoreSettings:
        """Settings of the scores: those of the study but for the forests of DCI and fewer votes."""
        return ScoreSettings(points=2000, judged=1000, seed=self.seed)
