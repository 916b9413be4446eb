"""The variational autoencoder (Kingma & Welling 2014)."""

from __future__ import annotations

from torch import Tensor

from memspace.encoders.method import Method, TrainingBatch, method, reconstruction
from memspace.encoders.model import Autoencoder

__all__ = ["Vae"]


@method
class Vae(Method):
    """Loss of the pixels, plus KL(posterior ‖ prior)."""

    name, symbol, source = "vae", "", "kingma2014"

    def loss(self, model: Autoencoder, batch: TrainingBatch) -> Tensor:
        """Compute the negative evidence lower bound."""
        posterior = model.posterior(batch.images)
        pixels = reconstruction(model, batch.images, posterior, batch.generator)
        return pixels + posterior.from_prior().sum(1).mean()
