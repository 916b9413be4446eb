"""What an encoder tells, and how many of its weights it needs for that."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor

from memspace.encoders.images import WorldImages
from memspace.encoders.method import EncodingMethod, TrainingBatch
from memspace.encoders.model import Autoencoder
from memspace.encoders.reading import EncoderReading
from memspace.encoders.settings import EncoderMeasuring
from memspace.value import Absent, Value

__all__ = ["efficiency_readings"]

SHARES = tuple(k / 20 for k in range(1, 20))  # of the weights cut
CHUNK = 1000


def efficiency_readings(
    model: Autoencoder, method: EncodingMethod, images: WorldImages, settings: EncoderMeasuring
) -> list[EncoderReading]:
    """Measure what an encoder tells of its training images, and the share of weights that can be cut at equal loss.

    Told is the loss of the best prediction that does not look, less that of the encoder: of pixels less the latents'
    KL, or of factors. Weights of matrices are cut by magnitude, over all layers together.

    Args:
        model: the encoder, in evaluation mode.
        method: it was trained by.
        images: it was trained on.
        settings: of the measures.

    Returns:
        ``told`` bits an image, ``told.per_parameter`` bits of all training images a parameter, ``cut``.
    """
    losses = _losses(model, method, images, len(images.train), settings.seed)
    bits = (method.constant(images) - losses) / math.log(2)
    parameters = sum(p.numel() for p in model.parameters())
    whole = Value.mean(bits, how="one latent an image")
    factor = len(images.train) / parameters
    low, high = whole.interval or (math.nan, math.nan)
    by_parameter = Value(whole.value * factor, whole.n, (low * factor, high * factor), how=f"{parameters:,} parameters")
    return [
        EncoderReading("told", "bits", whole),
        EncoderReading("told.per_parameter", "bits", by_parameter),
        EncoderReading("cut", "1", _cut(model, method, images, whole.value * math.log(2), settings)),
    ]


@torch.no_grad()
def _losses(model: Autoencoder, method: EncodingMethod, images: WorldImages, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    parts = []
    drawn = zip(*(torch.split(t[:count], CHUNK) for t in (images.train, images.train_levels)), strict=True)
    for x, v in drawn:
        parts.append(method.losses(model, TrainingBatch(x, v, x, generator)).double())
    return torch.cat(parts)


def _cut(
    model: Autoencoder, method: EncodingMethod, images: WorldImages, nats: float, settings: EncoderMeasuring
) -> Value | Absent:
    """The share cut at which the mean loss has risen by a share of what is told, on straight lines between shares.

    Latents and images are the same before and after, so that the rise of each image is a difference of pairs; the
    interval is where the ends of the mean rise's 95% interval cross.
    """
    if nats <= 0:
        return Absent("the encoder tells nothing", "train it with less strength")
    whole = _losses(model, method, images, settings.cut, settings.seed)
    pruned = copy.deepcopy(model)
    weights = [p for p in pruned.parameters() if p.dim() > 1]
    size = torch.cat([w.detach().abs().flatten() for w in weights])
    order = size.sort().values
    ends = [(0.0, 0.0, 0.0)]
    for share in SHARES:
        limit = order[min(len(order) - 1, int(share * len(order)))]
        with torch.no_grad():
            for w in weights:
                w.mul_((w.abs() >= limit).to(w))
        rise = Value.mean(_losses(pruned, method, images, settings.cut, settings.seed) - whole)
        low, high = rise.interval or (rise.value, rise.value)
        ends.append((low, rise.value, high))
    allowed = settings.rise * nats
    at = (0.0, *SHARES)
    latest, middle, earliest = (_crossing(at, [e[k] for e in ends], allowed) for k in range(3))
    how = f"by magnitude, until {settings.rise:.0%} of what is told is lost"
    return Value(middle, settings.cut, (earliest, latest), how=how)


def _crossing(at: tuple[float, ...], rise: list[float], allowed: float) -> float:
    """The first place where a rise exceeds what is allowed; the last one where it never does."""
    over = np.flatnonzero(np.array(rise) > allowed)
    if not len(over) or over[0] == 0:
        return at[-1] if not len(over) else 0.0
    k = int(over[0])
    return at[k - 1] + (at[k] - at[k - 1]) * (allowed - rise[k - 1]) / (rise[k] - rise[k - 1])
