"""How a network of the zoo is measured: one rule for all of them, so that their numbers compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from memspace.arguments import check_fields
from memspace.limits import BYTES, COUNT, DAMPING, POSITIVE, SEED, SEVERAL, WHOLE, Limit

__all__ = ["ZooSettings"]

CHECKPOINTS = Limit(3, 2**31, whole=True)  # what an action excess takes


@dataclass(frozen=True)
class ZooSettings:
    """What is the same for every network; a change makes other numbers.

    Args:
        examples: that the metric is read on, at most.
        rows: of the Jacobian (examples × outputs) at most: of many outputs fewer examples are read.
        labels: sampled per sequence, where an example has several positions; each is a row.
        damping: γ of information, effective parameters and leave-one-out, nats per squared unit of the weights. One for
            all: the decay of a training, and the evidence maximum, differ from network to network.
        epsilon: ε of the volume {θ : KL ≤ ε}, nats per example.
        radius: standard deviation l of the normal prior around the weights that the volume is a share of.
        followed: training examples whose predictions are followed along the training.
        sloped: of these, examples that the slope of the action excess is computed on; 0: no excess.
        checkpoints: of the training that the excess is computed from, at most; the path's length is of all.
        deep: training examples whose hidden states are read along depth.
        without: groups of measures that are left out, by the names that ``NetworkMeasures.seconds`` has.
        seed: of every draw.
        memory: bytes, next to model and data.

    Raises:
        SettingsError: one of them is out of its range.
    """

    examples: Annotated[int, SEVERAL] = 300
    rows: Annotated[int, SEVERAL] = 1000
    labels: Annotated[int, SEVERAL] = 3
    damping: Annotated[float, DAMPING] = 1e-3
    epsilon: Annotated[float, POSITIVE] = 0.01
    radius: Annotated[float, POSITIVE] = 0.1
    followed: Annotated[int, SEVERAL] = 100
    sloped: Annotated[int, WHOLE] = 12
    checkpoints: Annotated[int, CHECKPOINTS] = 12
    deep: Annotated[int, COUNT] = 64
    without: tuple[str, ...] = ()
    seed: Annotated[int, SEED] = 0
    memory: Annotated[int, BYTES] = 2**30

    def __post_init__(self) -> None:
        check_fields(self)
