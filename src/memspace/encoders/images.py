"""The images of a world that encoders train on and are judged by: drawn once, kept in the store, a byte a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from memspace.errors import RunFolderError
from memspace.files import writing, written
from memspace.task.worlds.factor_world import FactorWorld
from memspace.task.worlds.registry import world as world_named
from memspace.task.worlds.sampling import halves

__all__ = ["JUDGED", "WorldImages", "images_of", "pooled_world"]

JUDGED = 2000  # images that no encoder trains on; the errors of scores say what that costs
SEED = 20  # of the choice of images, the same for all encoders
LEVELS = 255  # brightest pixel


@dataclass(frozen=True)
class WorldImages:
    """Images with their factors.

    Args:
        world: that draws them, at the resolution used.
        train: (N, C, H, W) in [0, 1].
        train_levels: (N, K).
        test: (M, C, H, W), none of which is among the training images.
        test_levels: (M, K).
    """

    world: FactorWorld
    train: Tensor
    train_levels: Tensor
    test: Tensor
    test_levels: Tensor

    def scaled(self, levels: Tensor) -> Tensor:
        """Scale levels of factors so that each factor has mean 0 and variance 1 where all levels are as frequent.

        Args:
            levels: (B, K).

        Returns:
            (B, K) float32; a factor with a single level is 0.
        """
        sizes = torch.tensor(self.world.sizes, dtype=torch.float64)
        spread = ((sizes.square() - 1) / 12).sqrt().clamp_min(1e-9)
        return ((levels.double() - (sizes - 1) / 2) / spread).float()


def pooled_world(name: str, pooled: int, root: Path | None = None) -> FactorWorld:
    """Make a world at a lower resolution.

    Args:
        name: of the world.
        pooled: side of the squares of pixels that are averaged.
        root: folder or file that data are read from.

    Returns:
        The world.
    """
    whole = world_named(name, root)
    return whole if pooled == 1 else whole.pooled(pooled)


@lru_cache(maxsize=4)
def images_of(name: str, pooled: int, size: int, folder: Path, root: Path | None = None) -> WorldImages:
    """Draw the images of a world, or read those that were drawn before.

    Args:
        name: of the world.
        pooled: side of the squares of pixels that are averaged.
        size: training images.
        folder: of the store.
        root: folder or file that data are read from.

    Returns:
        Training images and ``JUDGED`` others, no two alike.

    Raises:
        SettingsError: the world has fewer different images.
        RunFolderError: what was drawn before cannot be read.
        OutputError: the folder cannot be written.
    """
    made = pooled_world(name, pooled, root)
    train, test = halves(made, size, JUDGED, seed=SEED)
    path = folder / "images" / f"{name}-{pooled}-{size}.safetensors"
    if path.is_file():
        try:
            drawn = safetensors.torch.load_file(path)
            return WorldImages(made, _read(drawn["train"]), train, _read(drawn["test"]), test)
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            raise RunFolderError("the images cannot be read", where=str(path), remedy="delete the file") from error
    drawn = {"train": _stored(made.render(train)), "test": _stored(made.render(test))}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    written(path, partial(safetensors.torch.save_file, drawn))
    return WorldImages(made, _read(drawn["train"]), train, _read(drawn["test"]), test)


def _stored(images: Tensor) -> Tensor:
    return (images * LEVELS).round().to(torch.uint8).contiguous()


def _read(stored: Tensor) -> Tensor:
    return stored.float() / LEVELS
