"""Names and texts of users are shown as they are; what their code prints does not get into JSON."""

from __future__ import annotations

import importlib
import io
import json
import sys

import pytest
import torch

from memspace.auditing.results import Chapter, Finding, Results
from memspace.cli import main
from memspace.format import printable
from memspace.measurement import Measurement, Unmeasured
from memspace.report.measured import show_measured
from memspace.report.terminal import Terminal, styled
from memspace.report.text import summarise

NAMES = ("[/INST]", "[red]", ":smile: [bold")
TASK = """
import torch, memspace
print("imported: hello")
NAMES = ("[/INST]", "[red]", ":smile: [bold")

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = torch.nn.Linear(4, 3)

    def forward(self, x):
        print("forward!")
        return self.a(x)

def task():
    print("building")
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    y = x[:, :3].argmax(1)
    parts = {"train": (x[:24], y[:24]), "test": (x[24:], y[24:])}
    return memspace.Task(model=Net(), **parts, name="a[/b] :heart:", class_names=NAMES)
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    (tmp_path / "noisy.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    sys.modules.pop("noisy", None)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["memspace", *words])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        assert left.value.code in (0, None), said.err
        return said

    yield run
    sys.modules.pop("noisy", None)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_standard_output_is_json_whatever_the_task_prints(command):
    said = command("audit", "noisy:task", "--json", "--out", "out", "--no-report")
    assert json.loads(said.out)["name"] == "a[/b] :heart:"
    for word in ("imported: hello", "building", "forward!"):
        assert word in said.err
    plan = command("audit", "noisy:task", "--plan", "--json")
    assert json.loads(plan.out)["n"] == 24


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "words", [("labels", "noisy:task"), ("influence", "noisy:task", "--query", "0", "--damping", "0.1")]
)
def test_names_in_brackets_are_names(command, words):
    out = command(*words).out
    shown = [n for n in (*NAMES, "a[/b] :heart:") if n in out]
    assert len(shown) >= 2, out


def _results() -> Results:
    hostile = "[/INST] [red]x[/] :smile: \x1b[2J\x07"
    m = Measurement("a[/b]", 1.0, "nats", "e", 3)
    finding = Finding("warn", hostile, "e", hostile, "c")
    chapter = Chapter("c", hostile, "q", hostile, (m,), (Unmeasured("x[/]", hostile, hostile),), (finding,))
    return Results(hostile, "2026-01-01", "0", {}, {}, "p", (chapter,), {"total": 1.0})


@pytest.mark.parametrize("kind", [Terminal, importlib.import_module("rich.console").Console])
def test_summaries_and_tables_show_hostile_names_literally(tmp_path, kind):
    out = io.StringIO()
    console = kind(file=out, width=200, force_terminal=False)
    summarise(_results(), tmp_path / "[red]", console)
    (chapter,) = _results().chapters
    show_measured("[/title]", chapter.measurements, chapter.unmeasured, console)
    text = out.getvalue()
    for word in ("[/INST] [red]x[/] :smile: ", "[/title]", "a[/b]", "x[/]", "[red]"):
        assert word in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_terminal_reads_no_markup_and_sends_no_codes():
    out = io.StringIO()
    console = Terminal(file=out, width=100, force_terminal=False)
    console.print("[bold]x[/] :heart: \x1b]0;title\x07 \u202eabc")
    console.print(styled(("[x]", "bold"), "\x9b31m"))
    assert out.getvalue() == "[bold]x[/] :heart: \ufffd]0;title\ufffd \ufffdabc\n[x]\ufffd31m\n"
    assert printable("a\nb\t c\x00", one_line=True) == "a b c\ufffd"


def test_what_json_cannot_hold_becomes_null(capsys):
    from memspace.commands import say_json

    say_json({"a": float("nan"), "b": [float("inf"), torch.tensor(1.5)]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5]}
