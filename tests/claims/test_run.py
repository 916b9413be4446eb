"""A run from registration to verdict: truths are found, verdicts are reproduced, mistakes are one sentence."""

from __future__ import annotations

import json

import polars as pl
import pytest

import memspace
from memspace.claims.again import judged_again, recorded, shipped_verdicts
from memspace.claims.population import Population
from memspace.claims.reading import chosen_registrations
from memspace.claims.record import differences, read_verdicts
from memspace.claims.run import judge_claims, opened_store, verdict_rows
from memspace.claims.store import JoinedStores, ParquetStore
from memspace.errors import DataError, RunFolderError, SettingsError
from memspace.zoo.results import ZooResults
from memspace.zoo.store import ZooStore
from tests.claims.examples import PAIRS, RANK, locked, stored
from tests.claims.synthetic import zoo


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A supported claim and one of matched pairs, judged and written."""
    folder = tmp_path_factory.mktemp("claims")
    registered = locked(folder / "registered", RANK, PAIRS)
    store = stored(folder / "store", zoo(3, effect=0.8))
    results = judge_claims(store=store, out=folder / "out", registered=registered)
    return folder, results


@pytest.mark.parametrize(("effect", "word"), [(-0.8, "contradicted"), (0.0, "undecided")])
def test_the_truth_is_found(tmp_path, effect: float, word: str) -> None:
    registered = locked(tmp_path / "registered", RANK.replace("repeats = 20", "repeats = 2"))
    results = judge_claims(store=stored(tmp_path / "store", zoo(3, effect=effect)), registered=registered)
    assert results.verdicts == {"01-rank": word}
    paragraph = results.claims[0].record.paragraph
    assert f"Hence the claim is {word}" in paragraph
    assert ("neither for it nor against it" in paragraph) == (word == "undecided")


def test_a_verdict_says_all_it_rests_on(finished) -> None:
    _, results = finished
    rank, pairs = (claim.record for claim in results.claims)
    assert results.verdicts == {"01-rank": "supported", "02-pairs": "supported"}
    assert rank.store == results.store == ParquetStore(finished[0] / "store").digest()
    for record in (rank, pairs):
        assert record.control.holds
        for part in ("Asked: ", "216 networks", "mlp ", "Hence the claim is supported", "permuted between networks"):
            assert part in record.paragraph
    assert "Two data sets were used." in rank.paragraph
    assert "The 60 units a family that have a power of 0.74" in pairs.paragraph  # there are fewer pairs
    assert "were not reached" not in rank.paragraph


def test_results_print_and_give_frames(finished) -> None:
    _, results = finished
    assert str(results).startswith("01-rank: supported; 02-pairs: supported")
    frame = results.frame("verdicts")
    assert list(frame["claim"]) == ["01-rank"] * 3 + ["02-pairs"] * 3
    assert set(frame["family"]) == {"all", "mlp", "recurrent"}
    assert (frame["low"] <= frame["effect"]).all()
    assert "Bayes factor" in set(results.frame()["name"])
    assert memspace.judge_claims is judge_claims


def test_verdicts_are_written_and_read_back(finished) -> None:
    folder, results = finished
    records = read_verdicts(folder / "out" / "verdicts.json")
    assert records == tuple(claim.record for claim in results.claims)
    assert verdict_rows(records) == verdict_rows([claim.record for claim in results.claims])
    assert (folder / "out" / "claims.html").exists()


def test_a_verdict_is_reproduced_by_its_hash(finished) -> None:
    folder, results = finished
    records = shipped_verdicts(folder / "out")
    record = recorded(records, sha256=results.claims[1].record.sha256[:10])
    assert record.id == "02-pairs"
    again = judged_again(record, store=folder / "store", registered=folder / "registered")
    assert again.claims[0].record == record


def test_another_store_or_another_verdict_is_told(finished, tmp_path) -> None:
    folder, results = finished
    record = results.claims[1].record
    other = stored(tmp_path / "store", zoo(4, effect=0.0))
    with pytest.raises(RunFolderError, match=r"the verdict is not reproduced: store is"):
        judged_again(record, store=other, registered=folder / "registered")
    content = json.loads((folder / "out" / "verdicts.json").read_text())
    content["claims"][1]["measures"][0]["overall"]["effect"]["value"] += 0.01
    content["claims"][1]["word"] = "undecided"
    (tmp_path / "verdicts.json").write_text(json.dumps(content))
    changed = read_verdicts(tmp_path / "verdicts.json")[1]
    assert len(differences(record, changed)) == 2
    assert differences(record, record) == []


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 99, "claims": []}', '{"schema": 1, "claims": [{"id": 3}]}'])
def test_files_that_hold_no_verdicts_are_named(tmp_path, text: str) -> None:
    (tmp_path / "verdicts.json").write_text(text)
    with pytest.raises(RunFolderError, match="the verdicts cannot be read"):
        shipped_verdicts(tmp_path)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"id": "03"}, "there is no verdict on '03'"),
        ({"id": "0"}, "there are 2 verdicts on '0'"),
        ({"sha256": "abc"}, "the hash is too short"),
        ({"sha256": "0" * 20}, "there is no verdict on"),
    ],
)
def test_a_verdict_that_is_not_there_is_told(finished, given, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        recorded([claim.record for claim in finished[1].claims], **given)


def test_a_store_lacks_networks_or_columns(tmp_path) -> None:
    registered = locked(tmp_path / "registered", RANK)
    for table, says in (
        (zoo(families=("transformer",)), "no network of the claim's population"),
        (zoo().drop("fitted"), "no column 'fitted'"),
        (zoo().drop("gap"), "no column 'gap'"),
        (zoo().with_columns(moment=pl.col("seed") * 1.0), "networks at several moments"),
        (zoo().with_columns(zoo=pl.lit(3)), "does not hold values such as 'standard'"),
    ):
        with pytest.raises(DataError, match=says):
            judge_claims(store=stored(tmp_path / "store", table), registered=registered)
    with pytest.raises(DataError, match="the store has no table 'networks'"):
        judge_claims(store=tmp_path / "nowhere", registered=registered)
    (tmp_path / "store" / "networks.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match="the table cannot be read"):
        judge_claims(store=tmp_path / "store", registered=registered)


def test_wrong_arguments_are_one_sentence(tmp_path) -> None:
    with pytest.raises(SettingsError, match="is no store of results"):
        judge_claims(store=3)
    with pytest.raises(SettingsError, match="is no store of results"):
        opened_store(object())  # type: ignore[arg-type]
    (tmp_path / "registered").mkdir()
    with pytest.raises(SettingsError, match="no claim is registered there"):
        judge_claims(store=tmp_path, registered=tmp_path / "registered")


def test_a_zoo_is_opened_as_its_tables(tmp_path) -> None:
    store = ZooStore(tmp_path)
    assert isinstance(opened_store(tmp_path), ParquetStore)
    (tmp_path / "trained").mkdir()
    for opened in (opened_store(tmp_path), opened_store(store)):
        assert isinstance(opened, ZooResults)
        assert opened.stores[0].folder == tmp_path
        assert not opened.has_results(Population(("mlp",)))


class InMemory:
    """A store that is no folder, as another package may have one."""

    def __init__(self, table: pl.DataFrame) -> None:
        self._table = table

    def table(self, name: str = "networks") -> pl.DataFrame:
        return self._table

    def has_results(self, population) -> bool:
        return population.select(self._table).height > 0

    def digest(self) -> str:
        return "0" * 64


@pytest.mark.parametrize(("labels", "told"), [(True, "the claim is undecided"), (False, "has no networks trained on")])
def test_any_store_will_do_and_a_zoo_of_permuted_labels_is_judged_too(tmp_path, labels: bool, told: str) -> None:
    registered = locked(tmp_path / "registered", RANK.replace("repeats = 20", 'repeats = 2\nzoo = "random"'))
    table = zoo(3, effect=0.8)
    if labels:
        table = pl.concat([table, zoo(5, effect=0.0).with_columns(zoo=pl.lit("random"))])
    store = InMemory(table)
    assert store.has_results(chosen_registrations((), registered)[0].population)
    results = judge_claims(["01"], store=store, registered=registered)
    assert results.verdicts == {"01-rank": "supported"}
    assert told in results.claims[0].record.paragraph


def test_a_claim_reads_the_one_of_several_stores_that_has_its_table(tmp_path) -> None:
    other = RANK.replace("01-rank", "03-other").replace("[population]", '[population]\ntable = "others"')
    registered = locked(tmp_path / "registered", RANK, other)
    first, second = stored(tmp_path / "a", zoo(3, effect=0.8)), stored(tmp_path / "b", zoo(4, effect=0.0), "others")
    both = judge_claims(store=[first, str(second)], registered=registered)
    assert both.verdicts == {"01-rank": "supported", "03-other": "undecided"}
    for id, folder in (("01", first), ("03", second)):
        (alone,) = judge_claims([id], store=folder, registered=registered).claims
        (record,) = (c.record for c in both.claims if c.record.id.startswith(id))
        assert record == alone.record  # also the digest: the verdict rests on its own store alone
        assert judged_again(record, store=[second, first], registered=registered).claims[0].record == record
    assert (
        both.store != judge_claims(store=[first, stored(tmp_path / "b", zoo(5), "others")], registered=registered).store
    )
    joined = opened_store([first, second, first])
    assert isinstance(joined, JoinedStores)
    assert len(joined.stores) == 2
    for claim in chosen_registrations((), registered):
        assert joined.has_results(claim.population)
    assert not joined.has_results(Population(("mlp",), table="more"))


def test_a_further_table_in_the_folder_changes_no_verdict(tmp_path) -> None:
    registered = locked(tmp_path / "registered", RANK.replace("repeats = 20", "repeats = 2"))
    folder = stored(tmp_path / "store", zoo(3, effect=0.8))
    (before,) = judge_claims(store=folder, registered=registered).claims
    stored(folder, zoo(4), "others")
    assert judged_again(before.record, store=folder, registered=registered).claims[0].record == before.record


def test_several_stores_without_the_table_or_with_it_twice_are_one_sentence(tmp_path) -> None:
    registered = locked(tmp_path / "registered", RANK)
    first, second = stored(tmp_path / "a", zoo(3)), stored(tmp_path / "b", zoo(4))
    with pytest.raises(DataError, match="2 stores have a table 'networks'"):
        judge_claims(store=[first, second], registered=registered)
    with pytest.raises(DataError, match=r"the store has no table 'networks' \(.*\); the store has no table"):
        judge_claims(store=[tmp_path / "x", tmp_path / "y"], registered=registered)
    with pytest.raises(SettingsError, match="there is no store"):
        judge_claims(store=[], registered=registered)


def test_zoos_are_one_store_and_their_folders_may_hold_further_tables(tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "trained").mkdir(parents=True)
    zoos = opened_store([tmp_path / "a", ZooStore(tmp_path / "b")])
    assert isinstance(zoos, ZooResults)
    assert len(zoos.stores) == 2
    stored(tmp_path / "a", zoo(3), "interventions")
    joined = opened_store(tmp_path / "a")
    assert isinstance(joined, JoinedStores)
    assert isinstance(joined.holding("interventions"), ParquetStore)
