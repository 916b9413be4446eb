"""Stored bits by their definitions; capacity of a linear unit trained by gradients; overwriting; bad input."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from memspace.auditing.audit import AuditSettings, audit_task
from memspace.cli import app
from memspace.errors import TaskError
from memspace.experiments.capacity import (
    Capacity,
    CapacitySettings,
    LabelBits,
    Offered,
    measure_capacity,
    mlp,
    random_task,
    stored_bits,
)
from memspace.experiments.capacity_study import Architecture, architectures, study_capacity
from memspace.experiments.forgetting import forgetting_curve
from memspace.experiments.perceptron import linear_unit_bits
from memspace.task.likelihood import Gaussian
from memspace.task.task import Task


def test_readings_of_sure_unsure_and_wrong_outputs():
    y = torch.tensor([0, 1, 2, 3])
    sure = stored_bits(100 * nn.functional.one_hot(y, 4).double(), y)
    assert (sure.coded, sure.clipped, sure.recalled, sure.error) == pytest.approx((8, 8, 8, 0))
    unsure = stored_bits(torch.zeros(4, 4), y)
    assert unsure.coded == pytest.approx(0, abs=1e-6)
    wrong = stored_bits(100 * nn.functional.one_hot((y + 1) % 4, 4).double(), y)
    assert (wrong.coded, wrong.clipped, wrong.recalled, wrong.error) == (0, 0, 0, 1)
    mixed = torch.log(torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.5, 0.3, 0.1, 0.1]], dtype=torch.float64))
    both = stored_bits(mixed, torch.tensor([0, 1]))
    each = [2 + math.log2(0.7), 2 + math.log2(0.3)]
    assert both.coded == pytest.approx(sum(each))
    assert both.clipped == pytest.approx(sum(max(0, v) for v in each))
    assert both.recalled == pytest.approx(2 * (2 - 1 - 0.5 * math.log2(3)))


def test_recalled_bits_are_the_mutual_information_of_the_channel():
    """The symmetric channel's own mutual information, by its joint table."""
    k, n, e = 5, 1000, 0.2
    y = torch.arange(n) % k
    guess = y.clone()
    wrong = torch.arange(n) % 5 == torch.div(torch.arange(n), 5, rounding_mode="floor") % 5
    guess[wrong] = (y[wrong] + 1) % k
    found = stored_bits(10 * nn.functional.one_hot(guess, k).double(), y)
    assert found.error == pytest.approx(e)
    joint = torch.full((k, k), e / (k - 1) / k, dtype=torch.float64)
    joint.fill_diagonal_((1 - e) / k)
    information = float((joint * torch.log2(joint * k * k)).sum())
    assert found.recalled == pytest.approx(n * information)


def test_a_linear_unit_trained_by_gradients_stores_what_its_best_weights_do():
    """Two classes, no hidden layer: the same likelihood as one logit; never above it, and close."""

    def make():
        return nn.Linear(12, 2, bias=False)

    settings = CapacitySettings(load=(0.5,), seeds=3, steps=600, doublings=0, rate=0.1)
    c = measure_capacity(make, (12,), 2, settings)
    n = c.curve[0].examples
    x, y, index = random_task((12,), 2, n, 3, 0)
    best = [linear_unit_bits(x[at].double().numpy(), y[at].numpy()) for at in index]
    for found, most in zip(c.curve[0].stored, best, strict=True):
        assert found.coded <= most * (1 + 1e-6)
        assert found.coded > 0.9 * most


def test_a_network_holds_all_it_is_offered_until_it_is_full():
    settings = CapacitySettings(load=(0.5, 5.0), seeds=2, steps=300, doublings=1, rate=0.03)
    c = measure_capacity(mlp(6, 6, 1, 2), (6,), 2, settings)
    assert c.parameters == 6 * 6 + 6 + 6 * 2 + 2
    low, high = c.curve
    assert low.examples == round(0.5 * c.parameters)
    assert low.mean()[0] > 0.9 * low.examples  # two classes: one bit an example
    assert high.mean()[0] < 0.6 * high.examples
    assert [(o.examples, o.steps) for o in c.longer] == [(c.best.examples, 600)]
    assert c.measurement("x").value == c.best.mean()[0] >= max(o.mean()[0] for o in c.curve)


def test_what_is_not_settled_or_not_full_is_not_reliable():
    def offered(n: int, bits: float, steps: int = 10) -> Offered:
        return Offered(n, steps, (LabelBits(bits, bits, bits, 0.0), LabelBits(bits + 1, bits, bits, 0.0)))

    rising = Capacity(9, 2, (offered(5, 5), offered(10, 9)), (), 0.0)
    assert "offer more" in rising.measurement("x").note
    drifting = Capacity(9, 2, (offered(5, 5), offered(10, 3)), (offered(5, 6, 20),), 0.2)
    assert "20.0%" in drifting.measurement("x").note
    whole = Capacity(9, 2, (offered(5, 5), offered(10, 3)), (), 0.0)
    assert "more fits" in whole.measurement("x").note
    settled = Capacity(9, 2, (offered(8, 5), offered(10, 3)), (offered(8, 5, 20),), 0.01)
    m = settled.measurement("x")
    assert m.reliable
    assert m.interval is not None
    assert m.interval[0] < m.value == 5.5 < m.interval[1]
    # Student's t with 1 degree of freedom: 12.7 standard errors of 0.5
    assert m.interval[1] - m.value == pytest.approx(12.706 * 0.5, rel=1e-3)


