"""A classifier of every factor from one code."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memspace.encoders.images import WorldImages
from memspace.encoders.method import Method, TrainingBatch, method
from memspace.encoders.model import Autoencoder
from memspace.encoders.specification import EncoderSpec

__all__ = ["Classifier"]


@method
class Classifier(Method):
    """Linear heads tell every factor's level from the code, which nothing ties to axes. The code has no noise."""

    name, symbol, source = "classifier", "", "locatello2019"
    decodes, supervised = False, True

    def __init__(self, spec: EncoderSpec, images: WorldImages) -> None:
        super().__init__(spec, images)
        self.heads = nn.ModuleList(nn.Linear(spec.latents, size) for size in images.world.sizes)

    def loss(self, model: Autoencoder, batch: TrainingBatch) -> Tensor:
        """Compute the sum over factors of the cross-entropy of their levels."""
        code = model(batch.images)
        parts = [
            nn.functional.cross_entropy(head(code), column)
            for head, column in zip(self.heads, batch.levels.T, strict=True)
        ]
        return torch.stack(parts).sum()
