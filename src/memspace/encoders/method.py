"""What encoders are trained by: a class a method, registered by name."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar

import torch
from torch import Tensor, nn

from memspace.encoders.images import WorldImages
from memspace.encoders.model import Autoencoder, Posterior
from memspace.encoders.specification import EncoderSpec
from memspace.errors import SettingsError
from memspace.geometry.embedding import embed
from memspace.task.likelihood import Bernoulli

__all__ = ["EncodingMethod", "TrainingBatch", "method", "method_named", "methods", "pixel_losses", "reconstruction"]


@dataclass(frozen=True)
class TrainingBatch:
    """Images of one step.

    Args:
        images: (B, C, H, W) in [0, 1].
        levels: (B, K) of their factors.
        others: as many other images, for methods that compare the two.
        generator: of all noise of the training, on the CPU.
    """

    images: Tensor
    levels: Tensor
    others: Tensor
    generator: torch.Generator


class EncodingMethod(nn.Module, ABC):
    """What an encoder is trained by. Modules that a method holds are trained with the encoder, and kept with it.

    Args:
        spec: of the encoder.
        images: it is trained on.
    """

    name: ClassVar[str]
    symbol: ClassVar[str]  # of the strength; empty where the method has none
    source: ClassVar[str]  # key of the bibliography
    decodes: ClassVar[bool] = True  # whether the encoder has a decoder
    supervised: ClassVar[bool] = False  # whether it sees the factors

    def __init__(self, spec: EncoderSpec, images: WorldImages) -> None:
        super().__init__()
        self.strength = spec.strength

    @abstractmethod
    def loss(self, model: Autoencoder, batch: TrainingBatch) -> Tensor:
        """Compute what a step makes smaller.

        Args:
            model: the encoder.
            batch: images of this step.

        Returns:
            Mean over the images, nats.
        """

    def after(self) -> None:
        """Take the step of what is trained against the encoder; most methods have nothing of the kind."""

    def losses(self, model: Autoencoder, batch: TrainingBatch) -> Tensor:
        """Compute what every image costs to tell: its pixels and its latents; its factors where these are told.

        Args:
            model: the encoder.
            batch: the images; one latent of each is drawn.

        Returns:
            (B,) nats, the bound that a plain VAE minimises.
        """
        posterior = model.posterior(batch.images)
        latents = posterior.sample(batch.generator)
        return pixel_losses(model, batch.images, latents) + posterior.from_prior().sum(1)

    def constant(self, images: WorldImages) -> float:
        """Compute what an image costs without looking at it: the mean image is told instead.

        Args:
            images: that the encoder is trained on.

        Returns:
            Nats an image.
        """
        mean = images.train.double().mean(0)
        tiny = 1e-12
        dark, bright = (1 - mean).clamp_min(tiny).log(), mean.clamp_min(tiny).log()
        return float(-(images.train.double() * bright + (1 - images.train.double()) * dark).flatten(1).sum(1).mean())

    def coordinates(self, model: Autoencoder) -> Callable[[Tensor], Tensor] | None:
        """Give coordinates of the outputs in which their Fisher metric is Euclidean.

        Args:
            model: the encoder.

        Returns:
            Latents (B, d) ↦ (B, M) nats^½; None where the latents are the outputs.
        """
        decoder, law = model.decoder, Bernoulli()
        if decoder is None:
            return None
        return lambda latents: embed(law, decoder(latents).flatten(1))

    def own(self) -> list[nn.Parameter]:
        """List the parameters that are trained with the encoder's, by the same optimiser.

        Returns:
            All parameters of the method, unless it trains some of them itself.
        """
        return list(self.parameters())


_METHODS: dict[str, type[EncodingMethod]] = {}


def method(made: type[EncodingMethod]) -> type[EncodingMethod]:
    """Register a method; use it as a decorator of its class.

    Args:
        made: the class.

    Returns:
        The class.
    """
    _METHODS[made.name] = made
    return made


def methods() -> dict[str, type[EncodingMethod]]:
    """List the methods.

    Returns:
        Classes by name.
    """
    import memspace.encoders.methods as package

    for module in pkgutil.iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_METHODS.items()))


def method_named(name: str) -> type[EncodingMethod]:
    """Look up a method.

    Args:
        name: of it.

    Returns:
        Its class.

    Raises:
        SettingsError: there is none of that name.
    """
    known = methods()
    if name not in known:
        raise SettingsError(
            f"there is no method {name!r}", where="memspace.encoders", remedy=f"name one of {', '.join(known)}"
        )
    return known[name]


def reconstruction(model: Autoencoder, images: Tensor, posterior: Posterior, generator: torch.Generator) -> Tensor:
    """Compute the mean loss of pixels under independent Bernoulli laws, from one latent an image.

    Args:
        model: with a decoder.
        images: (B, C, H, W) in [0, 1].
        posterior: of the images.
        generator: of the noise.

    Returns:
        Nats an image.
    """
    return pixel_losses(model, images, posterior.sample(generator)).mean()


def pixel_losses(model: Autoencoder, images: Tensor, latents: Tensor) -> Tensor:
    """Compute the loss of each image's pixels under independent Bernoulli laws.

    Args:
        model: with a decoder.
        images: (B, C, H, W) in [0, 1].
        latents: (B, d).

    Returns:
        (B,) nats.
    """
    assert model.decoder is not None
    logits = model.decoder(latents)
    losses: Tensor = nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
    return losses.flatten(1).sum(1)
