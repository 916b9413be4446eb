"""The FactorVAE (Kim & Mnih 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memspace.encoders.images import WorldImages
from memspace.encoders.method import EncodingMethod, TrainingBatch, method, pixel_losses
from memspace.encoders.model import Autoencoder
from memspace.encoders.specification import EncoderSpec

__all__ = ["FactorVae"]

LAYERS, WIDTH, SLOPE = 3, 256, 0.2  # of the network that tells latents apart; the study had 6 layers of 1,000
RATE, MOMENTA = 1e-4, (0.5, 0.9)  # of its optimiser, as in the study


@method
class FactorVae(EncodingMethod):
    """The loss of a VAE, plus γ times the total correlation that a second network tells.

    That network is trained to tell latents of images from latents whose units were shuffled among the images. Its
    log-odds are the log-ratio of their densities. The shuffled latents come from other images.

    Args:
        spec: of the encoder.
        images: it is trained on.
    """

    name, symbol, source = "factor_vae", "γ", "kim2018"

    def __init__(self, spec: EncoderSpec, images: WorldImages) -> None:
        super().__init__(spec, images)
        layers: list[nn.Module] = []
        width = spec.latents
        for _ in range(LAYERS):
            layers += [nn.Linear(width, WIDTH), nn.LeakyReLU(SLOPE)]
            width = WIDTH
        self.judge = nn.Sequential(*layers, nn.Linear(width, 2))
        self._optimiser: torch.optim.Optimizer | None = None
        self._pending: tuple[Tensor, Tensor] | None = None

    def own(self) -> list[nn.Parameter]:
        """List nothing: the second network has an optimiser of its own."""
        return []

    def loss(self, model: Autoencoder, batch: TrainingBatch) -> Tensor:
        """Compute the loss, and keep the latents that the second network is to learn from."""
        posterior = model.posterior(batch.images)
        z = posterior.sample(batch.generator)
        bound = pixel_losses(model, batch.images, z).mean() + posterior.from_prior().sum(1).mean()
        odds: Tensor = self.judge(z)
        with torch.no_grad():
            others = model.posterior(batch.others).sample(batch.generator)
        self._pending = z.detach(), _shuffled(others, batch.generator)
        correlation: Tensor = (odds[:, 0] - odds[:, 1]).mean()
        return bound + self.strength * correlation

    def after(self) -> None:
        """Let the second network learn to tell the two kinds of latents."""
        assert self._pending is not None
        if self._optimiser is None:
            self._optimiser = torch.optim.Adam(self.judge.parameters(), RATE, MOMENTA)
        latents = torch.cat(self._pending)
        kinds = torch.zeros(len(latents), dtype=torch.long, device=latents.device)
        kinds[len(self._pending[0]) :] = 1
        loss = nn.functional.cross_entropy(self.judge(latents), kinds)
        self._optimiser.zero_grad()  # the encoder's step has left gradients here
        torch.autograd.backward(loss)
        self._optimiser.step()


def _shuffled(z: Tensor, generator: torch.Generator) -> Tensor:
    """Latents with every unit from another image of the batch, by a permutation a unit."""
    order = torch.rand(z.shape, generator=generator).argsort(0).to(z.device)
    return z.gather(0, order)
