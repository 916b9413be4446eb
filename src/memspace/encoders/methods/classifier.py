"""A classifier of every factor from one code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from memspace.encoders.images import WorldImages
from memspace.encoders.method import EncodingMethod, TrainingBatch, method
from memspace.encoders.model import Autoencoder
from memspace.encoders.specification import EncoderSpec
from memspace.geometry.embedding import embed
from memspace.task.likelihood import Categorical

__all__ = ["Classifier"]


@method
class Classifier(EncodingMethod):
    """Linear heads tell every factor's level from the code, which nothing ties to axes. The code has no noise.

    Args:
        spec: of the encoder.
        images: it is trained on.
    """

    name, symbol, source = "classifier", "", "locatello2019"
    decodes, supervised = False, True

    def __init__(self, spec: EncoderSpec, images: WorldImages) -> None:
        super().__init__(spec, images)
        self.heads = nn.ModuleList(nn.Linear(spec.latents, size) for size in images.world.sizes)

    def loss(self, model: Autoencoder, batch: TrainingBatch) -> Tensor:
        """Compute the sum over factors of the cross-entropy of their levels."""
        return self.losses(model, batch).mean()

    def losses(self, model: Autoencoder, batch: TrainingBatch) -> Tensor:
        """Compute the loss of each image's levels, (B,) nats."""
        code = model(batch.images)
        parts = [
            nn.functional.cross_entropy(head(code), column, reduction="none")
            for head, column in zip(self.heads, batch.levels.T, strict=True)
        ]
        return torch.stack(parts).sum(0)

    def constant(self, images: WorldImages) -> float:
        """Compute the entropy of the levels' frequencies, summed over factors."""
        shares = [torch.bincount(c).double() / len(c) for c in images.train_levels.T]
        return float(torch.stack([torch.special.entr(p).sum() for p in shares]).sum())

    def coordinates(self, model: Autoencoder) -> Callable[[Tensor], Tensor] | None:
        """Give 2√p of the levels of every factor, side by side."""
        law = Categorical()
        return lambda code: torch.cat([embed(law, head(code)) for head in self.heads], 1)
