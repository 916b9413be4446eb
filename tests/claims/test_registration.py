"""Registrations: read strictly, and hashed by what they mean."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from memspace.claims.reading import chosen_registrations, parse_registration, read_registration, registrations
from memspace.claims.statistic import declared_statistics
from memspace.errors import SettingsError
from tests.claims.examples import PAIRS, RANK, written


def parsed(text: str):
    return parse_registration(tomllib.loads(text), "example")


def test_a_registration_says_what_was_written_with_defaults_filled_in() -> None:
    registration = parsed(RANK)
    assert registration.statistic.arguments.knobs == ("width", "rate", "decay")
    assert registration.statistic.arguments.judged == "granulated"
    assert registration.population.families == ("mlp", "recurrent")
    assert registration.decision.alpha == 0.05
    assert registration.to_dict()["statistic"]["name"] == "rank relation"


REFORMATTED = {
    "spaces and comments": lambda t: t.replace(" = ", "   =  ").replace("[sample]", "# why so many\n\n[sample]"),
    "order of keys": lambda t: t.replace('gap = "gap"\nknobs', "knobs").replace(
        "\n[population]", 'gap = "gap"\n[population]'
    ),
    "order of sections": lambda t: (
        t.split("[sample]")[0]
        + "[control]"
        + t.split("[control]")[1]
        + "[sample]"
        + t.split("[sample]")[1].split("[control]")[0]
    ),
    "a number written otherwise": lambda t: t.replace("0.1\n", "1e-1\n").replace(
        "contradiction = 0.0", "contradiction = 0"
    ),
    "a default written out": lambda t: t.replace("[decision]", "[decision]\nalpha = 0.05\nnull = 0"),
    "a sentence broken otherwise": lambda t: t.replace("smaller gap,\nwhatever", "smaller gap, whatever"),
}
CHANGED = {
    "threshold": ("threshold = 0.1\n", "threshold = 0.11\n", "power = 0.84", "power = 0.81"),
    "direction": (
        '"greater"',
        '"less"',
        "effect = 0.35",
        "effect = -0.15",
        "contradiction = 0.0",
        "contradiction = 0.1",
    ),
    "measure": ('measures = ["measure"]', 'measures = ["rival"]'),
    "judged": ('within = ["data"]\n\n', 'within = ["data"]\njudged = "worst"\n\n'),
    "families": ("families = 2", "families = 1"),
    "population": ("fitted = true", "fitted = false"),
    "seed": ("[statistic]", "[statistic]", 'title = "', 'seed = 1\ntitle = "'),
    "hypothesis": ("smaller gap", "larger gap"),
    "order of families": ('"mlp", "recurrent"', '"recurrent", "mlp"'),
}


@pytest.mark.parametrize("name", REFORMATTED)
def test_the_hash_is_of_the_meaning_not_of_the_layout(name: str) -> None:
    text = REFORMATTED[name](RANK)
    assert text != RANK
    assert parsed(text).hash() == parsed(RANK).hash()


@pytest.mark.parametrize("name", CHANGED)
def test_the_hash_changes_with_the_meaning(name: str) -> None:
    text, words = RANK, CHANGED[name]
    for before, after in zip(words[::2], words[1::2], strict=True):
        assert before in text
        text = text.replace(before, after, 1)
    if name == "direction":  # any power, as long as it is the right one
        text = _with_power(text)
    assert parsed(text).hash() != parsed(RANK).hash()


def _with_power(text: str) -> str:
    with pytest.raises(SettingsError) as said:
        parsed(text)
    power = re.search(r"state (\d\.\d\d)", said.value.remedy)
    assert power is not None, said.value
    return re.sub(r"\npower = .*", f"\npower = {power[1]}", text)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("unit =", "units =", "unknown 'units'|lacks 'unit'"),
        ("[sample]", "[samples]", r"the section \[sample\] is missing"),
        ('gap = "gap"', "gap = 3", "statistic.gap is not text"),
        ('gap = "gap"\n', "", "statistic lacks 'gap'"),
        ('gap = "gap"', 'gap = "gap"\ncolour = 1', "statistic has an unknown 'colour'"),
        ('"rank relation"', '"rank relations"', "there is no statistic 'rank relations'.*choose one of"),
        ("fitted = true", "fitted = 1", "fitted is a int, not bool"),
        ('"mlp", "recurrent"]', "]", "no family is named"),
        ("units = 54", "units = 1", "units is out of range"),
        ("power = 0.84", "power = 0.95", "54 units have a power of 0.84, not 0.95 as stated"),
        ("effect = 0.35", "effect = 0.05", "does not support the claim"),
        ("contradiction = 0.0", "contradiction = 0.2", "would support and contradict"),
        ("families = 2\n", "families = 3\n", "3 families of 2 must be supported"),
        ('direction = "greater"', 'direction = "up"', "direction"),
        ('permute = ["gap"]', "permute = []", "no column is permuted"),
        ('id = "01-rank"', 'id = "01 rank"', "'01 rank' is no id"),
        ('title = "Lower complexity generalises better"', 'title = " "', "the title is empty"),
        ("repeats = 20", "repeats = true", "repeats is a bool, not int"),
        ("knobs = [", 'judged = "best"\nknobs = [', "judged"),
        ('knobs = ["width", "rate", "decay"]\n', "", "granulated needs knobs"),
    ],
)
def test_what_a_registration_cannot_mean_is_one_sentence(before: str, after: str, says: str) -> None:
    assert before in RANK
    with pytest.raises(SettingsError, match=says) as said:
        parsed(RANK.replace(before, after, 1))
    assert said.value.where.startswith("example")
    assert "\n" not in str(said.value)


def test_a_folder_is_read_and_claims_are_chosen_by_a_beginning(tmp_path) -> None:
    folder = written(tmp_path / "registered", RANK, PAIRS)
    assert [r.id for r in registrations(folder)] == ["01-rank", "02-pairs"]
    assert [r.id for r in chosen_registrations(["02"], folder)] == ["02-pairs"]
    assert [r.id for r in chosen_registrations([], folder)] == ["01-rank", "02-pairs"]
    with pytest.raises(SettingsError, match=r"2 claims begin with '0'.*01-rank, 02-pairs"):
        chosen_registrations(["0"], folder)
    with pytest.raises(SettingsError, match="there is no claim '03'"):
        chosen_registrations(["03"], folder)
    with pytest.raises(SettingsError, match="there is no such folder"):
        registrations(tmp_path / "nowhere")


def test_files_that_are_no_registrations_are_named(tmp_path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("id = ", encoding="utf-8")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_registration(path)
    path.write_text(RANK, encoding="utf-8")
    with pytest.raises(SettingsError, match="it is called 'a' but its id is '01-rank'"):
        read_registration(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_registration(path)


def test_the_example_of_the_guide_is_a_registration(tmp_path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "claims.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    (registration,) = chosen_registrations(["06"], written(tmp_path / "registered", example))
    assert registration.statistic.name == "matched pairs"
    for declared in declared_statistics():  # the guide names every statistic with all its arguments
        (row,) = re.findall(rf"^\| `{declared.name}` \|.*$", guide, re.MULTILINE)
        assert [f.name for f in fields(declared.arguments) if f"`{f.name}`" not in row] == []


def test_the_packages_own_registrations_can_be_read() -> None:
    for registration in registrations():
        assert len(registration.hash()) == 64
