"""What one encoder is: everything that decides its weights, and the key made from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from memspace.arguments import check_fields
from memspace.limits import COUNT, POSITIVE, SEED, SEVERAL, one_of
from memspace.zoo.specification import settings_hash

__all__ = ["NETWORKS", "RECIPE_VERSION", "EncoderSpec"]

# Raised when the code of images, networks or training changes what a specification trains to.
RECIPE_VERSION = 1
NETWORKS = ("mlp", "conv")


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder. Two that are equal are the same encoder.

    Args:
        world: name of the world that its images are of; see ``memspace.task.worlds``.
        method: what it is trained by; see ``memspace.encoders.methods``.
        strength: of the method's term: β, γ or λ.
        pooled: side of the squares of pixels that are averaged; 1: none.
        size: training images.
        network: ``"mlp"`` (two hidden layers) or ``"conv"`` (four convolutions, for images of 64 × 64).
        width: hidden units of a layer.
        latents: units of the code.
        batch: images a step.
        steps: of Adam.
        rate: of Adam.
        seed: of initialisation, order of the images and noise.

    Raises:
        SettingsError: a number is out of its range, or a word is not known.
    """

    world: str
    method: str
    strength: Annotated[float, POSITIVE] = 1.0
    pooled: Annotated[int, COUNT] = 1
    size: Annotated[int, SEVERAL] = 20_000
    network: str = "mlp"
    width: Annotated[int, COUNT] = 128
    latents: Annotated[int, SEVERAL] = 10
    batch: Annotated[int, SEVERAL] = 64
    steps: Annotated[int, COUNT] = 4000
    rate: Annotated[float, POSITIVE] = 1e-3
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        one_of(self.network, NETWORKS, "network")

    @property
    def key(self) -> str:
        """Hash of the specification and of the version of the recipe, 20 hexadecimal digits."""
        return settings_hash({"recipe": RECIPE_VERSION, **asdict(self)}, 20)

    @property
    def configuration(self) -> str:
        """Hash of everything but the seed: encoders that differ in it alone share it."""
        return settings_hash({k: v for k, v in asdict(self).items() if k != "seed"})

    @property
    def images(self) -> tuple[str, int, int]:
        """What decides the images: world, pooling and number."""
        return self.world, self.pooled, self.size
