"""Everything that is measured of one encoder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from memspace.encoders.efficiency import efficiency_readings
from memspace.encoders.geometry import DrawnOnce, geometry_readings
from memspace.encoders.images import WorldImages, images_of
from memspace.encoders.method import EncodingMethod
from memspace.encoders.model import Autoencoder, Posterior
from memspace.encoders.reading import EncoderReading
from memspace.encoders.scoring import score_readings
from memspace.encoders.settings import EncoderMeasuring
from memspace.encoders.store import MEASURED, EncoderStore
from memspace.encoders.work import EncoderPiece, spec_images
from memspace.zoo.specification import settings_hash

__all__ = ["MeasureEncoderPiece", "encoder_readings", "measuring_version"]

MEASURING_VERSION = 1  # raised when the code of a measure changes what it gives


def measuring_version(settings: EncoderMeasuring) -> str:
    """Compute the version of code and settings that rows are made by.

    Args:
        settings: of the measures.

    Returns:
        A hash.
    """
    return settings_hash([MEASURING_VERSION, asdict(settings)])


def encoder_readings(
    model: Autoencoder,
    method: EncodingMethod,
    images: WorldImages,
    codes: Posterior,
    settings: EncoderMeasuring,
    render: Callable[..., Any] | None = None,
) -> list[EncoderReading]:
    """Measure an encoder.

    Args:
        model: the encoder, in evaluation mode.
        method: it was trained by.
        images: it was trained on, and those that it is judged by.
        codes: of the latter.
        settings: of the measures.
        render: levels ↦ images; None: the world's own.

    Returns:
        Scores, geometry and efficiency.
    """
    render = render or images.world.render
    return [
        *score_readings(codes, images.test_levels.numpy(), settings),
        *geometry_readings(model, method, images, render, settings),
        *efficiency_readings(model, method, images, settings),
    ]


@dataclass(frozen=True)
class MeasureEncoderPiece(EncoderPiece):
    """One encoder to measure.

    Args:
        settings: of the measures.
    """

    settings: EncoderMeasuring = field(default_factory=EncoderMeasuring)

    def __call__(self) -> int:
        """Measure the encoder unless its rows are in the store.

        Returns:
            How many were measured.
        """
        store, version = EncoderStore(self.folder), measuring_version(self.settings)
        if store.version_at(MEASURED, self.spec.key) == version:
            return 0
        began = time.process_time()
        images = spec_images(self.spec, self.folder, self.data_root)
        model, method = store.encoder(self.spec, images)
        render = _remembering(*self.spec.images, self.folder, self.data_root)
        readings = encoder_readings(model, method, images, store.codes(self.spec.key), self.settings, render)
        spent = time.process_time() - began
        made = {"version": version, "seconds": spent, "finished": datetime.now(UTC).isoformat(timespec="seconds")}
        rows = [{"key": self.spec.key, **r.row(), **made} for r in readings]
        store.add_rows(MEASURED, self.spec.key, rows)
        return 1


@lru_cache(maxsize=2)
def _remembering(world: str, pooled: int, size: int, folder: Path, data_root: Path | None) -> DrawnOnce:
    return DrawnOnce(images_of(world, pooled, size, folder, data_root).world.render)
