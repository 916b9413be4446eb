import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from memspace.commands.options import parse_memory
from tests import warm

MINE = """
import torch
import memspace

def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))

def task():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(40, 5, generator=g)
    y = torch.randint(0, 3, (40,), generator=g)
    return memspace.Task(model=network(), train=(x, y), test=(x[:10], y[:10]), name="mine")

def broken():
    made = task()
    with torch.no_grad():
        made.model[0].weight[0, 0] = float("nan")
    return made

def wrong_labels():
    made = task()
    x, y = made.train.batch(range(40)).x, made.train.labels().clone()
    y[3] = 7
    return memspace.Task(model=network(), train=(x, y))

number = 7
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess:
    return warm.memspace(folder, *words, environment={"MEMSPACE_CACHE": str(folder / "cache"), "COLUMNS": "100"})


def test_own_network_from_command_to_report(folder):
    done = run(folder, "audit", "mine:task", "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["schema"] == 1
    assert {c["id"] for c in results["chapters"]} >= {"geometry", "complexity", "stored", "generalisation", "action"}
    stored = json.loads((folder / "out" / "results.json").read_text())
    assert set(stored.pop("tables")) == {"duplicates", "examples", "influence", "layers", "spectrum"}
    assert results == stored
    first = (folder / "out" / "report.html").read_text()
    assert "memspace audit mine:task" in first
    again = run(folder, "report", "out", "--out", "again.html", "--quiet")
    assert again.returncode == 0, again.stderr
    assert (folder / "again.html").read_text() == first


def test_weights_from_a_file_are_what_is_audited(folder):
    torch.manual_seed(5)
    other = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    save_file(other.state_dict(), str(folder / "w.safetensors"))
    torch.save(other.state_dict(), folder / "w.pt")
    values = []
    for words in ((), ("--weights", "w.safetensors"), ("--weights", "w.pt")):
        done = run(folder, "audit", "mine:task", "--out", f"out{len(values)}", "--json", *words)
        assert done.returncode == 0, done.stderr
        (trace,) = (
            m["value"]
            for c in json.loads(done.stdout)["chapters"]
            for m in c["measurements"]
            if m["name"] == "fisher.trace"
        )
        values.append(trace)
    assert values[1] == values[2] != values[0]


def test_a_plan_computes_nothing(folder):
    done = run(folder, "audit", "mine:task", "--plan")
    assert done.returncode == 0, done.stderr
    assert "representation: dual" in done.stdout
    assert not (folder / "runs").exists()


def test_tasks_and_version(folder):
    assert "digits" in run(folder, "tasks").stdout
    assert run(folder, "--version").stdout.startswith("memspace 0.")


def test_some_of_the_parameters(folder):
    words = ("audit", "mine:task", "--parameters", "2.*", "--parameters", "!*.bias", "--json")
    plan = json.loads(run(folder, *words, "--plan").stdout)
    assert (plan["parameters"], plan["total"], plan["patterns"]) == (18, 57, ["2.*", "!*.bias"])
    done = run(folder, *words, "--out", "out", "--no-report")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["facts"]["parameters"] == "18 of 57"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("audit", "digitz"), 3, "did you mean 'digits'"),
        (("audit", "mine:nothing"), 3, "no attribute"),
        (("audit", "mine:number"), 3, "not a memspace.Task"),
        (("audit", "nowhere:task"), 3, "cannot be imported"),
        (("audit", "fashion-mnist", "--data-root", "nowhere"), 4, "missing"),
        (("audit", "mine:task", "--parameters", "layer.*"), 3, "'layer.*' matches no parameter"),
        (("audit", "mine:wrong_labels"), 5, "outside 0..2"),
        (("audit", "mine:broken"), 6, "0.weight"),
        (("audit", "mine:task", "--weights", "nowhere.pt"), 11, "no such checkpoint"),
        (("audit", "mine:task", "--memory", "64"), 13, "--memory"),
        (("audit", "mine:task", "--out", "mine.py"), 14, "mine.py"),
        (("report", "nowhere"), 15, "no finished results"),
        (("audit", "mine:task", "--memory", "lots"), 2, "4GiB"),
        (("audit", "mine:task", "--label-noise", "1.5"), 2, "label"),
    ],
)
def test_each_failure_is_one_sentence_and_its_own_code(folder, words, code, said):
    done = run(folder, *words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if code != 2:
        assert len(done.stderr.strip().splitlines()) == 1


def test_json_errors_are_json_too(folder):
    done = run(folder, "audit", "digitz", "--json")
    error = json.loads(done.stdout)["error"]
    assert error["exit_code"] == done.returncode == 3
    assert error["remedy"]


@pytest.mark.parametrize(
    ("text", "size"), [("4GiB", 4 * 2**30), ("512 MiB", 512 * 2**20), ("2G", 2 * 2**30), ("100", 100), ("1.5k", 1536)]
)
def test_sizes(text, size):
    assert parse_memory(text) == size
