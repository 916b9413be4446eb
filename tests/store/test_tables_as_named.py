"""A table is written as the kind that its name says, or refused before any work."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import memspace
from memspace.auditing.table_file import save_table
from memspace.cli import app
from memspace.errors import OutputError

COLUMNS = {"example": [3, 1], "why": ['a, "b"', None], "share": [0.25, 1.0], "near": [[1, 2], []]}


@pytest.mark.parametrize("name", ["x.csv", "x.CSV", "x.parquet", "x.pq"])
def test_the_bytes_are_those_of_the_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    save_table(str(path), COLUMNS)
    if path.suffix.lower() == ".csv":
        found = pd.read_csv(path)
        assert found["near"].tolist() == ["[1, 2]", "[]"]
        assert pd.isna(found["why"][1])
    else:
        found = pq.read_table(path).to_pandas()
        assert [list(v) for v in found["near"]] == [[1, 2], []]
    assert found["example"].tolist() == [3, 1]
    assert found["why"][0] == 'a, "b"'
    assert found["share"].tolist() == [0.25, 1.0]


@pytest.mark.parametrize("name", ["x", "x.xlsx", "x.json", "."])
def test_another_ending_is_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\.parquet or \.csv|folder"):
        save_table(tmp_path / name, COLUMNS)
    assert list(tmp_path.iterdir()) == []


def test_label_lists_and_duplicates_open_in_a_spreadsheet(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(30, 4), torch.arange(30) % 3
    x[7] = x[3]
    task = memspace.Task(nn.Linear(4, 3), (x, y))
    issues, twice = memspace.label_issues(task, folds=0), memspace.duplicates(task)
    issues.save(tmp_path / "labels.csv", 5)
    twice.save(tmp_path / "twice.csv")
    assert len(pd.read_csv(tmp_path / "labels.csv")) == 5
    assert list(pd.read_csv(tmp_path / "twice.csv").columns) == list(twice.table)


@pytest.mark.parametrize("command", ["labels", "duplicates", "reweight"])
def test_commands_refuse_the_name_before_they_build_the_task(command: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        CliRunner().invoke(app, [command, "no-such-task", "--out", str(tmp_path / "x.xlsx")], catch_exceptions=False)
