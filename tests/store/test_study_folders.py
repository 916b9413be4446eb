"""One study at a time works in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from memspace.cli import main
from memspace.files import locked


@pytest.mark.parametrize("words", [("study", "action"), ("retrain",)])
def test_a_second_study_in_a_folder_is_refused(
    words, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["memspace", *words, "digits", "--out", str(tmp_path), "--quiet"])
    with locked(tmp_path), pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 15
    assert "another run is at work in this folder" in capsys.readouterr().err
    assert not (tmp_path / "state.json").exists()
