"""What an audit of a small network takes: files entered, calls before the first pass, and the passes of its plan."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

# Whoever follows one batch reads these files. Measures and chapters are left out: each has a file of its own, and
# there is one more for every one that is added. Lower them as files that only pass things on go away.
BEFORE, IN_ALL = 73, 110
OWN = ("measures/", "auditing/chapters/")
CALLS = 3  # a batch as the user runs it, one example alone, the batch as passes read it (see ``task.first_calls``)
DRAWN = 0.05  # some proofs of backwards are drawn by the time that passes take


@pytest.fixture(scope="module")
def took() -> dict[str, Any]:
    script = Path(__file__).with_name("counted.py")
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def test_the_network_is_called_three_times_before_the_first_pass(took: dict[str, Any]) -> None:
    assert took["calls"] == CALLS


def test_the_plan_is_what_goes_through_the_network(took: dict[str, Any]) -> None:
    forwards, backwards = took["planned"]
    assert took["ran"][0] == pytest.approx(forwards, rel=1e-3)
    assert took["ran"][1] == pytest.approx(backwards, rel=DRAWN)


def test_the_files_that_an_audit_enters_do_not_grow(took: dict[str, Any]) -> None:
    first = _shared(took["files"][: took["files_before"]])
    assert len(first) <= BEFORE, first
    assert len(_shared(took["files"])) <= IN_ALL, took["files"]


def _shared(files: Sequence[str]) -> list[str]:
    return [f for f in files if not f.startswith(OWN)]
