"""The β-TCVAE (Chen et al. 2018a)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from memspace.encoders.method import EncodingMethod, TrainingBatch, method, pixel_losses
from memspace.encoders.model import Autoencoder, Posterior

__all__ = ["BetaTcVae", "total_correlation"]


@method
class BetaTcVae(EncodingMethod):
    """The loss of a VAE, plus (β − 1) times the total correlation of the latents over the images."""

    name, symbol, source = "beta_tcvae", "β", "chen2018a"

    def loss(self, model: Autoencoder, batch: TrainingBatch) -> Tensor:
        """Compute the loss with the total correlation weighted by β; the other parts of the KL have weight 1."""
        posterior = model.posterior(batch.images)
        z = posterior.sample(batch.generator)
        bound = pixel_losses(model, batch.images, z).mean() + posterior.from_prior().sum(1).mean()
        return bound + (self.strength - 1) * total_correlation(posterior, z)


def total_correlation(posterior: Posterior, z: Tensor) -> Tensor:
    """Estimate KL(q(z) ‖ Π q(z_j)) with q the mixture of the batch's posteriors.

    The mixture of a batch stands for that of all images, as in Locatello et al. 2019. The bias depends on the batch's
    size and on the weights.

    Args:
        posterior: of B images.
        z: (B, d) a latent of each.

    Returns:
        Nats.
    """
    density = posterior.log_density(z)
    together = torch.logsumexp(density.sum(2), 1)
    apart = torch.logsumexp(density, 1).sum(1)
    return (together - apart).mean() + (density.shape[2] - 1) * math.log(density.shape[1])
