"""The training study: fairness of its design, its numbers in closed cases, its stop and its going on."""

import json
import math
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from memspace.cli import app
from memspace.errors import DataError, SettingsError, TaskError
from memspace.experiments.action_methods import METHODS, AdamTrainer, Method, _nll, method
from memspace.experiments.action_network import ResidualNetwork, examples_of
from memspace.experiments.action_settings import StudySettings
from memspace.experiments.action_study import TUNING, action_study
from memspace.experiments.action_training import Outcome, Shape, StudyTraining, _points, measured_costs, train_one
from memspace.experiments.action_verdict import chosen, compare, matched, means
from memspace.experiments.action_work import TRAININGS, open_study_folder
from memspace.task.task import Task

SHAPE = Shape(width=8, blocks=2, batch=20)


def examples(noise=0.0, seed=0, n=120):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n + 60, 6, generator=g)
    y = x[:, :3].argmax(1)
    task = Task(ResidualNetwork(6, 4, 1, 3), (x[:n], y[:n]), test=(x[n:], y[n:]), name="small")
    return examples_of(task, noise=noise)


def few(*names):
    """Methods with two settings each."""
    cut = {"plain": {"rates": (1e-2, 3e-3)}}
    return [replace(method(n), rates=(1e-2,), strengths=method(n).strengths[:2], **{}) if n != "plain"
            else replace(method(n), **cut["plain"]) for n in names]  # fmt: skip


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_test_examples_are_apart_and_labels_wrong_as_asked(noise):
    e = examples(noise)
    seen = set()
    for seed in range(3):
        s = e.split(seed)
        assert (len(s.x), len(s.x_valid)) == (96, 24)
        assert int(s.wrong.sum()) == round(noise * 96)
        rows = {tuple(r) for r in torch.cat([s.x, s.x_valid]).tolist()}
        assert len(rows) == 120
        assert not rows & {tuple(r) for r in e.x_test.tolist()}
        truth = {tuple(r): int(c) for r, c in zip(e.x.tolist(), e.y, strict=True)}
        assert all(truth[tuple(r)] == int(c) for r, c in zip(s.x.tolist(), s.truth, strict=True))
        assert all(truth[tuple(r)] == int(c) for r, c in zip(s.x_valid.tolist(), s.y_valid, strict=True))
        seen.add(tuple(s.y.tolist()))
    assert len(seen) == 3


@pytest.mark.parametrize("m", METHODS, ids=lambda m: m.name)
def test_every_method_learns_and_repeats_itself(m):
    e = examples()
    rate, strength = 1e-2, m.strengths[0] if m.name != "fisher-proximal" else m.strengths[-1]
    job = StudyTraining(m.name, rate, strength, 3, 80, True)
    state = torch.random.get_rng_state()
    a, b = train_one(e, SHAPE, m, job), train_one(e, SHAPE, m, job)
    assert torch.equal(state, torch.random.get_rng_state())
    assert (a.values, a.curve, a.valid_loss) == (b.values, b.curve, b.valid_loss)
    chance = 1 / 3
    assert a.values["accuracy"] > chance + 3 * math.sqrt(chance * (1 - chance) / 60)  # of 60 test examples
    assert a.values["calibrated_loss"] < math.log(3)
    assert 0 < a.values["length"] <= math.pi * len(a.curve["step"])
    assert Outcome.from_dict(json.loads(json.dumps(a.to_dict()))) == a


def test_the_curve_ends_where_the_training_does_and_losses_are_those_of_the_network():
    e = examples(0.2)
    a = train_one(e, SHAPE, method("plain"), StudyTraining("plain", 1e-2, 0.0, 3, 40, True))
    assert {len(column) for column in a.curve.values()} == {len(a.curve["step"])}
    assert a.curve["test_loss"][-1] == pytest.approx(a.values["loss"], rel=1e-6)
    assert a.curve["train_loss"][0] == pytest.approx(math.log(3), rel=0.3)  # of a network that has not learned
    assert a.curve["train_loss"][-1] < a.curve["train_loss"][0]


def test_no_regularisation_is_plain_training():
    """Each method at a strength without effect ends where plain training ends, with the same batches."""
    e = examples(0.2)
    neutral = {
        "weight decay": 0.0,
        "dropout": 0.0,
        "label smoothing": 0.0,
        "fisher-rao norm": 0.0,
        "depth action": 0.0,
        "fisher-proximal": 1e9,
    }
    plain = train_one(e, SHAPE, method("plain"), StudyTraining("plain", 1e-2, 0.0, 1, 30, True))
    for name, strength in neutral.items():
        other = train_one(e, SHAPE, method(name), StudyTraining(name, 1e-2, strength, 1, 30, True))
        assert other.valid_loss == pytest.approx(plain.valid_loss, rel=1e-4), name


