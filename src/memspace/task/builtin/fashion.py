"""Fashion-MNIST (Zalando Research): the four original IDX files, read from a folder the user names."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from memspace.errors import DataError
from memspace.progress import Progress
from memspace.task.builtin.options import BuildOptions
from memspace.task.builtin.registry import builtin
from memspace.task.builtin.trained import Ingredients, trained_task
from memspace.task.recipe import Recipe
from memspace.task.task import Task

__all__ = ["fashion", "find_idx", "read_idx"]

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
RECIPE = Recipe(epochs=6, batch=128, rate=2e-3, decay=1e-5, checkpoints=16)
_FILES = {
    ("train", "x"): "train-images-idx3-ubyte",
    ("train", "y"): "train-labels-idx1-ubyte",
    ("test", "x"): "t10k-images-idx3-ubyte",
    ("test", "y"): "t10k-labels-idx1-ubyte",
}


LARGEST = 2**27  # bytes of one file: 60,000 images of 28 × 28 take 47 million


def read_idx(path: Path) -> Tensor:
    """Read an IDX file of unsigned bytes, gzipped or not.

    Args:
        path: of the file.

    Returns:
        The array that it holds, uint8.

    Raises:
        DataError: unreadable, truncated or not IDX.
    """
    try:
        return _array(path)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise DataError(
            f"the file is not a complete IDX file ({error})", where=str(path), remedy="fetch the file again"
        ) from error


def _array(path: Path) -> Tensor:
    """Read the array, or raise whatever a damaged file makes its reading raise."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise ValueError(f"more than {LARGEST:,} bytes")
    zero, kind, dims = struct.unpack(">HBB", raw[:4])
    shape = struct.unpack(f">{dims}I", raw[4 : 4 + 4 * dims])
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * dims)
    if zero != 0 or kind != 8 or data.size != int(np.prod(shape)):
        raise ValueError(f"{data.size} bytes for shape {shape}")
    return torch.from_numpy(data.reshape(shape).copy())


def find_idx(root: Path | None, stem: str) -> Path:
    """Find one of the four files, gzipped or not.

    Args:
        root: the folder with the files, or one that holds it; None: the environment variable MEMSPACE_DATA.
        stem: name of the file without an ending.

    Returns:
        Its path.

    Raises:
        DataError: no folder is named, or the file is not in it.
    """
    named = root if root is not None else os.environ.get("MEMSPACE_DATA")
    if named is None:
        raise DataError(
            "Fashion-MNIST needs its folder",
            where="fashion-mnist",
            remedy="give --data-root DIR or set MEMSPACE_DATA to the folder with the four IDX files",
        )
    folder = Path(named)
    for base in (folder, folder / "fashion-mnist"):
        for suffix in (".gz", ""):
            if (base / (stem + suffix)).is_file():
                return base / (stem + suffix)
    raise DataError(
        f"{stem}.gz is missing",
        where=str(folder),
        remedy="point --data-root at the folder with the four IDX files",
    )


def _network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1568, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


@builtin("fashion-mnist")
def fashion(options: BuildOptions, progress: Progress) -> Task:
    """Train a convolutional network of 106 thousand parameters on 60,000 images of clothes and test it on 10,000.

    Args:
        options: seed, sizes, share of wrong labels, the folder with the four IDX files.
        progress: what shows the training.

    Returns:
        The task with its trained network; without wrong labels on purpose its right labels are not known.

    Raises:
        DataError: a file is missing or damaged, or images and labels differ in number.
    """
    parts = {key: read_idx(find_idx(options.data_root, stem)) for key, stem in _FILES.items()}
    for split in ("train", "test"):
        images, named = parts[split, "x"], parts[split, "y"]
        if images.shape[1:] != (28, 28) or named.shape != images.shape[:1]:
            raise DataError(
                f"{split} images of shape {tuple(images.shape)} do not go with labels of shape {tuple(named.shape)}",
                where="fashion-mnist",
                remedy="fetch the four files again",
            )
    train, test = options.train_size or 60_000, options.test_size or 10_000
    x = {s: (parts[s, "x"][:m].float() / 255).unsqueeze(1) for s, m in (("train", train), ("test", test))}
    truth = parts["train", "y"][:train].long()
    ingredients = Ingredients(
        _network,
        RECIPE,
        x["train"],
        truth,
        (x["test"], parts["test", "y"][:test].long()),
        classes=10,
        data="Fashion-MNIST, 28×28 grey levels (Zalando Research, MIT)",
        architecture="conv 16, conv 32, linear 64, linear 10; ReLU, max-pooling",
    )
    shown: dict[str, Any] = {"class_names": CLASSES, "input_shape": (28, 28)}
    if options.label_noise == 0:
        shown["true_labels"] = None  # the set's own wrong labels are not known
    return trained_task("fashion-mnist", ingredients, options, progress, **shown)
