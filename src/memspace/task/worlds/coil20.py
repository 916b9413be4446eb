"""COIL-20 (Nene et al. 1996): photographs of 20 objects, each turned once around in 72 steps of 5°.

Nothing is drawn between poses: levels are whole. The turn is the whole circle, so pose 72 is pose 0 again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat
from torch import Tensor

from memspace.errors import DataError
from memspace.task.worlds.factor_world import FactorWorld, WorldFactor
from memspace.task.worlds.registry import register_world

__all__ = ["FACTORS", "FILE", "coil20_world", "read_coil20"]

FILE = "COIL20.mat"
FACTORS = (WorldFactor("object", 20, ordered=False), WorldFactor("pose", 72, period=72))
_SIDE = 32


@dataclass(frozen=True)
class _Photographs:
    """Photographs by factor levels; a class, so that it travels between processes.

    Args:
        images: (20, 72, 32, 32) in [0, 1].
    """

    images: Tensor

    def __call__(self, levels: Tensor) -> Tensor:
        return self.images[levels[:, 0].long(), levels[:, 1].long()].unsqueeze(1)


def read_coil20(path: Path) -> Tensor:
    """Read the photographs from a MATLAB file with ``X``, (1440, 1024) pixels by column, and ``Y``, objects 1 to 20.

    Args:
        path: of the file.

    Returns:
        (20, 72, 32, 32) float32 in [0, 1]: objects, poses in order, rows, columns.

    Raises:
        DataError: the file cannot be read, or does not hold 72 photographs of each of 20 objects.
    """
    try:
        arrays = loadmat(path)
        pixels, objects = np.asarray(arrays["X"], np.float64), np.asarray(arrays["Y"]).reshape(-1)
    except Exception as error:  # a damaged file makes the reader raise almost anything
        raise DataError(
            f"the file cannot be read as MATLAB's ({type(error).__name__}: {error})",
            where=str(path),
            remedy=f"give {FILE} with the arrays X and Y",
        ) from error
    count, poses = FACTORS[0].size, FACTORS[1].size
    order = np.argsort(objects, kind="stable")
    expected = np.repeat(np.arange(1, count + 1), poses)
    if pixels.shape != (count * poses, _SIDE**2) or not np.array_equal(objects[order], expected):
        raise DataError(
            f"there are photographs of shape {pixels.shape} of {len(np.unique(objects))} objects",
            where=str(path),
            remedy="give the file of 1,440 photographs of 32 × 32, 72 of each of 20 objects",
        )
    if not np.isfinite(pixels).all() or pixels.min() < 0:
        raise DataError("pixels are negative or not finite", where=str(path), remedy="fetch the file again")
    scale = 255.0 if pixels.max() > 1 else 1.0
    images = torch.from_numpy(pixels[order] / scale).float().reshape(count, poses, _SIDE, _SIDE)
    return images.transpose(2, 3).contiguous()


def _find(root: Path | None) -> Path:
    named = root if root is not None else os.environ.get("MEMSPACE_DATA")
    if named is None:
        raise DataError(
            "COIL-20 needs its folder",
            where="coil20",
            remedy=f"give --data-root DIR or set MEMSPACE_DATA to the folder with {FILE}",
        )
    for path in (Path(named), Path(named) / FILE, Path(named) / "coil20" / FILE):
        if path.is_file():
            return path
    raise DataError(f"{FILE} is missing", where=str(named), remedy=f"point --data-root at the folder with {FILE}")


@register_world("coil20")
def coil20_world(root: Path | None) -> FactorWorld:
    """Make the world of COIL-20: 20 objects × 72 poses of a full turn, photographs of 32 × 32.

    Args:
        root: the file, its folder or one above it; None: the folder in MEMSPACE_DATA.

    Returns:
        The world; it has no image between poses.

    Raises:
        DataError: the file is missing or damaged.
    """
    draw = _Photographs(read_coil20(_find(root)))
    data = "COIL-20, photographs of 20 objects in 72 poses, 32 × 32 (Columbia University)"
    return FactorWorld("coil20", FACTORS, (1, _SIDE, _SIDE), draw, continuous=False, data=data)
