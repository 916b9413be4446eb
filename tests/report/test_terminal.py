"""What a person sees in the terminal."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from memspace.report.progress import LineProgress, TerminalProgress
from memspace.report.text import summarise
from tests.report.sample import sample


def console(width=300):
    return Console(file=io.StringIO(), width=width, force_terminal=False)


def test_the_summary_names_chapters_findings_and_the_report():
    out = console()
    summarise(sample(), Path("runs/[bold]x"), out)
    text = out.file.getvalue()
    for words in ("One", "Because.", "Two", "✗ bad", "! warn", "✓ good", "· note", "runs/[bold]x/report.html"):
        assert words in text
    assert text.index("✗ bad") < text.index("! warn") < text.index("✓ good")


def test_a_log_file_gets_a_line_now_and_then_and_none_for_short_work():
    now, lines = [0.0], []
    progress = LineProgress(lines.append, every=10.0, clock=lambda: now[0])
    for _ in progress.track(range(5), "short", 5):
        now[0] += 1
    assert lines == []
    for _ in progress.track(range(40), "long", 40):
        now[0] += 1
    assert len(lines) == 4
    assert lines[0] == "long: 5 of 40, about 35 s left"


def test_bars_close_after_an_exception_and_take_any_name():
    def work(progress):
        for k in progress.track(range(3), "layer [/bold] [0]", 3):
            if k == 1:
                raise RuntimeError

    with TerminalProgress(console()) as progress, pytest.raises(RuntimeError):
        work(progress)
