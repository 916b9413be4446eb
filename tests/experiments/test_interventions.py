"""Interventions: arms read at one training loss, the table they make, and claims judged from it."""

import json
import math
from datetime import UTC, datetime

import polars as pl
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from memspace.claims.population import Population
from memspace.claims.reading import registrations
from memspace.claims.store import ParquetStore
from memspace.cli import app
from memspace.errors import SettingsError, TaskError
from memspace.experiments.action_crossing import Crossing
from memspace.experiments.action_methods import METHODS
from memspace.experiments.action_network import DataSplit, Examples
from memspace.experiments.action_plan import read_plan
from memspace.experiments.action_training import StudyTraining, train_one
from tests.experiments.test_action_study import SHAPE, examples

PLAN = """
[[workload]]
family = "small"
task = "digits"
noise = 0.2
train = 100
valid = 50
test = 60
level = {level}

[workload.arms]
"weight decay" = {{ rate = 0.004, strength = 1.0, steps = 60 }}
"depth action" = {{ rate = 0.004, strength = 0.01, steps = 50 }}
"""


class Line(nn.Module):
    """Logits ±w/2 for all inputs: the loss of label 0 is log(1 + e^-w)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.blocks = nn.ModuleList([nn.Hardtanh(), nn.Hardtanh()])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return torch.stack([self.w / 2, -self.w / 2]).expand(len(x), 2) + 0 * x


def test_the_network_read_has_the_training_loss_asked_for() -> None:
    """Weights 0, 1, 3, 2.5, 6: the loss log(1 + e^-2) is first crossed at w = 2, halfway from 1 to 3."""
    x, y = torch.ones(4, 2), torch.zeros(4, dtype=torch.long)
    model, data = Line(), Examples("line", x, y, x, y, {}, 4, 4, 0.0, 2)
    crossing = Crossing(model, data, DataSplit(x, y, y, x, y), math.log1p(math.exp(-2.0)))

    def read(w: float) -> None:
        crossing.read(math.log1p(math.exp(-w)), [], None)

    for step, w in enumerate((0.0, 1.0, 3.0, 2.5, 6.0)):
        with torch.no_grad():
            model.w.fill_(w)
        crossing.keep(step)
        if step in (0, 2, 4):
            read(w)
            assert bool(crossing.values) == (step > 0)
    assert crossing.values["step"] == pytest.approx(1.5, abs=1e-3)
    assert crossing.values["train_loss"] == pytest.approx(math.log1p(math.exp(-2.0)), abs=1e-4)
    assert crossing.values["weight_norm"] == pytest.approx(2.0, abs=2e-3)
    assert crossing.values["test_accuracy"] == 1.0
    p = 1 / (1 + math.exp(-2.0))
    assert crossing.values["fisher_rao_norm"] == pytest.approx(4 * p * (1 - p), rel=1e-3)  # θᵀFθ = w² p(1 − p)
    assert float(model.w.detach()) == 6.0  # the network in training was not touched


def test_a_loss_that_is_no_number_reaches_nothing() -> None:
    x, y = torch.ones(4, 2), torch.zeros(4, dtype=torch.long)
    crossing = Crossing(Line(), Examples("line", x, y, x, y, {}, 4, 4, 0.0, 2), DataSplit(x, y, y, x, y), 1.0)
    crossing.keep(0)
    crossing.read(math.nan, [], None)
    assert crossing.values == {}


@pytest.mark.parametrize("m", METHODS, ids=lambda m: m.name)
def test_every_method_is_read_at_the_same_loss_on_the_way_of_the_same_training(m) -> None:
    e, strength = examples(), m.strengths[-1] if m.name == "fisher-proximal" else m.strengths[0]
    whole = train_one(e, SHAPE, m, StudyTraining(m.name, 1e-2, strength, 3, 80, True))
    level = 0.9 * whole.curve["train_loss"][0]
    part = train_one(e, SHAPE, m, StudyTraining(m.name, 1e-2, strength, 3, 80, True, level))
    read = len(part.curve["step"])
    assert part.curve["train_loss"] == whole.curve["train_loss"][:read]  # looking on changed nothing
    assert part.curve["train_loss"][-1] <= level < min(part.curve["train_loss"][:-1])
    assert part.curve["step"][-2] <= part.matched["step"] <= part.curve["step"][-1]
    biggest = whole.curve["train_loss"][0]
    assert part.matched["train_loss"] == pytest.approx(level, abs=1e-4 * biggest)
    assert part.values == {}
    never = train_one(e, SHAPE, m, StudyTraining(m.name, 1e-2, strength, 3, 5, True, 1e-9))
    assert never.matched == {}
    assert never.curve["step"][-1] == 5


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A table made by the command, and the folder it is in."""
    folder = tmp_path_factory.mktemp("interventions")
    (folder / "plan.toml").write_text(PLAN.format(level=2.0))
    words = ["study", "interventions", str(folder / "plan.toml"), "--seeds", "3", "--workers", "1"]
    words += ["--out", str(folder / "out")]
    began = datetime.now(UTC)
    shown = CliRunner().invoke(app, words, catch_exceptions=False, env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    return folder, words, began, shown.output


def test_the_command_writes_a_row_a_training(written) -> None:
    folder, words, began, output = written
    assert "weight decay" in output
    assert "3/3" in output
    table = ParquetStore(folder / "out").table("interventions")
    assert table.select("family", "arm", "seed").rows() == [
        ("small", arm, seed) for seed in (100, 101, 102) for arm in ("weight decay", "depth action")
    ]
    assert table["fitted"].all()
    assert (table["train_loss"] - 2.0).abs().max() < 1e-3
    assert (table["gap_loss"] - (table["test_loss"] - table["train_loss"])).abs().max() < 1e-12
    assert table["finished"].str.to_datetime(time_zone="UTC").min() >= began
    again = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert json.loads(again.stdout)["test_loss"] == table["test_loss"].to_list()  # nothing was trained again
    assert ParquetStore(folder / "out").table("interventions").equals(table)
    assert ParquetStore(folder / "out").has_results(Population(("small",), table="interventions"))


def test_a_loss_that_no_arm_reaches_leaves_outcomes_empty(written, tmp_path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.format(level=1e-6))
    words = ["study", "interventions", str(tmp_path / "plan.toml"), "--seeds", "2", "--workers", "1", "--out"]
    shown = CliRunner().invoke(app, [*words, str(tmp_path / "out")], catch_exceptions=False)
    assert "0/2" in shown.output
    table = ParquetStore(tmp_path / "out").table("interventions")
    assert table["test_loss"].null_count() == table.height == 4
    assert table["least_train_loss"].min() > 1e-6
    assert not table.filter(pl.col("fitted")).height


def test_the_packages_plan_has_every_arm_on_every_workload() -> None:
    plan = read_plan()
    assert [w.family for w in plan] == ["digits", "digits, wrong labels", "fashion-mnist"]
    assert len({tuple(w.arms) for w in plan}) == 1


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("level = 2.0", "", "lacks 'level'"),
        ("level = 2.0", "level = -1", "level is out of range"),
        ("level = 2.0", "level = 2.0\ncolour = 1", "unknown 'colour'"),
        ("[[workload]]", "[[workloads]]", r"no list of \[\[workload\]\]"),
        ("steps = 60", "steps = 0", "steps is out of range"),
        ("noise = 0.2", "noise = [", "cannot be read"),
        ('"weight decay"', '"weight loss"', "no method 'weight loss'"),
    ],
)
def test_a_plan_that_means_nothing_is_one_sentence(tmp_path, before, after, says) -> None:
    text = PLAN.format(level=2.0)
    assert before in text
    (tmp_path / "plan.toml").write_text(text.replace(before, after, 1))
    with pytest.raises((SettingsError, TaskError), match=says) as said:
        read_plan(tmp_path / "plan.toml")
    assert "\n" not in str(said.value)


def test_registered_claims_read_the_packages_plan() -> None:
    plan = read_plan()
    claims = [r for r in registrations() if r.population.table == "interventions"]
    assert claims
    for claim in claims:
        assert set(claim.population.where["level"]) == {w.level for w in plan}  # so the hash holds the losses read at
        for workload in plan:
            assert workload.family in claim.population.families
            assert set(claim.population.where["arm"]) <= set(workload.arms)
