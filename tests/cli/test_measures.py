"""``memspace measures``: the declarations as a list, extensions among them."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from memspace.auditing.chapter import declared_chapters
from memspace.cli import app
from memspace.measures.declaration import declared_measures
from tests.extension.outside import run_outside

EXTENSION = '''
from memspace.measures.declaration import measure
from memspace.value import Value

@measure("mine.one", chapter="mine", unit="nats", estimator="one", better="larger")
def one() -> Value:
    """Count to one."""
    return Value(1.0, 1)
'''


def test_every_declared_measure_is_listed_with_what_it_means() -> None:
    done = CliRunner().invoke(app, ["measures", "--json"])
    assert done.exit_code == 0, done.output
    listed = {m["name"]: m for m in json.loads(done.stdout)["measures"]}
    assert listed.keys() == {m.name for m in declared_measures()}
    information = listed["complexity.information"]
    assert (information["unit"], information["chapter"], information["source"]) == ("bits", "complexity", "mackay1992")
    assert all(m["estimator"] and m["meaning"] and m["cost"] for m in listed.values())


def test_chapters_come_in_the_order_of_the_report() -> None:
    said = CliRunner().invoke(app, ["measures"], env={"COLUMNS": "200"}).output
    assert said.index("complexity.information") < said.index("capacity.bits_used")
    assert "complexity.information" in said


def test_pages_that_are_no_audit_are_listed_after_it_and_are_no_part_of_it() -> None:
    done = CliRunner().invoke(app, ["measures", "--json"])
    order = list(dict.fromkeys(m["chapter"] for m in json.loads(done.stdout)["measures"]))
    pages = ["distance", "better", "barrier", "layers", "examples", "live", "pruning"]
    places = [order.index(page) for page in pages]
    assert places == sorted(places)
    audited = {chapter.id for chapter in declared_chapters()}
    assert not audited & {*pages, "path"}
    assert max(order.index(chapter) for chapter in audited) < places[0]


def test_those_of_an_extension_are_among_them(tmp_path: Path) -> None:
    done = run_outside(tmp_path, EXTENSION, "-m memspace", "measures", "--json")
    mine = json.loads(done.stdout)["measures"][-1]
    assert (mine["name"], mine["meaning"], mine["better"]) == ("mine.one", "Count to one.", "larger")
