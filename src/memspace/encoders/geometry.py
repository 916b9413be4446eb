"""The Fisher geometry of an encoder along known factors: angles, interference, loops; and of its outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.encoders.images import WorldImages
from memspace.encoders.method import EncodingMethod
from memspace.encoders.model import Autoencoder
from memspace.encoders.reading import EncoderReading
from memspace.encoders.settings import EncoderMeasuring
from memspace.geometry.factor_loop import Render, differences, rectangle
from memspace.geometry.representation_holonomy import representation_holonomy
from memspace.measures.factor_metric import (
    Encoder,
    FactorDirections,
    encoder_directions,
    joint_efficiency,
    orthogonality_value,
)
from memspace.measures.factor_pairs import SIZE, STEPS, loops_around, mean_angle
from memspace.value import Absent, Value

__all__ = ["DrawnOnce", "geometry_readings"]

ONE, RADIANS, NATS = "1", "rad", "nats"
NUDGE = 1e-2  # of latents, for random directions through a decoder
CONTINUOUS = Absent("the world has no images between levels", "measure a world that is drawn")
ALONG_FACTORS = {
    "encoder.orthogonality": ONE,
    "encoder.told_apart": ONE,
    "output.orthogonality": ONE,
    "holonomy": RADIANS,
    "representation_holonomy": ONE,
}


@dataclass
class DrawnOnce:
    """A renderer that remembers: all encoders of a world are asked at the same levels.

    Args:
        draw: levels ↦ images.
    """

    draw: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        self._drawn: dict[bytes, Tensor] = {}

    def __call__(self, levels: Tensor) -> Tensor:
        """Draw images, or give those that were drawn before.

        Args:
            levels: (B, K).

        Returns:
            (B, C, H, W).
        """
        key = levels.double().contiguous().numpy().tobytes()
        if key not in self._drawn:
            self._drawn[key] = self.draw(levels)
        return self._drawn[key]


def geometry_readings(
    model: Autoencoder,
    method: EncodingMethod,
    images: WorldImages,
    render: Render,
    settings: EncoderMeasuring,
) -> list[EncoderReading]:
    """Measure the metric of an encoder's posterior and of its outputs along the ordered factors.

    Args:
        model: the encoder, in evaluation mode.
        method: it was trained by.
        images: whose factors are moved.
        render: levels ↦ images.
        settings: of the measures.

    Returns:
        ``encoder.orthogonality``, ``encoder.told_apart``, ``output.orthogonality``, ``holonomy``,
        ``representation_holonomy`` and ``input.lambda_max``.
    """
    world = images.world
    ordered = [world.position(name) for name in world.ordered]
    sharpness = _input_metric(model, images, settings)
    if not world.continuous or len(ordered) < 2:
        return [*(EncoderReading(name, unit, CONTINUOUS) for name, unit in ALONG_FACTORS.items()), sharpness]
    places = images.test_levels[: settings.places].double()
    moved = encoder_directions(_posterior(model), render, places, world.names, ordered)
    return [
        _orthogonality("encoder.orthogonality", moved),
        _told_apart(moved),
        _output(model, method, images, render, places, ordered, settings.seed),
        _holonomy(model, render, places[: settings.loops], ordered, settings.seed),
        _clouds(model, images, render, places[: settings.loops], ordered, settings),
        sharpness,
    ]


def _posterior(model: Autoencoder) -> Encoder:
    def encoder(x: Tensor) -> tuple[Tensor, Tensor]:
        posterior = model.posterior(x)
        return posterior.mean, posterior.variance

    return encoder


def _orthogonality(name: str, moved: FactorDirections) -> EncoderReading:
    value, null = orthogonality_value(moved)
    return EncoderReading(name, ONE, value, None if isinstance(null, Absent) else null)


def _told_apart(moved: FactorDirections) -> EncoderReading:
    share = joint_efficiency(moved.metric)
    share = share[torch.isfinite(share).all(1)].mean(1)
    few = Absent("a factor moves nothing", "train it longer")
    value = Value.mean(share, lower=0.0, upper=1.0, how="mean over factors") if len(share) > 1 else few
    return EncoderReading("encoder.told_apart", ONE, value)


def _output(
    model: Autoencoder,
    method: EncodingMethod,
    images: WorldImages,
    render: Render,
    places: Tensor,
    ordered: list[int],
    seed: int,
) -> EncoderReading:
    """Angles between factors in the outputs; the null is of random directions of the latents at the same places."""
    coordinates = method.coordinates(model)
    if coordinates is None:
        reason = "the latents are the outputs"
        return EncoderReading("output.orthogonality", ONE, Absent(reason, "look at encoder.orthogonality"))

    def network(x: Tensor) -> Tensor:
        return coordinates(model(x))

    seen = differences(network, render, places, ordered).mT
    generator = torch.Generator().manual_seed(seed + 5)
    with torch.no_grad():
        z = model(render(places))
        directions = torch.randn((len(z), len(ordered), z.shape[1]), generator=generator).to(z)
        ends = [coordinates((z[:, None] + sign * NUDGE * directions).flatten(0, 1)) for sign in (1, -1)]
    null = ((ends[0] - ends[1]) / (2 * NUDGE)).double().reshape(len(z), len(ordered), -1)
    names = tuple(images.world.names[k] for k in ordered)
    return _orthogonality("output.orthogonality", FactorDirections(names, seen, null))


def _holonomy(model: Autoencoder, render: Render, places: Tensor, ordered: list[int], seed: int) -> EncoderReading:
    loops = loops_around(model, render, places, list(itertools.combinations(ordered, 2)), seed=seed, layer="the code")
    null = mean_angle(loops, loops.null)
    return EncoderReading(
        "holonomy", RADIANS, mean_angle(loops, loops.angles), None if isinstance(null, Absent) else null
    )


def _clouds(
    model: Autoencoder,
    images: WorldImages,
    render: Render,
    places: Tensor,
    ordered: list[int],
    settings: EncoderMeasuring,
) -> EncoderReading:
    """The rival: clouds of whitened features around loops of pairs that follow each other."""
    scores, base = [], []
    for first, second in itertools.pairwise(ordered):
        for k, place in enumerate(places):
            loop = render(rectangle(place, first, second, SIZE, STEPS))
            scores.append(representation_holonomy(model, loop, images.test, neighbours=settings.neighbours).score)
            base.append(k)
    how = f"{len(ordered) - 1} pairs of factors, {settings.neighbours} neighbours moved along"
    return EncoderReading(
        "representation_holonomy", ONE, Value.mean(scores, groups=torch.tensor(base), lower=0.0, upper=1.0, how=how)
    )


def _input_metric(model: Autoencoder, images: WorldImages, settings: EncoderMeasuring) -> EncoderReading:
    """The largest eigenvalue of the posterior's Fisher metric pulled back to the pixels, exact at every image."""
    chosen = images.test[: settings.probed]

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        posterior = model.posterior(x[None])
        return posterior.mean[0], posterior.log_variance[0]

    mean, log_variance = torch.func.vmap(torch.func.jacrev(both))(chosen)
    scale = (model.posterior(chosen).log_variance / 2).exp().detach()
    rows = torch.cat([mean.flatten(2) / scale[..., None], log_variance.flatten(2) / 2**0.5], 1).detach().double()
    largest = torch.linalg.svdvals(rows)[:, 0].square()
    how = "largest eigenvalue of the posterior's Fisher metric by pixels from 0 to 1"
    return EncoderReading("input.lambda_max", NATS, Value.mean(largest, lower=0.0, how=how))
