"""How memory is counted: one rule for all networks, so that their bits compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from memspace.arguments import check_fields
from memspace.limits import COUNT, DAMPING, POSITIVE, SEED, SEVERAL, WHOLE, Limit
from memspace.measures.predictors.learning_coefficient import SamplingSettings

__all__ = ["CountSettings"]

DRAWS = Limit(8, 2**31, whole=True)


@dataclass(frozen=True)
class CountSettings:
    """What is the same for every network; a change makes other numbers.

    A label is the unit: the N labels of a training set are its predictions, all positions of all sequences.

    Args:
        damping: γ, nats per label and squared unit of the weights. The prior of the counts is N(θ*, I/α) with α = Nγ.
        epsilon: ε of the admissible configurations {θ : KL ≤ ε}, nats per label.
        chains: of the learning coefficient.
        warmup: draws of each that are not used.
        draws: of each that are used.
        leaps: gradients a draw takes. Chains start at the weights and take hundreds of them to spread.
        directions: leading Fisher eigenvectors whose curvature the chains are told, so that they take longer steps.
        rows: Fisher rows (labels × outputs) that are formed at a time.
        seed: of the chains.

    Raises:
        SettingsError: one of them is out of its range.
    """

    damping: Annotated[float, DAMPING] = 1e-3
    epsilon: Annotated[float, POSITIVE] = 0.01
    chains: Annotated[int, SEVERAL] = 3
    warmup: Annotated[int, WHOLE] = 60
    draws: Annotated[int, DRAWS] = 50
    leaps: Annotated[int, COUNT] = 10
    directions: Annotated[int, WHOLE] = 400
    rows: Annotated[int, COUNT] = 4000
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_fields(self)

    def sampling(self, precision: float) -> SamplingSettings:
        """Give the settings of the learning coefficient's chains.

        Args:
            precision: α of the prior, which holds the draws near the weights.

        Returns:
            The settings.
        """
        return SamplingSettings(
            self.chains, self.warmup, self.draws, self.leaps, localisation=precision, directions=self.directions
        )
