"""The variational autoencoder (Kingma & Welling 2014)."""

from __future__ import annotations

from torch import Tensor

from memspace.encoders.method import EncodingMethod, TrainingBatch, method
from memspace.encoders.model import Autoencoder

__all__ = ["Vae"]


@method
class Vae(EncodingMethod):
    """Loss of the pixels, plus KL(posterior ‖ prior)."""

    name, symbol, source = "vae", "", "kingma2014"

    def loss(self, model: Autoencoder, batch: TrainingBatch) -> Tensor:
        """Compute the negative evidence lower bound."""
        return self.losses(model, batch).mean()
