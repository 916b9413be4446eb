"""Pieces of the work on a set of encoders, which any engine of the zoo runs side by side."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from memspace.encoders.images import WorldImages, images_of
from memspace.encoders.model import coded
from memspace.encoders.specification import EncoderSpec
from memspace.encoders.store import EncoderStore
from memspace.encoders.training import train_encoder

__all__ = ["EncoderPiece", "TrainEncoderPiece", "spec_images"]


def spec_images(spec: EncoderSpec, folder: Path, data_root: Path | None) -> WorldImages:
    """Draw or read the images of an encoder.

    Args:
        spec: of the encoder.
        folder: of the store.
        data_root: where data sets lie.

    Returns:
        The images.
    """
    return images_of(spec.world, spec.pooled, spec.size, folder, data_root)


@dataclass(frozen=True)
class EncoderPiece:
    """One encoder to work on.

    Args:
        spec: of the encoder.
        folder: of the store.
        data_root: where data sets lie.
    """

    spec: EncoderSpec
    folder: Path
    data_root: Path | None

    @property
    def networks(self) -> int:
        """How many networks it is."""
        return 1


@dataclass(frozen=True)
class TrainEncoderPiece(EncoderPiece):
    """One encoder to train.

    Args:
        set_name: of the declaration.
        device: where it is trained.
    """

    set_name: str = ""
    device: str = "cpu"

    def __call__(self, tick: Callable[[], None] = lambda: None) -> int:
        """Train the encoder unless it is in the store.

        Args:
            tick: called now and then; may raise to stop.

        Returns:
            How many were trained.
        """
        store = EncoderStore(self.folder)
        if self.spec.key in store.trained_keys():
            return 0
        images = spec_images(self.spec, self.folder, self.data_root)
        trained = train_encoder(self.spec, images, device=self.device, tick=tick)
        about = {"machine": platform.machine(), "threads": torch.get_num_threads(), "device": self.device}
        store.add_trained(trained, coded(trained.model.eval(), images.test), self.set_name, about)
        return 1
