"""Every kind of failure leaves the command line in one sentence and with its own code; Ctrl-C keeps what is done."""

import importlib
import json
import re
import sys

import pytest
from typer.testing import CliRunner

import memspace.errors as errors
from memspace.cli import app, main
from tests import warm

load = importlib.import_module("memspace.task.load")
KINDS = [getattr(errors, name) for name in errors.__all__]

INTERRUPTING = '''
import os, signal
from pathlib import Path
import torch, memspace

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background

class Net(torch.nn.Module):
    """Sends itself a Ctrl-C, once, after the second chapter was kept."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)

    def forward(self, x):
        if Path("out/.partial/complexity.json").exists() and not Path("sent").exists():
            Path("sent").touch()
            os.kill(os.getpid(), signal.SIGINT)
        return self.b(torch.tanh(self.a(x)))

def task():
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    return memspace.Task(model=Net(), train=(x, x[:, :3].argmax(1)), name="net")
'''


def _leave(monkeypatch, error, *words):
    def fail(*_args, **_keywords):
        raise error

    monkeypatch.setattr(load, "resolve", fail)
    monkeypatch.setattr(sys, "argv", ["memspace", "audit", "digits", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_the_code_and_the_sentence(monkeypatch, capsys, kind):
    error = kind("it broke", where="over there", remedy="mend it")
    assert _leave(monkeypatch, error) == kind.exit_code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "memspace: it broke (over there); mend it.\n"


def test_for_machines_the_failure_is_json(monkeypatch, capsys):
    assert _leave(monkeypatch, errors.DataError("it broke", where="there", remedy="mend it"), "--json") == 4
    expected = {"what": "it broke", "where": "there", "remedy": "mend it", "exit_code": 4}
    assert json.loads(capsys.readouterr().out) == {"error": expected}


def test_no_memory_left_is_a_sentence_too(monkeypatch, capsys):
    assert _leave(monkeypatch, MemoryError()) == 1
    assert "--memory" in capsys.readouterr().err


def test_a_fault_of_memspace_keeps_its_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        _leave_with_fault(monkeypatch)


def _leave_with_fault(monkeypatch):
    def fail(*_args, **_keywords):
        raise ZeroDivisionError

    monkeypatch.setattr(load, "resolve", fail)
    monkeypatch.setattr(sys, "argv", ["memspace", "audit", "digits"])
    main()


def test_ctrl_c_speaks_and_the_same_command_goes_on(tmp_path):
    (tmp_path / "net.py").write_text(INTERRUPTING)

    def run():
        words = ("audit", "net:task", "--out", "out", "--no-report")
        return warm.memspace(tmp_path, *words, environment={"MEMSPACE_CACHE": str(tmp_path / "cache")})

    first = run()
    assert first.returncode == 130, first.stderr
    *progress, last = first.stderr.strip().splitlines()
    assert last == "memspace: stopped (by the user); finished stages are kept, the same command goes on."
    assert all(re.search(r": \d+ of \d+", line) for line in progress)  # shown where a busy machine takes long
    assert (tmp_path / "out" / ".partial" / "complexity.json").exists()
    second = run()
    assert second.returncode == 0, second.stderr
    assert "Going on from an interrupted run." in second.stderr
    assert (tmp_path / "out" / "results.json").exists()
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("audit", "digits", "--seed", "x"),
        ("duplicates", "digits", "--within", "test"),
        ("audit",),
        ("audit", "digits", "--nothing"),
        ("nothing",),
    ],
)
def test_wrong_usage_has_code_2_for_a_shell_and_for_a_test_runner(monkeypatch, capsys, words):
    done = CliRunner().invoke(app, [*words])
    assert done.exit_code == 2
    monkeypatch.setattr(sys, "argv", ["memspace", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("memspace: ")
    assert said.count("\n") == 1
    assert done.stderr.startswith("memspace: ")
    assert done.stderr.count("\n") == 1
