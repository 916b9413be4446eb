"""What one network of a zoo is: everything that decides its weights, and the key made from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from memspace.arguments import check_fields
from memspace.limits import COUNT, POSITIVE, SEED, SHARE, SIZE, one_of

__all__ = ["OPTIMISERS", "RECIPE_VERSION", "NetworkSpec", "settings_hash"]

# Raised when the code of data sets, families or training changes what a specification trains to.
RECIPE_VERSION = 1
# Optimisers with their usual learning rates; that of SGD goes with a momentum of 0.9.
OPTIMISERS = {"adam": 2e-3, "rmsprop": 1e-3, "sgd": 0.03}
STARTS = ("fresh", "random labels")


@dataclass(frozen=True)
class NetworkSpec:
    """One network of a zoo. Two that are equal are the same network.

    Args:
        family: of the architecture, for example ``"mlp"``; see ``memspace.zoo.families``.
        data: name of the data set; see ``memspace.zoo.datasets``.
        width: units of a hidden layer, channels, or size of the hidden state.
        depth: hidden layers or blocks.
        rate: learning rate, constant, as a multiple of the optimiser's usual one (``OPTIMISERS``).
        batch: examples a step.
        decay: γ of γ/2·‖θ‖² added to the mean loss.
        dropout: share of hidden units dropped at each step.
        label_noise: share of training labels replaced by another, uniformly drawn.
        size: training examples.
        optimiser: of ``OPTIMISERS``.
        seed: of initialisation, order, wrong labels and dropout.
        target: mean training loss, in eval mode and nats a prediction, at which training stops.
        most: steps after which a network that is not there is given up.
        start: ``"fresh"``, or ``"random labels"``: weights that had first learned the same inputs with permuted labels.
        permuted: training labels are a permutation of themselves, so that there is nothing to learn but them.

    Raises:
        SettingsError: a number is out of its range, or a word is not known.
    """

    family: str
    data: str
    width: Annotated[int, COUNT]
    depth: Annotated[int, COUNT]
    rate: Annotated[float, POSITIVE]
    batch: Annotated[int, COUNT]
    decay: Annotated[float, SIZE]
    dropout: Annotated[float, SHARE]
    label_noise: Annotated[float, SHARE]
    size: Annotated[int, COUNT]
    optimiser: str
    seed: Annotated[int, SEED]
    target: Annotated[float, POSITIVE]
    most: Annotated[int, COUNT]
    start: str = "fresh"
    permuted: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        one_of(self.optimiser, tuple(OPTIMISERS), "optimiser")
        one_of(self.start, STARTS, "start")

    @property
    def learning_rate(self) -> float:
        """What a step is multiplied with."""
        return self.rate * OPTIMISERS[self.optimiser]

    @property
    def key(self) -> str:
        """Hash of the specification and of the version of the recipe, 20 hexadecimal digits."""
        content = {"recipe": RECIPE_VERSION, **asdict(self)}
        return settings_hash(content, 20)

    @property
    def group(self) -> tuple[Any, ...]:
        """What networks that are trained together have in common: their shapes and batches."""
        shape = (self.family, self.data, self.width, self.depth, self.batch, self.size)
        return (*shape, self.optimiser, self.dropout > 0, self.start, self.target, self.most)

    @property
    def configuration(self) -> str:
        """Hash of everything but the seed: sister networks share it."""
        content = {k: v for k, v in asdict(self).items() if k != "seed"}
        return settings_hash(content)


def settings_hash(content: Any, digits: int = 12) -> str:
    """Compute a hash of settings that decide numbers.

    Args:
        content: plain JSON types.
        digits: of the hash.

    Returns:
        Hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:digits]
