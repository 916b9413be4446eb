"""``memspace claims`` on the command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from memspace.cli import app
from tests.claims.examples import PAIRS, RANK, stored, written
from tests.claims.synthetic import zoo


def call(*words: str, code: int = 0):
    done = CliRunner().invoke(app, ["claims", *map(str, words)], env={"COLUMNS": "200"})
    if code == 0:
        assert done.exit_code == 0, done.output
    else:
        assert getattr(done.exception, "exit_code", done.exit_code) == code, done.output
    return done


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Registered, then stored, then judged."""
    folder = tmp_path_factory.mktemp("claims")
    registered = ["--registered", folder / "registered"]
    written(folder / "registered", RANK, PAIRS)
    assert "not registered" in call("list", *registered).output
    assert "Registered: 01-rank, 02-pairs." in call("register", "--store", folder / "store", *registered).output
    assert "All were registered" in call("register", "--store", folder / "store", *registered).output
    assert "not judged yet" in call("list", *registered).output
    stored(folder / "store", zoo(3, effect=0.8))
    run = call("run", "02", "--store", folder / "store", "--out", folder / "out", "--quiet", *registered)
    assert run.output == ""
    return folder, registered


def test_verdicts_are_listed_and_shown(places) -> None:
    folder, registered = places
    verdicts = ["--verdicts", folder / "out"]
    listed = json.loads(call("list", "--json", *registered, *verdicts).output)["claims"]
    assert [(c["id"], c["state"]) for c in listed] == [("01-rank", "not judged yet"), ("02-pairs", "supported")]
    assert "mlp supported" in call("list", *registered, *verdicts).output
    shown = call("show", "02", *registered, *verdicts).output
    for part in (
        "Matched pairs",
        "Supported where the whole 95% interval lies above 0.5",
        listed[1]["sha256"],
        "Asked: ",
    ):
        assert part in shown
    content = json.loads(call("show", "02", "--json", *registered, *verdicts).output)
    assert content["registration"]["statistic"]["name"] == "matched pairs"
    assert content["verdict"]["word"] == "supported"


def test_a_verdict_is_judged_again_by_its_id_or_hash(places) -> None:
    folder, registered = places
    words = ["--verdicts", folder / "out", "--store", folder / "store", *registered]
    assert "02-pairs: supported, reproduced from the store." in call("verdict", "02", *words).output
    sha256 = json.loads((folder / "out" / "verdicts.json").read_text())["claims"][0]["sha256"]
    again = json.loads(call("verdict", "--hash", sha256, "--json", *words).output)
    assert again["reproduced"]
    assert again["id"] == "02-pairs"
    both = [*words, "--store", folder / "further"]
    stored(folder / "further", zoo(3), "others")
    assert "02-pairs: supported, reproduced from the store." in call("verdict", "02", *both).output
    call("verdict", *words, code=2)
    call("verdict", "02", "--hash", sha256, *words, code=2)


def test_a_changed_registration_is_told_and_refused(places, tmp_path) -> None:
    folder, _ = places
    registered = tmp_path / "registered"
    written(registered, PAIRS.replace("within = 0.01", "within = 0.02"))
    (registered / "hashes.toml").write_text((folder / "registered" / "hashes.toml").read_text())
    words = ["--registered", registered]
    assert "changed since it was registered" in call("list", *words).output
    assert "changed since its verdict" in call("list", *words, "--verdicts", folder / "out").output
    call("run", "--store", folder / "store", "--out", tmp_path / "out", *words, code=2)
    assert not (tmp_path / "out").exists()
    refused = call("register", "--store", folder / "store", *words, code=15)
    assert "already has some" in str(refused.exception)


def test_the_packages_own_claims_are_listed() -> None:
    call("list")
    call("list", "--json")


def test_a_packed_store_gives_the_same_verdicts(places, tmp_path) -> None:
    folder, registered = places
    stored(folder / "apart", zoo(3), "others")
    stores = ["--store", folder / "store", "--store", folder / "apart"]
    packed = json.loads(call("pack", *stores, "--out", tmp_path / "packed", "--json", *registered).output)
    assert packed["rows"] == {"networks": zoo(3).height}
    assert [p.name for p in (tmp_path / "packed").iterdir()] == ["networks.parquet"]
    call("run", "02", "--store", tmp_path / "packed", "--out", tmp_path / "out", "--quiet", *registered)
    effects = [
        json.loads((where / "verdicts.json").read_text())["claims"][0]["measures"]
        for where in (folder / "out", tmp_path / "out")
    ]
    assert effects[0] == effects[1]
    refused = call("pack", "--store", folder / "apart", "--out", tmp_path / "none", *registered, code=4)
    assert "no table" in str(refused.exception)
    assert not (tmp_path / "none").exists()
