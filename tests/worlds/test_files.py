"""Worlds of real images: the published file of dSprites, fabricated small, and the photographs of COIL-20."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from memspace.errors import DataError
from memspace.task.worlds import world
from memspace.task.worlds.coil20 import read_coil20
from memspace.task.worlds.sampling import combinations

COIL = Path(os.environ.get("MEMSPACE_DATA", ".")) / "coil20" / "COIL20.mat"
SIZES = (1, 3, 2, 5, 4, 4)


def _file(path: Path, **changes: np.ndarray) -> np.ndarray:
    """Write a file as dSprites is published, of small sizes; orientations end where they began."""
    classes = np.stack(np.unravel_index(np.arange(np.prod(SIZES)), SIZES), 1)
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2, (3, 2, 4, 4, 4, 12, 10), dtype=np.uint8)  # four orientations, and the first again
    images = bits[:, :, [0, 1, 2, 3, 0]].reshape(-1, 12, 10)
    arrays = {"imgs": images, "latents_classes": classes, "metadata": np.array({"never": "opened"}, dtype=object)}
    np.savez_compressed(path, **(arrays | changes))
    return images


def test_the_published_file_is_read_by_levels(tmp_path: Path) -> None:
    images = _file(tmp_path / "sprites.npz")
    sprites = world("dsprites-file", tmp_path / "sprites.npz")
    assert sprites.names == ("shape", "scale", "orientation", "x", "y")
    assert (sprites.sizes, sprites.shape) == (SIZES[1:], (1, 12, 10))
    assert (sprites.circular, sprites.factors[2].period) == (("orientation",), 4)
    index = torch.randperm(sprites.count, generator=torch.Generator().manual_seed(0))[:70]
    levels = sprites.levels_at(index)
    assert torch.equal(sprites.render(levels)[:, 0], torch.from_numpy(images[index.numpy()]).float())
    again = pickle.loads(pickle.dumps(sprites))
    assert torch.equal(again.render(levels), sprites.render(levels))
    with pytest.raises(DataError, match=r"no image at level 0.5 of the factor 'x'"):
        sprites.render(torch.tensor([[0, 0, 0, 0.5, 0]]))
    assert sprites.as_factors(levels).render is None


def test_the_last_orientation_of_the_file_is_the_first(tmp_path: Path) -> None:
    _file(tmp_path / "sprites.npz")
    sprites = world("dsprites-file", tmp_path / "sprites.npz")
    drawn = combinations(sprites, sprites.count * 4 // 5, seed=1)
    assert int(drawn[:, 2].max()) == 3
    last = torch.tensor([[1, 1, 4, 2, 3]])
    assert sprites.first_alike(last).tolist() == [[1, 1, 0, 2, 3]]
    assert torch.equal(sprites.render(last), sprites.render(sprites.first_alike(last)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"imgs": np.zeros((480, 12, 10))}, "images of type float64"),
        ({"imgs": np.zeros((479, 12, 10), np.uint8)}, r"images of shape \(479, 12, 10\)"),
        ({"latents_classes": np.zeros((480, 5), np.int64)}, r"factors of shape \(480, 5\)"),
        ({"latents_classes": np.zeros((480, 6), np.int64)}, "not all combinations of levels in order"),
        ({"latents_classes": np.array({}, dtype=object)}, "no complete file of dSprites"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path: Path, changes: dict[str, np.ndarray], says: str) -> None:
    _file(tmp_path / "sprites.npz", **changes)
    with pytest.raises(DataError, match=says):
        world("dsprites-file", tmp_path / "sprites.npz")


def test_grey_levels_and_damage_are_told_when_images_are_asked_for(tmp_path: Path) -> None:
    _file(tmp_path / "grey.npz", imgs=np.full((480, 12, 10), 7, np.uint8))
    with pytest.raises(DataError, match="pixels other than 0 and 1"):
        world("dsprites-file", tmp_path / "grey.npz").render(torch.zeros(1, 5))
    (tmp_path / "damaged.npz").write_bytes(b"PK and no more")
    with pytest.raises(DataError, match="no complete file of dSprites"):
        world("dsprites-file", tmp_path / "damaged.npz")


@pytest.mark.parametrize("name", ["dsprites-file", "coil20"])
def test_missing_files_and_folders_are_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"is missing .*point --data-root"):
        world(name, tmp_path)
    monkeypatch.delenv("MEMSPACE_DATA", raising=False)
    with pytest.raises(DataError, match="set MEMSPACE_DATA"):
        world(name)


def _photographs(path: Path, order: np.ndarray, scale: float = 1.0, poses: int = 72) -> np.ndarray:
    images = np.random.default_rng(1).random((20, poses, 32, 32))
    pixels = images.transpose(0, 1, 3, 2).reshape(-1, 1024)  # by column
    objects = np.repeat(np.arange(1, 21), poses)
    savemat(path, {"X": scale * pixels[order], "Y": objects[order, None]})
    return images


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_photographs_are_read_by_object_pose_row_and_column(tmp_path: Path, scale: float) -> None:
    last_object_first = np.arange(1440).reshape(20, 72)[::-1].reshape(-1)
    images = _photographs(tmp_path / "COIL20.mat", last_object_first, scale)
    coil = world("coil20", tmp_path)
    levels = coil.levels_at(torch.arange(0, 1440, 37))
    expected = torch.from_numpy(images[levels[:, 0], levels[:, 1]]).float()
    torch.testing.assert_close(coil.render(levels)[:, 0], expected, rtol=0, atol=1e-6)
    around = levels + torch.tensor([0, 72])
    assert torch.equal(coil.render(around), coil.render(levels))
    with pytest.raises(DataError, match=r"no image at level 3.5 of the factor 'pose'.*whole levels"):
        coil.render(torch.tensor([[0, 3.5]]))


def test_other_photographs_are_refused(tmp_path: Path) -> None:
    _photographs(tmp_path / "few.mat", np.arange(200), poses=10)
    with pytest.raises(DataError, match=r"shape \(200, 1024\) of 20 objects"):
        read_coil20(tmp_path / "few.mat")
    (tmp_path / "text.mat").write_text("no MATLAB file")
    with pytest.raises(DataError, match="cannot be read as MATLAB's"):
        read_coil20(tmp_path / "text.mat")


@pytest.mark.skipif(not COIL.is_file(), reason="COIL-20 is not here: set MEMSPACE_DATA to the folder with coil20/")
def test_neighbouring_poses_of_the_real_photographs_are_most_alike() -> None:
    coil = world("coil20")
    images = coil.render(coil.levels_at(torch.arange(coil.count))).reshape(20, 72, -1)
    step = (images - images.roll(1, 1)).norm(dim=2)  # the last step closes the circle
    assert float((step[:, 0] / step[:, 1:].mean(1)).mean()) < 1.5
    assert float(step.mean()) < 0.6 * float((images - images.roll(36, 1)).norm(dim=2).mean())
