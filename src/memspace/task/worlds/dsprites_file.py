"""The published file of dSprites (Matthey et al. 2017), read from where the user has it.

Its images are black or white, so 64 × 64 of them take 512 bytes: the whole file 0.4 GB. They are read when the first
image is asked for, a part at a time; nothing of 3 GB, as the file unpacked, is ever in memory.
"""

from __future__ import annotations

import math
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memspace.errors import DataError
from memspace.task.worlds.factor_world import FactorWorld, WorldFactor
from memspace.task.worlds.registry import register_world

__all__ = ["dsprites_file_world", "read_dsprites"]

NAMES = ("color", "shape", "scale", "orientation", "x", "y")  # in the order of the file's columns
FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
REMEDY = f"give {FILE} as it was published"
PART = 4096  # images unpacked at once


@dataclass
class _Sprites:
    """Images of the file by levels of the factors; read once, at the first call."""

    path: Path
    sizes: tuple[int, ...]
    side: tuple[int, int]
    packed: NDArray[np.uint8] | None = field(default=None, repr=False)

    def __call__(self, levels: Tensor) -> Tensor:
        if self.packed is None:
            self.packed = _pack(self.path, math.prod(self.sizes), self.side)
        index = torch.zeros(len(levels), dtype=torch.long)
        for column, size in zip(levels.long().T, self.sizes, strict=True):
            index = index * size + column
        bits = np.unpackbits(self.packed[index.numpy()], axis=1, count=self.side[0] * self.side[1])
        return torch.from_numpy(bits).double().reshape(-1, 1, *self.side)

    def __getstate__(self) -> dict[str, Any]:
        """Travel to another process without the images, which are read there again."""
        return self.__dict__ | {"packed": None}


@dataclass(frozen=True)
class _Closed:
    """Orientations whose last is the first again."""

    column: int
    period: int

    def __call__(self, levels: Tensor) -> Tensor:
        first = levels.clone()
        first[:, self.column] %= self.period
        return first


def read_dsprites(path: Path) -> FactorWorld:
    """Make a world of the published file; images are read when the first is asked for.

    Factors of one level, as the colour of the file, are left out. Orientations run over a full turn with both ends
    included: the period is one less than their number, and ``first_alike`` takes the last as the first.

    Args:
        path: of the ``.npz`` file; its pickled metadata are never opened.

    Returns:
        The world; it has no image between levels.

    Raises:
        DataError: the file cannot be read, or is not a full grid of factor levels in order.
    """
    try:
        with zipfile.ZipFile(path) as file:
            with file.open("latents_classes.npy") as member:
                classes = np.lib.format.read_array(member, allow_pickle=False)
            shape = _header(file)[0]
    except Exception as error:  # a damaged file makes its readers raise almost anything
        raise _unreadable(path, error) from error
    if (
        classes.ndim != 2
        or classes.shape[1] != len(NAMES)
        or len(shape) != 3
        or shape[0] != len(classes)
        or not shape[0]
    ):
        raise DataError(
            f"images of shape {shape} do not go with factors of shape {classes.shape}", where=str(path), remedy=REMEDY
        )
    sizes = tuple(int(s) + 1 for s in classes.max(0))
    grid = math.prod(sizes) == len(classes) and np.array_equal(
        np.ravel_multi_index(tuple(classes.T.astype(np.int64)), sizes), np.arange(len(classes))
    )
    if not grid:
        raise DataError("the images are not all combinations of levels in order", where=str(path), remedy=REMEDY)
    columns = [k for k, size in enumerate(sizes) if size > 1]
    factors = tuple(_factor(NAMES[k], sizes[k]) for k in columns)
    turn = next((k for k, factor in enumerate(factors) if factor.period is not None), None)
    alike = None if turn is None else _Closed(turn, sizes[columns[turn]] - 1)
    draw = _Sprites(path, tuple(f.size for f in factors), (shape[1], shape[2]))
    data = f"dSprites as published, {shape[1]} × {shape[2]} (Matthey et al. 2017)"
    return FactorWorld("dsprites-file", factors, (1, shape[1], shape[2]), draw, False, alike, data)


def _factor(name: str, size: int) -> WorldFactor:
    period = size - 1 if name == "orientation" and size > 2 else None
    return WorldFactor(name, size, ordered=name not in ("color", "shape"), period=period)


def _header(file: zipfile.ZipFile) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, order and type of the images, without them."""
    with file.open("imgs.npy") as member:
        return _start(member)


def _start(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, kind = read(member)
    if fortran or kind != np.uint8:
        raise ValueError(f"images of type {kind}{' by column' if fortran else ''}")
    return shape, fortran, kind


def _pack(path: Path, count: int, side: tuple[int, int]) -> NDArray[np.uint8]:
    """Read all images, eight pixels a byte."""
    pixels = side[0] * side[1]
    packed = np.empty((count, -(-pixels // 8)), np.uint8)
    try:
        with zipfile.ZipFile(path) as file, file.open("imgs.npy") as member:
            _start(member)
            for first in range(0, count, PART):
                rows = min(PART, count - first)
                raw = np.frombuffer(member.read(rows * pixels), np.uint8).reshape(rows, pixels)
                if raw.max() > 1:
                    raise ValueError("pixels other than 0 and 1")
                packed[first : first + rows] = np.packbits(raw, axis=1)
    except Exception as error:
        raise _unreadable(path, error) from error
    return packed


def _unreadable(path: Path, error: Exception) -> DataError:
    text = f"the file is no complete file of dSprites ({type(error).__name__}: {error})"
    return DataError(text, where=str(path), remedy=REMEDY)


@register_world("dsprites-file")
def dsprites_file_world(root: Path | None) -> FactorWorld:
    """Make the world of dSprites from the published file.

    Args:
        root: the file, its folder or one above it; None: the folder in MEMSPACE_DATA.

    Returns:
        The world, 64 × 64 pixels in black or white, without images between levels.

    Raises:
        DataError: the file is missing, damaged or another one.
    """
    named = root if root is not None else os.environ.get("MEMSPACE_DATA")
    if named is None:
        raise DataError(
            "the file of dSprites is not named",
            where="dsprites-file",
            remedy=f"give --data-root DIR or set MEMSPACE_DATA to the folder with {FILE}",
        )
    for path in (Path(named), Path(named) / FILE, Path(named) / "dsprites" / FILE):
        if path.is_file():
            return read_dsprites(path)
    raise DataError(f"{FILE} is missing", where=str(named), remedy="point --data-root at the folder with the file")
