"""Tasks on data the user points at: Fashion-MNIST and text."""

from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import pytest
import torch

from memspace.errors import DataError
from memspace.progress import Silent
from memspace.task.builtin import BuildOptions, build
from memspace.task.builtin.fashion import read_idx
from memspace.task.task import Task

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FASHION, TEXT = SHARED / "fashion-mnist", SHARED / "tiny-shakespeare" / "input.txt"
needs_fashion = pytest.mark.skipif(not FASHION.is_dir(), reason="the Fashion-MNIST files are not here")
needs_text = pytest.mark.skipif(not TEXT.is_file(), reason="the Tiny Shakespeare text is not here")
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _idx(values: torch.Tensor) -> bytes:
    head = struct.pack(">HBB", 0, 8, values.dim()) + struct.pack(f">{values.dim()}I", *values.shape)
    return head + values.to(torch.uint8).numpy().tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder of random pictures in the right format, images gzipped, labels plain."""
    generator = torch.Generator().manual_seed(0)
    data = tmp_path / "data"
    data.mkdir()
    for name in FILES:
        count = 40 if name.startswith("train") else 20
        if "images" in name:
            pictures = torch.randint(0, 256, (count, 28, 28), generator=generator)
            (data / f"{name}.gz").write_bytes(gzip.compress(_idx(pictures)))
        else:
            (data / name).write_bytes(_idx(torch.randint(0, 10, (count,), generator=generator)))
    return data


def _small(name: str, root: Path | None, cache: Path) -> Task:
    options = BuildOptions(data_root=root, cache=cache, train_size=32, test_size=16, epochs=1)
    return build(name, options, Silent())


def _one_line(error: DataError) -> str:
    message = str(error)
    assert "\n" not in message
    assert error.where in message
    assert error.remedy in message
    return message


@needs_fashion
def test_fashion_mnist_from_the_original_files(tmp_path: Path) -> None:
    task = _small("fashion-mnist", FASHION, tmp_path)
    assert task.test is not None
    assert (len(task.train), len(task.test)) == (32, 16)
    part = task.train.batch(range(32))
    assert part.x.shape == (32, 1, 28, 28)
    assert float(part.x.max()) == 1.0
    assert part.y[:5].tolist() == [9, 0, 0, 3, 0]  # the first labels of the published training file
    assert task.test.batch(range(5)).y.tolist() == [9, 2, 1, 1, 6]
    with torch.no_grad():
        assert task.model(part.x).shape == (32, 10)
    parent = _small("fashion-mnist", FASHION.parent, tmp_path)
    assert torch.equal(parent.train.batch([0]).x, part.x[:1])


def test_the_folder_may_come_from_the_environment(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMSPACE_DATA", str(folder))
    task = _small("fashion-mnist", None, tmp_path / "cache")
    assert len(task.train) == 32


@pytest.mark.parametrize("name", ["fashion-mnist", "text"])
def test_without_a_folder_the_message_says_how_to_name_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEMSPACE_DATA", raising=False)
    with pytest.raises(DataError) as caught:
        _small(name, None, tmp_path)
    assert "--data-root" in _one_line(caught.value)
    with pytest.raises(DataError) as caught:
        _small(name, tmp_path / "nowhere", tmp_path)
    assert "nowhere" in _one_line(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    for path in folder.glob(f"{name}*"):
        path.unlink()
    with pytest.raises(DataError, match=name) as caught:
        _small("fashion-mnist", folder, tmp_path / "cache")
    _one_line(caught.value)


@pytest.mark.parametrize("damage", ["truncated gzip", "truncated plain", "empty", "not idx", "bad crc", "wrong type"])
def test_a_damaged_idx_file_is_named(folder: Path, tmp_path: Path, damage: str) -> None:
    gz = folder / "train-images-idx3-ubyte.gz"
    raw = gz.read_bytes()
    plain = gzip.decompress(raw)
    broken = {
        "truncated gzip": raw[: len(raw) // 2],
        "truncated plain": gzip.compress(plain[:-100]),
        "empty": b"",
        "not idx": b"<html>not found</html>",
        "bad crc": raw[:-8] + b"\x00" * 8,
        "wrong type": gzip.compress(plain[:2] + b"\x0d" + plain[3:]),
    }[damage]
    gz.write_bytes(broken)
    with pytest.raises(DataError) as caught:
        _small("fashion-mnist", folder, tmp_path / "cache")
    assert str(gz) in _one_line(caught.value)


@pytest.mark.parametrize("cut", [0, 1, 3, 5, 9, 15, 100])
def test_an_idx_file_cut_anywhere_is_a_data_error(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x-idx3-ubyte"
    path.write_bytes(_idx(torch.zeros(3, 8, 8))[:cut])
    with pytest.raises(DataError):
        read_idx(path)


@pytest.mark.parametrize("cut", [1, 10, 11, 30, 60])
def test_a_gzipped_idx_file_with_a_flipped_byte_is_a_data_error(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x-idx3-ubyte.gz"
    raw = bytearray(gzip.compress(_idx(torch.randint(0, 256, (3, 8, 8)))))
    raw[cut] ^= 0xFF
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError):
        read_idx(path)


def test_images_and_labels_of_different_number_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "train-labels-idx1-ubyte").write_bytes(_idx(torch.zeros(7)))
    with pytest.raises(DataError):
        _small("fashion-mnist", folder, tmp_path / "cache")


@needs_text
def test_text_predicts_the_next_character(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    task = _small("text", TEXT, tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    assert task.test is not None
    assert (len(task.train), len(task.test)) == (32, 16)
    part = task.train.batch(range(32))
    assert part.x.shape == part.y.shape == (32, 64)
    assert torch.equal(part.x[:, 1:], part.y[:, :-1])
    assert task.show is not None
    assert task.show(part.x[0]) in TEXT.read_text(encoding="utf-8")
    with torch.no_grad():
        f = task.model(part.x)
        assert f.shape == (32, 64, 65)
        changed = part.x.clone()
        changed[:, 40:] = 0
        assert torch.allclose(task.model(changed)[:, :40], f[:, :40], atol=1e-5)  # causal
    again = _small("text", SHARED, tmp_path)
    assert torch.equal(again.train.labels(), part.y)


def test_a_text_of_one_s_own(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text("the quick brown fox jumps over the lazy dog. " * 100, encoding="utf-8")
    task = _small("text", file, tmp_path / "cache")
    assert task.class_names == tuple(sorted(set(file.read_text())))


def test_too_short_and_unreadable_texts_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "input.txt"
    file.write_text("short")
    with pytest.raises(DataError, match="5 characters") as caught:
        _small("text", tmp_path, tmp_path / "cache")
    _one_line(caught.value)
    file.write_bytes(b"\xff\xfe\x00" * 5000)
    with pytest.raises(DataError, match="UTF-8") as caught:
        _small("text", tmp_path, tmp_path / "cache")
    _one_line(caught.value)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
