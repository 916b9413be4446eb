from __future__ import annotations

from pathlib import Path

from tests.extension.outside import run_outside

LOAD = "from memspace.extensions import load_extensions; load_extensions(); load_extensions(); print('ready')"


def test_an_extension_is_imported_once(tmp_path: Path) -> None:
    done = run_outside(tmp_path, "print('imported')", LOAD)
    assert done.stdout.split() == ["imported", "ready"], done.stderr


def test_an_extension_that_fails_is_named_and_left_out(tmp_path: Path) -> None:
    done = run_outside(tmp_path, "raise RuntimeError('broken on purpose')", LOAD)
    assert done.stdout.split() == ["ready"]
    assert "outside" in done.stderr
    assert "broken on purpose" in done.stderr