def test_no_example_is_shared_and_labels_are_even():
    x, y, index = random_task((3,), 4, 500, 4, 1)
    assert sorted(index.flatten().tolist()) == list(range(2000))
    assert len(torch.unique(x, dim=0)) == 2000
    counts = torch.bincount(y, minlength=4).double()
    assert float(((counts - 500) ** 2 / 500).sum()) < 16.3  # χ² with 3 degrees of freedom, 1 in 1,000


def test_new_labels_overwrite_old_ones():
    settings = CapacitySettings(seeds=2, steps=200, rate=0.03)
    found = forgetting_curve(mlp(6, 8, 1, 2), (6,), 2, 30, (1, 60), settings, slower=3.0)
    new, old = found.curve()
    assert new.shape == old.shape == (2, 3)
    assert (new[:, 0] == 0).all()
    assert (old[:, 0] > 25).all()  # all 30 but a few
    assert (old[:, 2] < 0.5 * old[:, 0]).all()
    assert all(h <= 60 for h in found.half())
    assert np.isfinite(found.half()).all()


def test_a_study_states_bits_information_and_forgetting():
    a = Architecture("small", mlp(5, 4, 1, 3), (5,), 3)
    settings = CapacitySettings(load=(0.5, 4.0), seeds=2, steps=60, doublings=0, rate=0.03)
    s = study_capacity(a, settings, forgetting=True)
    named = {m.name: m for m in s.measurements}
    assert named["capacity.bits_per_parameter"].value == pytest.approx(named["capacity.bits"].value / 39)
    assert named["capacity.information_scale"].value > 0
    assert 0 <= named["forgetting.kept"].value <= 1
    assert json.loads(json.dumps(s.to_dict()))["parameters"] == 39


def test_architectures_of_a_task():
    x, y = torch.randn(8, 2, 3), torch.zeros(8, dtype=torch.long)
    task = Task(nn.Sequential(nn.Flatten(), nn.Linear(6, 4)), (x, y))
    (a,) = architectures(task, (5,), 2)
    assert (a.name, a.shape, a.classes) == ("6-5-5-4", (2, 3), 4)
    assert a.make()(x).shape == (8, 4)
    with pytest.raises(TaskError, match="--width"):
        architectures(task, (), 1)
    with pytest.raises(TaskError, match="categorical"):
        architectures(Task(task.model, (x, torch.randn(8, 4)), Gaussian()), (5,), 1)


def test_the_commands(tmp_path, monkeypatch):
    (tmp_path / "capacity_mine.py").write_text(
        "import torch, memspace\n"
        "def task():\n"
        "    torch.manual_seed(0)\n"
        "    x, y = torch.randn(30, 4), torch.randint(0, 3, (30,))\n"
        "    return memspace.Task(model=torch.nn.Linear(4, 3), train=(x, y), name='mine')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*words):
        return CliRunner().invoke(app, words)

    words = ("--width", "3", "--load", "1", "--load", "4", "--seeds", "1", "--steps", "20", "--out", "c.json")
    done = run("capacity", "capacity_mine:task", *words, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads((tmp_path / "c.json").read_text())
    assert json.loads(done.stdout)["architectures"][0]["architecture"] == "4-3-3"
    refused = run("capacity", "capacity_mine:task")
    assert isinstance(refused.exception, TaskError)
    assert "--width" in str(refused.exception)
    assert run("capacity", "capacity_mine:task", "--width", "3", "--load", "0").exit_code == 2
    done = run("attack", "capacity_mine:task", "--examples", "10", "--out", "a.json")
    assert done.exit_code == 0, done.output
    assert "input.distance_l2" in done.stdout
    found = json.loads((tmp_path / "a.json").read_text())
    assert len(found["table"]["distance"]) == 10


def test_what_is_left_of_a_given_capacity():
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    task = Task(nn.Linear(4, 3), (x, torch.arange(20) % 3))
    given = audit_task(task, AuditSettings(damping=0.1, capacity=100.0)).chapter("capacity")
    assert given.value("capacity.left") == pytest.approx(100 - given.value("capacity.bits_used"))
    without = audit_task(task, AuditSettings(damping=0.1)).chapter("capacity")
    assert any(u.name == "capacity.left" and "memspace capacity" in u.remedy for u in without.unmeasured)
