"""Training one encoder. It depends on its specification alone, and not on what is trained next to it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.encoders.images import WorldImages
from memspace.encoders.method import EncodingMethod, TrainingBatch, method_named
from memspace.encoders.model import Autoencoder, modules_of
from memspace.encoders.specification import EncoderSpec

__all__ = ["TrainedEncoder", "begun_encoder", "train_encoder"]

LOOK = 100  # steps between two marks of the curve


@dataclass(frozen=True)
class TrainedEncoder:
    """An encoder at the end of its training.

    Args:
        spec: what it is.
        model: its networks.
        method: what it was trained by, with the modules that it holds.
        curve: (step, loss) means over the steps since the last mark, nats an image.
        seconds: of processor time.
    """

    spec: EncoderSpec
    model: Autoencoder
    method: EncodingMethod
    curve: tuple[tuple[int, float], ...]
    seconds: float

    @property
    def finite(self) -> bool:
        """Whether the training ended with a finite loss."""
        return math.isfinite(self.curve[-1][1])


def begun_encoder(spec: EncoderSpec, images: WorldImages) -> tuple[Autoencoder, EncodingMethod]:
    """Make the networks of an encoder at their initialisation.

    Args:
        spec: of the encoder.
        images: it is to be trained on.

    Returns:
        The encoder, and its method.
    """
    kind = method_named(spec.method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed + 1)
        made = kind(spec, images)
    return modules_of(spec, images.world.shape, kind.decodes), made


def train_encoder(
    spec: EncoderSpec, images: WorldImages, *, device: str = "cpu", tick: Callable[[], None] = lambda: None
) -> TrainedEncoder:
    """Train an encoder by Adam. All draws are made on the CPU, so that every device sees the same.

    Args:
        spec: of the encoder.
        images: it is trained on.
        device: where it is trained.
        tick: called every ``LOOK`` steps; may raise to stop.

    Returns:
        The encoder, on the CPU; training stops early where its loss is not finite.
    """
    began = time.process_time()
    model, made = (part.to(device) for part in begun_encoder(spec, images))
    assert isinstance(model, Autoencoder)
    assert isinstance(made, EncodingMethod)
    optimiser = torch.optim.Adam([*model.parameters(), *made.own()], spec.rate)
    generator = torch.Generator().manual_seed(spec.seed)
    pixels, levels = images.train.to(device), images.train_levels.to(device)
    curve, losses = [], []
    for step in range(1, spec.steps + 1):
        batch = _drawn(pixels, levels, spec.batch, generator)
        loss = made.loss(model, batch)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        made.after()
        losses.append(loss.detach())
        if step % LOOK == 0 or step == spec.steps:
            curve.append((step, float(torch.stack(losses).mean())))
            losses = []
            tick()
            if not math.isfinite(curve[-1][1]):
                break
    return TrainedEncoder(spec, model.cpu(), made.cpu(), tuple(curve), time.process_time() - began)


def _drawn(pixels: Tensor, levels: Tensor, size: int, generator: torch.Generator) -> TrainingBatch:
    """Images of a step and as many others, with replacement."""
    index = torch.randint(len(pixels), (2, size), generator=generator).to(pixels.device)
    return TrainingBatch(pixels[index[0]], levels[index[0]], pixels[index[1]], generator)
