"""Small encoders on images of 4 × 4, and the images."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import torch

from memspace.encoders.images import WorldImages, images_of
from memspace.encoders.method import TrainingBatch
from memspace.encoders.specification import EncoderSpec

POOLED, SIZE = 8, 200


@lru_cache(maxsize=1)
def small_images() -> WorldImages:
    return images_of("shapes", POOLED, SIZE, Path(mkdtemp()))


def spec(method: str = "vae", **changed: object) -> EncoderSpec:
    settings = {"pooled": POOLED, "size": SIZE, "width": 16, "latents": 6, "steps": 60, "batch": 32, **changed}
    return EncoderSpec("shapes", method, **settings)  # type: ignore[arg-type]


def batch(count: int = 40, seed: int = 0) -> TrainingBatch:
    images = small_images()
    generator = torch.Generator().manual_seed(seed)
    return TrainingBatch(images.test[:count], images.test_levels[:count], images.test[-count:], generator)