def test_all_methods_are_tuned_alike():
    assert len({len(m.settings) for m in METHODS}) == 1
    assert len({m.name for m in METHODS}) == len(METHODS)


def test_cost_follows_the_work_of_a_step():
    class Twice(AdamTrainer):
        def step(self, x, y):
            for _ in range(6):
                self.gradient(x, y)
            self.optimiser.step()

    slow = Method("slow", "", (0.0,), lambda model, rate, s: Twice(model, rate, 0.0, _nll(model)))
    costs = measured_costs(examples(), Shape(64, 4, 50), [method("plain"), method("weight decay"), slow], repeats=30)
    assert costs["plain"] == 1
    assert costs["weight decay"] < 1.5
    assert 2.5 < costs["slow"] < 9


def test_memorisation_is_read_where_the_accuracy_is_first_reached():
    curve = {"accuracy": [0.1, 0.5, 0.9, 0.7, 0.95], "memorised": [0.0, 0.1, 0.3, 0.8, 1.0]}
    assert matched(curve, 0.7) == pytest.approx(0.2)
    assert matched(curve, 0.9) == pytest.approx(0.3)
    assert matched(curve, 0.92) == pytest.approx(0.8 + 0.2 * 0.22 / 0.25)
    assert matched(curve, 0.05) == 0.0
    assert math.isnan(matched(curve, 0.99))


def outcome(name, seed, loss, memorised=0.5, best=0.9):
    values = dict.fromkeys(("calibrated_loss", "accuracy", "calibration_error", "corrupted_accuracy"), 0.5)
    values |= {"loss": loss, "memorised": memorised, "norm": 1.0, "length": 1.0}
    curve = {"step": [0, 1, 2], "accuracy": [0.0, best, best / 2], "memorised": [0.0, memorised, 1.0]}
    return Outcome(StudyTraining(name, 1e-3, 1.0, seed, 10, True), loss, 0.0, values, curve)


def test_verdicts_against_a_known_t_interval():
    """Differences −1, −2, −3: mean −2, standard error 1/√3, t(2) = 4.3027, so undecided; shifted by −1, better."""
    base = [outcome("weight decay", s, 5.0) for s in range(3)]
    for shift, verdict in ((0.0, "undecided"), (-1.0, "better"), (10.0, "worse")):
        other = [outcome("x", s, 5.0 + d + shift) for s, d in enumerate((-1, -2, -3))]
        (c,) = [c for c in compare({"weight decay": base, "x": other}, "weight decay", True) if c.outcome == "loss"]
        assert c.difference.value == pytest.approx(-2 + shift)
        assert c.difference.interval[1] - c.difference.value == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)
        assert c.verdict == verdict
        assert c.strict == (verdict != "undecided")  # one other method: the same level


def test_memorisation_is_compared_at_the_lower_of_two_best_accuracies():
    base = [outcome("weight decay", s, 1.0, memorised=0.4, best=0.8) for s in range(3)]
    other = [outcome("x", s, 1.0, memorised=0.9, best=0.9) for s in range(3)]
    found = {c.outcome: c for c in compare({"weight decay": base, "x": other}, "weight decay", True)}
    assert found["memorised_matched"].difference.value == pytest.approx(0.9 * 0.8 / 0.9 - 0.4)
    assert found["memorised"].verdict == "worse"
    assert "memorised" not in {c.outcome for c in compare({"weight decay": base, "x": other}, "weight decay", False)}
    m = {m.name: m for m in means({"weight decay": base, "x": other}, True)}
    assert m["x.memorised_matched"].value == pytest.approx(0.8)


def test_the_setting_of_least_mean_validation_loss_is_chosen_and_a_diverged_one_never():
    def tuned(rate, losses):
        return [Outcome(StudyTraining("plain", rate, 0.0, TUNING + k, 5, False), x, 0.0) for k, x in enumerate(losses)]

    runs = tuned(1e-3, (0.5, 0.7)) + tuned(1e-2, (0.1, math.inf)) + tuned(1e-1, (0.9, 0.2))
    assert chosen(runs) == {"plain": (1e-1, 0.0)}


def test_readings_are_dense_early_and_end_at_the_last_step():
    for steps in (1, 7, 1000):
        points = sorted(_points(steps))
        assert points[0] == 1
        assert points[-1] == steps


def test_processes_train_what_one_process_trains(tmp_path):
    e, ways, both = examples(0.2), few("plain", "weight decay"), []
    for workers in (1, 2):
        plan = StudySettings(20, 2, 1, SHAPE, workers)
        store = open_study_folder(tmp_path / str(workers), e, plan)
        (store.folder / TRAININGS).write_text(json.dumps({"costs": {"plain": 1.0, "weight decay": 1.25}}) + "\n")
        both.append(action_study(e, plan, ways, store=store))
    assert both[0].steps == both[1].steps == {"plain": 20, "weight decay": 16}
    assert both[0].chosen == both[1].chosen
    for name, found in both[0].outcomes.items():
        assert [o.values for o in both[1].outcomes[name]] == [o.values for o in found]


