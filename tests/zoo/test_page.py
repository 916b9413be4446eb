"""The page on zoos: what it declares can be trained, and its query gives what it says."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from memspace.verbs.zoo import WorkSettings, train_zoo
from memspace.zoo.results import ZooResults

PAGE = (Path(__file__).parents[2] / "docs" / "zoo.md").read_text(encoding="utf-8")


def _block(language: str) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]


def test_the_declaration_trains_and_the_query_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(_block("toml"))
    results = train_zoo("mine.toml", out="runs/mine", settings=WorkSettings(workers=1, stages=("train", "outcomes")))
    names: dict[str, object] = {}
    exec(compile(_block("python"), "zoo.md", "exec"), names)
    ends = ZooResults([results.store]).table().filter("fitted", pl.col("moment") == 1.0)
    expected = ends.group_by("width").agg(pl.col("train_loss", "test_loss").mean())
    gap = dict(zip(expected["width"], expected["test_loss"] - expected["train_loss"], strict=True))
    assert dict(zip(names["gaps"]["width"], names["gaps"]["gap"], strict=True)) == pytest.approx(gap, rel=1e-9)
    assert len(results.declared.specs) == 8
    assert set(gap) == {16, 32, 64}
