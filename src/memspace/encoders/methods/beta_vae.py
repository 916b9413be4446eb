"""The β-VAE (Higgins et al. 2017)."""

from __future__ import annotations

from torch import Tensor

from memspace.encoders.method import EncodingMethod, TrainingBatch, method, reconstruction
from memspace.encoders.model import Autoencoder

__all__ = ["BetaVae"]


@method
class BetaVae(EncodingMethod):
    """Loss of the pixels, plus β KL(posterior ‖ prior)."""

    name, symbol, source = "beta_vae", "β", "higgins2017"

    def loss(self, model: Autoencoder, batch: TrainingBatch) -> Tensor:
        """Compute the loss with the prior's term weighted by β."""
        posterior = model.posterior(batch.images)
        pixels = reconstruction(model, batch.images, posterior, batch.generator)
        return pixels + self.strength * posterior.from_prior().sum(1).mean()
