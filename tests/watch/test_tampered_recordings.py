"""A recorded training may have been changed by anyone: it reads, or ends in one sentence that names what is wrong."""

from __future__ import annotations

import copy
import json
import math
import random
import shutil
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

import memspace
from memspace.auditing.chapters.recording import recording_results
from memspace.errors import MemspaceError, RunFolderError, SettingsError
from memspace.task.recording import INDEX, LOOKS, PROBE, load_recording
from tests.watch.training import watched


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded") / "run"
    watched(folder, 40, seed=1, spacing=0.01)
    return folder


@pytest.fixture
def folder(recorded, tmp_path):
    return shutil.copytree(recorded, tmp_path / "run")


def _change(folder, change) -> None:
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    index = change(index) or index
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _read(folder):
    found = load_recording(folder)
    results = recording_results(found, {})
    for state in found.run.states:
        assert state
    return results


def test_untouched_it_reads(folder):
    assert _read(folder).chapters[0].measurements


CHANGES = {
    "null law": (lambda i: i.update(law=None), "law"),
    "law without arguments": (lambda i: i["law"].update(arguments=None), "law"),
    "strange arguments of the law": (lambda i: i["law"].update(arguments={"sigma": 3}), "law"),
    "no spacing": (lambda i: i.update(spacing=0), "spacing"),
    "spacing of the settings": (lambda i: i["settings"].update(spacing="wide"), "settings"),
    "NaN times": (lambda i: i["checkpoints"][1].update(time=math.nan), "checkpoints"),
    "infinite times": (lambda i: i["checkpoints"][-1].update(time=math.inf), "checkpoints"),
    "reversed times": (
        lambda i: [c.update(time=-c["time"]) for c in i["checkpoints"]] and None,
        "times of its checkpoints",
    ),
    "reversed steps": (lambda i: i["checkpoints"].reverse(), "steps of its checkpoints"),
    "the same step twice": (lambda i: i["checkpoints"].append(i["checkpoints"][-1]), "steps of its checkpoints"),
    "a negative step": (lambda i: i["checkpoints"][0].update(step=-1), "checkpoints"),
    "a step that is a path": (lambda i: i["checkpoints"][0].update(step="../x"), "checkpoints"),
    "no checkpoints": (lambda i: i.update(checkpoints=[]), "checkpoints"),
    "checkpoints that are none": (lambda i: i.update(checkpoints={"step": 1}), "checkpoints"),
    "a list": (lambda i: [i], "damaged"),
    "a null probe": (lambda i: i.update(probe=None), "probe"),
    "another number of probe examples": (lambda i: i["probe"].update(examples=3), "probe"),
    "aliases to nowhere": (lambda i: i.update(aliases={"x": "y"}), "lacks 'y'"),
    "seconds in words": (lambda i: i.update(seconds={"training": "long", "watching": 1}), "seconds"),
    "a schema that is true": (lambda i: i.update(schema=True), "damaged"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_index_ends_in_one_sentence(folder, name):
    change, said = CHANGES[name]
    _change(folder, change)
    with pytest.raises(RunFolderError) as raised:
        _read(folder)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("seed", range(60))
def test_random_edits_of_the_index_never_end_in_a_traceback(folder, seed):
    rng = random.Random(seed)
    strange: list[Any] = [None, True, -1, 0, 1e308, math.nan, math.inf, "", "x" * 50, [], {}, [None], {"a": None}]

    def edit(node: Any) -> None:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = rng.choice(list(keys))
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.6:
            edit(node[key])
        elif rng.random() < 0.2:
            del node[key]
        else:
            node[key] = copy.deepcopy(rng.choice(strange))

    _change(folder, edit)
    said = ""
    try:
        _read(folder)
    except MemspaceError as error:
        said = str(error)
    assert "\n" not in said


def _other_outputs(folder):
    path = sorted((folder / "states").glob("*.outputs.safetensors"))[1]
    save_file({"f": load_file(str(path))["f"][:, :2].contiguous()}, str(path))


def _nan_outputs(folder):
    path = sorted((folder / "states").glob("*.outputs.safetensors"))[0]
    save_file({"f": load_file(str(path))["f"] * math.nan}, str(path))


def _wrong_labels(folder):
    save_file({"y": load_file(str(folder / PROBE))["y"] + 1000}, str(folder / PROBE))


def _no_labels(folder):
    save_file({"z": torch.zeros(2)}, str(folder / PROBE))


def _table(folder, columns):
    pq.write_table(pa.table(columns), str(folder / LOOKS))


FILES = {
    "outputs of another shape": _other_outputs,
    "outputs that are not finite": _nan_outputs,
    "labels out of range": _wrong_labels,
    "no labels": _no_labels,
    "a table of words": lambda f: _table(f, {"step": ["a", "b"]}),
    "a table without steps": lambda f: _table(f, {"loss": [1.0]}),
    "a table that is far too long": lambda f: _table(f, {"step": pa.array([0.0] * 200_000)}),
    "a table that is none": lambda f: (f / LOOKS).write_bytes(b"PAR1" + bytes(100)),
    "a checkpoint gone": lambda f: sorted((f / "states").glob("step-?????????.safetensors"))[1].unlink(),
}


@pytest.mark.parametrize("name", FILES)
def test_changed_files_end_in_one_sentence(folder, name):
    FILES[name](folder)
    with pytest.raises(RunFolderError) as raised:
        _read(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"probe": 1},
        {"probe": 2.5},
        {"probe": "many"},
        {"checkpoints": 2},
        {"checkpoints": math.inf},
        {"spacing": 0},
        {"spacing": math.nan},
        {"spacing": math.inf},
        {"budget": 0},
        {"budget": 1},
        {"budget": -math.inf},
        {"every": 0},
        {"every": 1.5},
        {"seed": -1},
        {"seed": 2**70},
    ],
)
def test_absurd_settings_of_a_recorder_are_refused_where_they_are_given(wrong):
    with pytest.raises(SettingsError, match=rf"WatchSettings\.{next(iter(wrong))}"):
        memspace.WatchSettings(**wrong)


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (lambda p: torch.optim.SGD(p, 0.1), "SGD"),
        (lambda p: torch.optim.SGD(p, 0.1, momentum=0.5), "SGD with momentum 0.5"),
        (lambda p: torch.optim.AdamW(p, 0.1), "AdamW"),
    ],
)
def test_a_recording_knows_its_optimiser(tmp_path, made, name):
    model = torch.nn.Linear(3, 2)
    x, y = torch.randn(20, 3), torch.randint(0, 2, (20,))
    optimizer = made(model.parameters())
    settings = memspace.WatchSettings(every=1, slow=False, probe=10)
    with memspace.watch(model, (x, y), optimizer, out=tmp_path, settings=settings):
        for _ in range(3):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert memspace.load_run(tmp_path).optimiser == name
