"""The commands from end to end, each failure in one sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from memspace.cli import app
from memspace.errors import DataError, MemspaceError, OutputError

MINE = """
import torch
import memspace
from memspace.task.recipe import Recipe, Training

def network():
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))

def edited():
    torch.manual_seed(0)
    x, y = torch.randn(40, 4), torch.randint(0, 3, (40,))
    recipe = Recipe(2, 10, 0.1, 1e-3, optimiser="sgd")
    return memspace.Task(
        model=network(), train=(x, y), test=(x[:20] + 0.1, y[:20]), name="mine", input_shape=(2, 2), decay=1e-3,
        training=Training(network, recipe),
    )
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "edited_task.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def call(*words):
        done = CliRunner().invoke(app, [words[0], "edited_task:edited", *words[1:]])
        if isinstance(done.exception, MemspaceError):
            raise done.exception
        return done

    return call


def test_forget(run, tmp_path):
    done = run("forget", "--examples", "3,17", "--out", "new.safetensors", "--json", "--compare")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    names = {m["name"] for m in told["measurements"]}
    assert {"forget.kl.retained", "membership.after.auc", "compare.kl_after.forgotten"} <= names
    assert load_file("new.safetensors").keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
    with pytest.raises(OutputError):
        run("forget", "--examples", "3", "--out", "new.safetensors")
    (tmp_path / "list.txt").write_text("3\n17\n")
    first = load_file("new.safetensors")
    assert run("forget", "--examples-file", "list.txt", "--out", "new.safetensors", "--force").exit_code == 0
    assert all(torch.equal(v, first[k]) for k, v in load_file("new.safetensors").items())


def test_forget_what_is_not_there(run):
    with pytest.raises(DataError):
        run("forget", "--examples", "40")
    assert run("forget", "--examples", "a,b").exit_code == 2
    assert run("forget").exit_code == 2
    assert run("forget", "--examples", "1", "--method", "magic").exit_code == 2


def test_write(run):
    done = run("write", "--like", "2", "--label", "1", "--loss", "0.5", "--out", "w.safetensors", "--json")
    assert done.exit_code == 0, done.output
    save_file({"x": torch.randn(2, 4), "y": torch.tensor([0, 1])}, "two.safetensors")
    assert run("write", "--file", "two.safetensors", "--out", "v.safetensors", "--loss", "0.8").exit_code == 0
    with pytest.raises(DataError):
        run("write", "--like", "99", "--out", "u.safetensors")
    assert run("write", "--out", "u.safetensors").exit_code == 2


def test_reweight(run):
    done = run("reweight", "--clean", "8", "--out", "weights.parquet", "--json")
    assert done.exit_code == 0, done.output
    assert any(m["name"] == "reweight.accuracy.every_step" for m in json.loads(done.stdout)["measurements"])
    with pytest.raises(DataError):
        run("reweight", "--clean", "20")


def test_distil(run, tmp_path):
    done = run("distil", "--iterations", "3", "--out", "small", "--json")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "small" / "distilled.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http://" not in page
    assert load_file("small/distilled.safetensors")["x"].shape == (3, 4)
    with pytest.raises(OutputError):
        run("distil", "--iterations", "3", "--out", "small")
