"""Settings are checked where they are defined, so that Python and the command line refuse alike, in one sentence."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import memspace
from memspace.attribution.settings import InfluenceSettings
from memspace.cli import main
from memspace.commands import default_folder
from memspace.editing.forget import forget
from memspace.editing.write import write
from memspace.errors import DataError, SettingsError
from memspace.experiments.capacity import CapacitySettings
from memspace.measures.input_study import AttackSettings
from memspace.task.builtin import BuildOptions

BAD = [
    *({"damping": v} for v in (0, -1, math.nan, math.inf, -math.inf, 1e-300, 1e300, True, "0.1", [0.1])),
    *({"memory": v} for v in (0, -1, math.nan, math.inf, 1.5, 2**80, "4GiB", None)),
    *({"seed": v} for v in (-1, 2**31, 10**30, 0.5, math.nan, "0", None, True)),
    *({"representation": v} for v in ("kfac", "", "dual ", None, 3)),
    *({"capacity": v} for v in (-1, math.nan, math.inf, "9")),
    *({"queries": v} for v in ((-1,), (0, 1.5), ("3",), "3", (2**40,), (math.nan,), ((1, 2),))),
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_an_audits_settings_out_of_range_are_refused_when_they_are_made(bad):
    (name,) = bad
    with pytest.raises(SettingsError) as caught:
        memspace.Settings(**bad)
    text = str(caught.value)
    assert name in text
    assert "give" in text
    assert "\n" not in text
    assert len(text) < 200


def test_settings_are_kept_as_plain_numbers():
    made = memspace.Settings(
        damping=torch.tensor(0.5), memory=2e9, seed=torch.tensor(3), queries=torch.tensor([4, 2]), capacity=7
    )
    assert made == memspace.Settings(0.5, 2_000_000_000, 3, (4, 2), "auto", 7.0)
    assert [type(v) for v in (made.damping, made.memory, made.seed)] == [float, int, int]
    assert memspace.Settings(queries=()).queries is None
    assert memspace.Settings(queries=range(2)).queries == (0, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BuildOptions(label_noise=-0.3),
        lambda: BuildOptions(label_noise=1.0),
        lambda: BuildOptions(label_noise=math.nan),
        lambda: BuildOptions(seed=-1),
        lambda: BuildOptions(train_size=0),
        lambda: InfluenceSettings(tolerance=0),
        lambda: InfluenceSettings(tolerance=math.nan),
        lambda: InfluenceSettings(memory=0),
        lambda: InfluenceSettings(batch=0),
        lambda: InfluenceSettings(retrainings=-1),
        lambda: AttackSettings(examples=0),
        lambda: CapacitySettings(load=(1.0, math.nan)),
        lambda: CapacitySettings(seeds=0),
        lambda: CapacitySettings(rate=math.inf),
    ],
)
def test_other_settings_are_checked_by_the_same_limits(make):
    with pytest.raises(SettingsError):
        make()


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(3)
    x, y = torch.randn(30, 4), torch.randint(0, 3, (30,))
    return memspace.Task(model=nn.Linear(4, 3), train=(x[:24], y[:24]), test=(x[24:], y[24:]))


@pytest.mark.parametrize("damping", [0.0, -1.0, math.nan, math.inf, 1e-300])
def test_functions_refuse_the_same_dampings(task, damping):
    x, y = task.test.batch(range(1)).x, task.test.batch(range(1)).y
    for call in (
        lambda: memspace.influence(task, [0], damping=damping),
        lambda: forget(task, [0], damping=damping),
        lambda: write(task, x, y, damping=damping),
        lambda: memspace.reweight(task, (x, y), preconditioned=True, damping=damping),
    ):
        with pytest.raises(SettingsError, match="damping"):
            call()


@pytest.mark.parametrize("query", [6, 999])
def test_a_query_that_is_not_there_is_refused_before_any_work(task, query):
    with pytest.raises(DataError, match=f"no example {query} .*from 0 to 5"):
        memspace.audit(task.model, task.train, task.test, settings=memspace.Settings(queries=(0, query)))


COMMANDS = {
    "audit": ("audit", "digits"),
    "labels": ("labels", "digits"),
    "influence": ("influence", "digits", "--query", "0"),
    "forget": ("forget", "digits", "--examples", "1"),
    "attack": ("attack", "digits"),
    "depth": ("depth", "digits"),
    "compare": ("compare", "digits", "@0", "@1"),
    "retrain": ("retrain", "digits"),
    "study": ("study", "action", "digits"),
}


@pytest.mark.parametrize("noise", ["-0.3", "1", "1.5", "nan", "inf"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_the_same_label_noise(monkeypatch, capsys, command, noise):
    _refused(monkeypatch, capsys, *COMMANDS[command], "--label-noise", noise, says="--label-noise")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--damping", v) for v in ("0", "-1", "nan", "inf", "1e-300")]
    + [("--seed", v) for v in ("-1", "1" + "0" * 30, "0.5")]
    + [("--memory", v) for v in ("0", "1" + "0" * 400, "99999999999999999T", "lots", "٣GiB")],
)
@pytest.mark.parametrize("command", ["audit", "labels", "influence"])
def test_absurd_options_end_in_one_sentence(monkeypatch, capsys, command, option, value):
    _refused(monkeypatch, capsys, *COMMANDS[command], option, value, says=option)


@pytest.mark.parametrize(
    "words", [("--nothing",), ("--representation", "kfac"), ("--capacity", "nan"), ("--capacity", "-1"), ("a", "b")]
)
def test_words_that_cannot_be_read_end_in_the_same_style(monkeypatch, capsys, words):
    _refused(monkeypatch, capsys, "audit", "digits", *words, says="")


@pytest.mark.parametrize(
    "words",
    [
        ("audit", "digits", "--out", ""),
        ("audit", "digits", "--out="),
        ("audit", "digits", "--parameters", "", "--plan"),
        ("influence", "digits", "--query", "0", "--out", ""),
        ("compare", "digits", "@0", "@1", "--out", ""),
        ("report", "runs", "--out="),
    ],
    ids=" ".join,
)
def test_an_option_without_a_value_does_not_mean_the_current_folder(monkeypatch, capsys, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    _refused(monkeypatch, capsys, *words, says="is empty")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc", "/etc/x", "..", ".", "", "a/b", "a\x00b", "x" * 1000, "[/INST]", "\n"])
def test_whatever_a_task_is_called_its_folder_lies_within_runs(name):
    folder = default_folder(name)
    assert folder.parent == Path("runs")
    assert folder.name not in ("", ".", "..")
    assert len(folder.name) <= 100
    assert folder.name.isprintable()


@pytest.mark.parametrize("name", ["digits", "my-net 2.0", "fashion-mnist-compared"])
def test_plain_names_stay_as_they_are(name):
    assert default_folder(name) == Path("runs") / name


def _refused(monkeypatch, capsys, *words, says):
    monkeypatch.setattr("sys.argv", ["memspace", *words])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr()
    assert left.value.code == 2, said.err
    assert said.out == ""
    assert said.err.startswith("memspace: ")
    assert len(said.err.strip().splitlines()) == 1, said.err
    assert says in said.err
