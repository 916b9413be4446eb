"""The DIP-VAE-II (Kumar et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.encoders.method import EncodingMethod, TrainingBatch, method, reconstruction
from memspace.encoders.model import Autoencoder, Posterior

__all__ = ["DipVae", "latent_covariance"]


@method
class DipVae(EncodingMethod):
    """The loss of a VAE, plus λ times how far the latents' covariance over images is from the identity.

    Diagonal and other entries have the same weight, as in Locatello et al. 2019.
    """

    name, symbol, source = "dip_vae", "λ", "kumar2018"

    def loss(self, model: Autoencoder, batch: TrainingBatch) -> Tensor:
        """Compute the loss with λ ‖Cov[z] − 1‖²_F."""
        posterior = model.posterior(batch.images)
        bound = reconstruction(model, batch.images, posterior, batch.generator) + posterior.from_prior().sum(1).mean()
        covariance = latent_covariance(posterior)
        identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        return bound + self.strength * (covariance - identity).square().sum()


def latent_covariance(posterior: Posterior) -> Tensor:
    """Compute the covariance of latents over images and noise: Cov[μ] + E[S].

    Args:
        posterior: of B images.

    Returns:
        (d, d).
    """
    centred = posterior.mean - posterior.mean.mean(0)
    return centred.T @ centred / len(centred) + torch.diag(posterior.variance.mean(0))
