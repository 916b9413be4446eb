"""Checkpoints: missing, damaged, of another model, or holding code."""

from __future__ import annotations

import gzip
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from memspace.errors import CheckpointError, DataError, UnsafeCheckpointError, WeightsMismatchError
from memspace.task.checkpoint import load_weights, read_state
from memspace.task.data import Data
from memspace.task.fingerprint import fingerprint
from memspace.task.task import Task


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


class Evil:
    """Unpickling this runs a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.mark}",))


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
def test_good_checkpoints_are_read(tmp_path: Path, name: str) -> None:
    path, source, target = tmp_path / name, _net(), _net()
    if path.suffix == ".safetensors":
        save_file(source.state_dict(), str(path))
    else:
        torch.save(source.state_dict(), path)
    load_weights(target, path)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_training_checkpoints_and_data_parallel_names_are_understood(tmp_path: Path, key: str) -> None:
    source, target = _net(), _net()
    state = {f"module.{k}": v for k, v in source.state_dict().items()}
    torch.save({"epoch": 3, key: state, "loss": 0.1}, tmp_path / "w.pt")
    load_weights(target, tmp_path / "w.pt")
    assert torch.equal(source[2].weight, target[2].weight)


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors", "."])
def test_a_missing_checkpoint(refused: Any, tmp_path: Path, name: str) -> None:
    with refused(CheckpointError, str(tmp_path), "--weights"):
        read_state(tmp_path / name)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.005, 0.01, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_torch_file(refused: Any, tmp_path: Path, zipped: bool, share: float) -> None:
    path = tmp_path / "w.pt"
    torch.save(_net().state_dict(), path, _use_new_zipfile_serialization=zipped)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    with refused(CheckpointError, "truncated", str(path), "save it again"):
        read_state(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_safetensors_file(refused: Any, tmp_path: Path, share: float) -> None:
    path = tmp_path / "w.safetensors"
    save_file(_net().state_dict(), str(path))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    with refused(CheckpointError, "truncated", str(path)):
        read_state(path)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_noise_is_no_checkpoint(tmp_path: Path, seed: int, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(
        torch.randint(0, 256, (200,), generator=torch.Generator().manual_seed(seed)).byte().numpy().tobytes()
    )
    with pytest.raises(CheckpointError):
        read_state(path)


@pytest.mark.parametrize(
    "content", [b"<html><body>404</body></html>", b"hello world", b"{}", b"version https://git-lfs"]
)
def test_other_files_are_no_checkpoints_and_not_called_unsafe(refused: Any, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    with refused(CheckpointError, str(path)) as message:
        read_state(path)
    assert "weights_only" not in message[0]  # never the advice to load it unsafely


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, 3.0, {"state_dict": {"w": "text"}}])
def test_files_without_tensors(refused: Any, tmp_path: Path, content: Any) -> None:
    path = tmp_path / "w.pt"
    torch.save(content, path)
    with refused(CheckpointError, "no state dict", str(path)):
        read_state(path)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle 0", "pickle 2", "pickle 4", "nested", "whole model"])
def test_code_in_a_checkpoint_is_refused_and_never_run(refused: Any, tmp_path: Path, form: str) -> None:
    path, mark = tmp_path / "w.pt", tmp_path / "the code ran"
    evil: Any = Evil(tmp_path / "the\\ code\\ ran")
    if form.startswith("pickle"):
        path.write_bytes(pickle.dumps({"w": evil}, int(form[-1])))
    elif form == "whole model":
        torch.save(_net(), path)
    else:
        content = {"state_dict": OrderedDict(w=torch.zeros(2), x=evil)} if form == "nested" else {"w": evil}
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    with refused(UnsafeCheckpointError, str(path), "state_dict()"):
        load_weights(_net(), path)
    assert not mark.exists()


def test_the_evil_checkpoint_is_really_evil(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()


def test_keys_that_do_not_fit_are_named(refused: Any, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    state = dict(_net().state_dict())
    state["extra.weight"] = state.pop("2.weight")
    torch.save(state, path)
    target = _net()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with refused(WeightsMismatchError, "1 missing (2.weight)", "1 unexpected (extra.weight)", str(path)):
        load_weights(target, path)
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


def test_shapes_that_do_not_fit_are_named(refused: Any, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = dict(_net().state_dict()) | {"0.weight": torch.zeros(8, 5)}
    save_file(state, str(path))
    with refused(WeightsMismatchError, "1 of another shape", "0.weight: (8, 5) for (8, 4)"):
        load_weights(_net(), path)


def test_many_keys_are_cut_short(refused: Any, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({f"k{i}": torch.zeros(1) for i in range(50)}, path)
    with refused(WeightsMismatchError, "4 missing", "50 unexpected", "...") as message:
        load_weights(_net(), path)
    assert len(message[0]) < 400


def test_the_fingerprint_tells_tasks_apart() -> None:
    torch.manual_seed(1)
    model, x, y = _net(), torch.randn(20, 4), torch.arange(20) % 3
    base = fingerprint(Task(model, Data((x, y))))
    assert fingerprint(Task(model, Data((x.clone(), y.clone())))) == base
    other = y.clone()
    other[11] = (other[11] + 1) % 3
    assert fingerprint(Task(model, Data((x, other)))) != base
    assert fingerprint(Task(model, Data((x, y)), test=Data((x, y)))) != base
    with torch.no_grad():
        model[2].bias[1] += 1e-6
    assert fingerprint(Task(model, Data((x, y)))) != base


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.to(torch.int32), "weight: int32 for float32"),
        (lambda w: w.to(torch.int8), "weight: int8 for float32"),
        (lambda w: w > 0, "weight: bool for float32"),
        (lambda w: torch.complex(w, w), "weight: complex64 for float32"),
    ],
    ids=["int32", "int8", "bool", "complex"],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_another_kind_of_number_are_refused(tmp_path, change, says, suffix):
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    state = model.state_dict() | {"weight": change(model.weight.detach())}
    path = tmp_path / f"w{suffix}"
    torch.save(state, path) if suffix == ".pt" else save_file(state, str(path))
    with pytest.raises(WeightsMismatchError) as caught:
        load_weights(model, path)
    assert says in str(caught.value)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_width_load(tmp_path, dtype):
    model, path = nn.Linear(3, 2), tmp_path / "w.pt"
    torch.save({k: v.to(dtype) for k, v in model.state_dict().items()}, path)
    other = nn.Linear(3, 2)
    load_weights(other, path)
    assert torch.allclose(other.weight, model.weight, atol=0.01)


def test_a_packed_file_that_unpacks_without_end_is_refused(tmp_path):
    from memspace.task.builtin.fashion import read_idx

    path = tmp_path / "t.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(160):
            file.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    with pytest.raises(DataError, match="more than"):
        read_idx(path)
