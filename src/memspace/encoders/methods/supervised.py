"""An encoder that sees the factors: a latent each."""

from __future__ import annotations

import math

from torch import Tensor

from memspace.encoders.images import WorldImages
from memspace.encoders.method import EncodingMethod, TrainingBatch, method
from memspace.encoders.model import Autoencoder, Posterior
from memspace.encoders.specification import EncoderSpec
from memspace.errors import SettingsError

__all__ = ["Supervised"]


@method
class Supervised(EncodingMethod):
    """Latent k is a normal law of factor k, scaled to variance 1; further latents are drawn to the prior.

    Levels are read as numbers, of kinds and of circular factors too: a full turn is a step from the last level to the
    first.

    Args:
        spec: of the encoder.
        images: it is trained on.
    """

    name, symbol, source = "supervised", "", "locatello2019"
    decodes, supervised = False, True

    def __init__(self, spec: EncoderSpec, images: WorldImages) -> None:
        super().__init__(spec, images)
        self.scaled, count = images.scaled, len(images.world.names)
        if spec.latents < count:
            what = f"{spec.latents} latents for {count} factors"
            raise SettingsError(what, where="encoder, supervised", remedy="declare a latent a factor or more")

    def loss(self, model: Autoencoder, batch: TrainingBatch) -> Tensor:
        """Compute the loss of the factors, and KL from the prior of latents without one."""
        posterior = model.posterior(batch.images)
        count = len(batch.levels[0])
        return self._factors(posterior, batch.levels).mean() + posterior.from_prior()[:, count:].sum(1).mean()

    def losses(self, model: Autoencoder, batch: TrainingBatch) -> Tensor:
        """Compute the loss of each image's factors, (B,) nats."""
        return self._factors(model.posterior(batch.images), batch.levels)

    def constant(self, images: WorldImages) -> float:
        """Compute the loss of normal laws with the factors' means and variances."""
        variance = images.scaled(images.train_levels).double().var(0, correction=0)
        return float(((variance.log() + math.log(2 * math.pi) + 1) / 2).sum())

    def _factors(self, posterior: Posterior, levels: Tensor) -> Tensor:
        targets = self.scaled(levels).to(posterior.mean)
        mean, log_variance = (p[:, : targets.shape[1]] for p in (posterior.mean, posterior.log_variance))
        squared = (targets - mean).square() / log_variance.exp()
        return ((squared + log_variance + math.log(2 * math.pi)) / 2).sum(1)