def test_a_stopped_study_goes_on_where_it_stopped(tmp_path, monkeypatch):
    e, plan = examples(0.2), StudySettings(40, 2, 2, SHAPE)
    ways = few("plain", "weight decay", "fisher-rao norm")
    whole = action_study(e, plan, ways, store=open_study_folder(tmp_path, e, plan))
    path = tmp_path / TRAININGS
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + 3 * (2 * 2 + 2)
    path.write_text("\n".join(lines[:8]) + "\n" + lines[8][:30])  # stopped while it wrote a line
    again = action_study(e, plan, ways, store=open_study_folder(tmp_path, e, plan))
    assert len(path.read_text().splitlines()) >= len(lines)
    assert again.steps == whole.steps
    assert again.chosen == whole.chosen
    for name, found in whole.outcomes.items():
        assert [o.values for o in again.outcomes[name]] == [o.values for o in found]
    monkeypatch.setattr("memspace.experiments.action_work.train_one", lambda *a: pytest.fail("trained again"))
    one = StudySettings(40, 2, 2, SHAPE, 1)
    action_study(e, one, ways, store=open_study_folder(tmp_path, e, one))


def test_other_data_or_steps_begin_anew(tmp_path):
    e, plan = examples(), StudySettings(20, 2, 1, SHAPE)
    action_study(e, plan, few("plain", "weight decay"), store=open_study_folder(tmp_path, e, plan))
    assert (tmp_path / TRAININGS).exists()
    open_study_folder(tmp_path, e, replace(plan, seeds=5))
    assert (tmp_path / TRAININGS).exists()
    open_study_folder(tmp_path, e, replace(plan, steps=21))
    assert not (tmp_path / TRAININGS).exists()


def test_a_method_whose_library_is_missing_is_unmeasured(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pytorch_optimizer", None)
    e = examples()
    found = action_study(e, StudySettings(10, 2, 1, SHAPE), few("plain", "weight decay", "sam"))
    (absent,) = found.unmeasured
    assert absent.name == "sam"
    assert "memspace[study]" in absent.remedy
    assert "sam" not in found.outcomes


def test_bad_questions_are_one_sentence():
    e = examples()
    with pytest.raises(TaskError, match="plain training, weight decay"):
        action_study(e, StudySettings(5, 2, 1, SHAPE), few("plain", "dropout"))
    with pytest.raises(TaskError, match="no method 'sgd'"):
        method("sgd")
    with pytest.raises(SettingsError, match="steps is out of range"):
        StudySettings(steps=0)
    x = torch.randn(20, 6)
    task = Task(ResidualNetwork(6, 4, 1, 3), (x, torch.zeros(20, dtype=torch.long)))
    with pytest.raises(DataError, match="test data"):
        examples_of(task)
    with pytest.raises(DataError, match="cannot be drawn from 20"):
        examples_of(replace(task, test=(x, torch.zeros(20, dtype=torch.long))), train=18, valid=4)


def test_the_command_prints_tables_and_keeps_files(tmp_path, monkeypatch):
    ways = tuple(few("plain", "weight decay", "fisher-proximal"))
    monkeypatch.setattr("memspace.experiments.action_study.METHODS", ways)
    arguments = ["study", "action", "digits", "--label-noise", "0.2", "--train", "100", "--valid", "50", "--test", "60"]
    arguments += ["--steps", "20", "--seeds", "2", "--tuning", "1", "--workers", "1", "--out", str(tmp_path)]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "fisher-proximal" in shown.output
    assert "less weight decay, paired by seed" in shown.output
    content = json.loads((tmp_path / "study.json").read_text())
    assert content["baseline"] == "weight decay"
    assert {c["method"] for c in content["comparisons"]} == {"plain", "fisher-proximal"}
    again = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert json.loads(again.stdout)["measurements"] == content["measurements"]


def test_the_time_of_a_training_is_reported_against_plain_training(tmp_path):
    e, plan = examples(), StudySettings(60, 2, 1, SHAPE)
    store = open_study_folder(tmp_path, e, plan)
    (tmp_path / TRAININGS).write_text(json.dumps({"costs": {"plain": 1.0, "weight decay": 3.0}}) + "\n")
    found = action_study(e, plan, few("plain", "weight decay"), store=store)
    assert found.steps["weight decay"] == 20
    assert found.times["plain"] == 1
    assert 0.15 < found.times["weight decay"] < 0.8  # a third of the steps, each as dear in truth
    assert found.to_dict()["time_of_a_training"] == found.times
