"""Networks from images to a normal posterior of latents, and from latents to logits of pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.encoders.specification import EncoderSpec
from memspace.errors import SettingsError

__all__ = ["Autoencoder", "Posterior", "coded", "modules_of"]

CONV_SIDE = 64  # pixels of the images that the convolutions are made for
LOG_RANGE = 15.0  # of log-variances: what is beyond it overflows in float32 and means nothing
CHUNK = 512  # images read at once


@dataclass(frozen=True)
class Posterior:
    """Normal laws with independent latents.

    Args:
        mean: (B, d).
        log_variance: (B, d).
    """

    mean: Tensor
    log_variance: Tensor

    @property
    def variance(self) -> Tensor:
        """(B, d)."""
        return self.log_variance.exp()

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw a latent of each law, differentiable in mean and variance.

        Args:
            generator: of the noise, on the CPU.

        Returns:
            (B, d).
        """
        noise = torch.randn(self.mean.shape, generator=generator).to(self.mean)
        return self.mean + noise * (self.log_variance / 2).exp()

    def from_prior(self) -> Tensor:
        """Compute KL(N(μ, S) ‖ N(0, 1)) of each latent, exact.

        Returns:
            (B, d) nats.
        """
        return (self.mean.square() + self.variance - self.log_variance - 1) / 2

    def log_density(self, z: Tensor) -> Tensor:
        """Compute the log-density of latents under every law.

        Args:
            z: (N, d).

        Returns:
            (N, B, d) nats.
        """
        squared = (z[:, None] - self.mean).square() / self.variance
        return -(squared + self.log_variance + math.log(2 * math.pi)) / 2


class Autoencoder(nn.Module):
    """An encoder, and a decoder where the method has one.

    Args:
        spec: of the encoder.
        shape: (C, H, W) of an image.
        decodes: whether there is a decoder.
    """

    def __init__(self, spec: EncoderSpec, shape: tuple[int, int, int], decodes: bool = True) -> None:
        super().__init__()
        self.shape, self.latents = shape, spec.latents
        if spec.network == "conv":
            self.encoder, decoder = _convolutions(spec, shape)
        else:
            pixels = math.prod(shape)
            self.encoder = nn.Sequential(nn.Flatten(), *_layers(pixels, spec.width, 2 * spec.latents))
            decoder = nn.Sequential(*_layers(spec.latents, spec.width, pixels), nn.Unflatten(1, shape))
        self.decoder = decoder if decodes else None

    def posterior(self, images: Tensor) -> Posterior:
        """Encode.

        Args:
            images: (B, C, H, W).

        Returns:
            A law an image.
        """
        mean, log_variance = self.encoder(images).chunk(2, 1)
        return Posterior(mean, log_variance.clamp(-LOG_RANGE, LOG_RANGE))

    def forward(self, images: Tensor) -> Tensor:
        """Give the means of the posteriors, which are the codes.

        Args:
            images: (B, C, H, W).

        Returns:
            (B, d).
        """
        return self.posterior(images).mean


def modules_of(spec: EncoderSpec, shape: tuple[int, int, int], decodes: bool) -> Autoencoder:
    """Make an encoder at its initialisation.

    Args:
        spec: of the encoder.
        shape: of an image.
        decodes: whether there is a decoder.

    Returns:
        The networks; torch's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        return Autoencoder(spec, shape, decodes)


@torch.no_grad()
def coded(model: Autoencoder, images: Tensor) -> Posterior:
    """Encode many images, in parts.

    Args:
        model: the encoder.
        images: (N, C, H, W), on any device.

    Returns:
        Laws on the CPU.
    """
    device = next(model.parameters()).device
    parts = [model.posterior(part.to(device)) for part in torch.split(images, CHUNK)]
    return Posterior(torch.cat([p.mean.cpu() for p in parts]), torch.cat([p.log_variance.cpu() for p in parts]))


def _layers(inputs: int, width: int, outputs: int) -> list[nn.Module]:
    hidden = [nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return [*hidden, nn.Linear(width, outputs)]


def _convolutions(spec: EncoderSpec, shape: tuple[int, int, int]) -> tuple[nn.Sequential, nn.Sequential]:
    """The networks of Locatello et al. 2019; ``width`` is that of the dense layers."""
    channels = shape[0]
    if shape[1:] != (CONV_SIDE, CONV_SIDE):
        what = f"images of {shape[1]} × {shape[2]} do not fit the convolutions"
        remedy = f"leave images at {CONV_SIDE} × {CONV_SIDE}, or declare network = 'mlp'"
        raise SettingsError(what, where=f"encoder on {spec.world}", remedy=remedy)
    down = [(channels, 32), (32, 32), (32, 64), (64, 64)]
    encoder: list[nn.Module] = []
    for before, after in down:
        encoder += [nn.Conv2d(before, after, 4, 2, 1), nn.ReLU()]
    encoder += [nn.Flatten(), nn.Linear(1024, spec.width), nn.ReLU(), nn.Linear(spec.width, 2 * spec.latents)]
    decoder: list[nn.Module] = [nn.Linear(spec.latents, spec.width), nn.ReLU(), nn.Linear(spec.width, 1024), nn.ReLU()]
    decoder.append(nn.Unflatten(1, (64, 4, 4)))
    for before, after in [(64, 64), (64, 32), (32, 32)]:
        decoder += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.ReLU()]
    decoder.append(nn.ConvTranspose2d(32, channels, 4, 2, 1))
    return nn.Sequential(*encoder), nn.Sequential(*decoder)
