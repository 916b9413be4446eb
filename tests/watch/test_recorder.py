"""A watched training is the same training; what is kept of it is bounded, whole and evenly spaced."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from torch import nn

import memspace
from memspace.action.training import training_action
from memspace.errors import (
    NonFiniteError,
    OutputError,
    RunFolderError,
    ShapeError,
    StochasticModelError,
    TaskError,
    UnsupportedLayerError,
    WeightsMismatchError,
)
from memspace.geometry.path import walk
from memspace.progress import Silent
from memspace.recorder import trajectory as trajectory_module
from memspace.recorder.recorder import Recorder
from memspace.recorder.ruler import distance
from memspace.task.recording import load_recording
from memspace.task.run import States
from tests.watch.training import data, network, train, watched


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_watched_training_is_bit_for_bit_the_same(tmp_path, seed):
    x, y = data(seed)
    models = []
    for watching in (False, True):
        model = network(seed)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        torch.manual_seed(seed + 100)
        if watching:
            settings = memspace.WatchSettings(every=2, probe=30, spacing=1e-3)
            run = memspace.watch(model, (x, y), optimizer, out=tmp_path, settings=settings)
        train(model, x, y, optimizer, 12)
        if watching:
            model[2].eval()  # a module's own mode is not the model's
            gradient = model[0].weight.grad
            before = gradient.clone()
            run.close()
            assert model[0].weight.grad is gradient
            assert torch.equal(gradient, before)
            assert model[0].training
            assert not model[2].training
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
            assert not optimizer._optimizer_step_post_hooks
        models.append((model.state_dict(), torch.get_rng_state()))
    (plain, random), (followed, after) = models
    assert plain.keys() == followed.keys()
    assert all(torch.equal(plain[k], followed[k]) for k in plain)
    assert torch.equal(random, after)


def test_checkpoints_are_spaced_by_length_and_their_number_is_bounded(tmp_path):
    x, y = data(3)
    model = network(3, stochastic=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    settings = memspace.WatchSettings(every=1, slow=False, probe=120, checkpoints=8, spacing=0.02)
    states = {0: {k: v.clone() for k, v in model.state_dict().items()}}
    with memspace.watch(model, (x, y), optimizer, out=tmp_path, settings=settings) as run:

        def note():
            states[run.steps] = {k: v.clone() for k, v in model.state_dict().items()}

        train(model, x, y, optimizer, 150, after=note)
    found = load_recording(tmp_path)
    kept, spacing = found.run, found.index["spacing"]
    assert 4 <= len(kept.states) <= 8
    assert spacing > 0.02
    assert math.log2(spacing / 0.02) == pytest.approx(round(math.log2(spacing / 0.02)))
    assert kept.step[0] == 0
    assert kept.step[-1] == 150
    for step, time, state in zip(kept.step, kept.time, kept.states, strict=True):
        assert time == pytest.approx(0.1 * step)
        assert all(torch.equal(state[k], states[step][k]) for k in state)
    law = memspace.Categorical()
    outputs = [found.outputs(k) for k in range(len(kept.step))]
    chords = [distance(law, a, b) for a, b in itertools.pairwise(outputs)]
    # Neighbours were a spacing apart when kept; dropping every second one of a path that turns can bring them closer.
    assert min(chords[:-1]) > spacing / 4
    files = {p.name for p in (tmp_path / "states").iterdir()}
    assert len(files) == 2 * len(kept.states)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("seed", [0, 5])
def test_the_length_does_not_depend_on_how_often_one_looks(tmp_path, seed):
    lengths, looks = [], []
    for every in (1, 2, 4):
        _, run = watched(tmp_path / str(every), 160, seed=seed, every=every, rate=0.05, spacing=0.2, batch=120)
        lengths.append(run.numbers.length)
        looks.append(len(load_recording(tmp_path / str(every)).looks["step"]))
    assert looks[0] > 1.4 * looks[1] > 2 * looks[2]
    # Between two looks the ruler's end overshoots by at most one stretch, which cuts a corner of second order.
    assert max(lengths) / min(lengths) < 1.03


def test_numbers_are_those_of_the_recorded_run(tmp_path):
    x, y = data(1, n=40)
    model = network(1, stochastic=False).double()
    x = x.double()
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    settings = memspace.WatchSettings(every=1, probe=40, spacing=1e-9, checkpoints=64)
    told = []
    with memspace.watch(model, (x, y), optimizer, out=tmp_path, to=told.append, settings=settings) as run:
        train(model, x, y, optimizer, 24, batch=40)
    task = memspace.Task(model=model, train=memspace.Data((x, y)), run=memspace.load_run(tmp_path, model))
    measured = training_action(task, progress=Silent())
    found = {m.name: m.value for m in measured.measurements}
    recorded = load_recording(tmp_path)
    path = walk(task.likelihood, torch.stack([recorded.outputs(k) for k in range(25)]))
    slope = torch.tensor(measured.slope, dtype=torch.float64)
    last = run.numbers
    assert last == told[-1]
    assert last.step == 24
    assert last.time == pytest.approx(0.3 * 24)
    assert last.length == pytest.approx(found["action.length"], rel=1e-6)
    assert last.constant_speed == pytest.approx(last.length**2 / 2)
    assert last.action == pytest.approx(path.action(recorded.run.time), rel=1e-6)
    spent = float((path.steps * (slope[1:] + slope[:-1]) / 2).sum())
    assert last.excess == pytest.approx(spent - found["action.loss_bought"], rel=1e-6)
    assert told[0].excess is None
    assert "excess" not in told[0].known()
    looks = load_recording(tmp_path).looks
    assert sum(math.sqrt(s) for s in looks["squared"][1:]) == pytest.approx(last.length, rel=1e-9)
    assert looks["single_step_squared"][1:] == looks["squared"][1:]


def test_leave_one_out_of_a_linear_model_is_the_closed_form(tmp_path):
    # One layer with one output: KFAC is exact, and f - y over one less the hat matrix is what retraining gives.
    n, d = 300, 5
    g = torch.Generator().manual_seed(4)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    y = x @ torch.randn(d, 1, generator=g, dtype=torch.float64) + 0.7 * torch.randn(n, 1, generator=g).double()
    weights = torch.linalg.lstsq(x, y).solution
    model = nn.Sequential(nn.Linear(d, 1, bias=False)).double()
    model[0].weight.data = weights.t().contiguous()
    settings = memspace.WatchSettings(every=1, probe=n)
    told = []
    with memspace.watch(
        model, (x, y), likelihood=memspace.Gaussian(0.7), out=tmp_path, to=told.append, settings=settings
    ) as run:
        run._budget.balance["fullness"] = math.inf
        run.step(rate=1.0)
    hat = (x @ torch.linalg.pinv(x)).diagonal()
    residual = (y - x @ weights).squeeze()
    exact = float(((residual / (1 - hat)).square() - residual.square()).mean()) / (2 * 0.7**2)
    # The step is taken at the metric with the example in it: short of the closed form by the hat's own size.
    assert told[0].leave_one_out_gap == pytest.approx(exact, rel=3 * float(hat.max()))
    assert d - 0.5 < told[0].effective_dimension <= d


def test_going_on_after_an_interruption(tmp_path):
    x, y = data(2)
    settings = memspace.WatchSettings(every=1, slow=False, probe=60, spacing=0.05)

    def session(model, optimizer, steps, resume):
        with memspace.watch(model, (x, y), optimizer, out=tmp_path, resume=resume, settings=settings) as run:
            train(model, x, y, optimizer, steps, batch=120)
        return run

    model = network(2, stochastic=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session(model, optimizer, 30, None)
    half = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RunFolderError, match="lies there already"):
        session(model, optimizer, 1, None)
    run = session(model, optimizer, 20, True)
    whole = load_recording(tmp_path)
    assert run.steps == whole.run.step[-1] == 50
    assert whole.run.time[-1] == pytest.approx(5.0)
    assert whole.looks["step"] == sorted(whole.looks["step"])
    # From an earlier step, as a training does that starts again at its own checkpoint.
    model.load_state_dict(half)
    again = session(model, optimizer, 20, 30)
    assert again.steps == 50
    found = load_recording(tmp_path)
    assert list(found.run.step) == sorted(set(found.run.step))
    single, _ = watched(tmp_path / "single", 50, seed=2, batch=120), None
    assert again.numbers.length == pytest.approx(single[1].numbers.length, rel=0.02)
    assert again.numbers.action == pytest.approx(single[1].numbers.action, rel=0.1)
    other = nn.Sequential(nn.Linear(6, 3))
    with pytest.raises(RunFolderError, match="another model"):
        memspace.watch(other, (x, y), out=tmp_path, resume=True, settings=settings)
    with pytest.raises(RunFolderError, match="another training data"):
        memspace.watch(model, (x + 1, y), out=tmp_path, resume=True, settings=settings)
    with pytest.raises(RunFolderError, match="begins at step 0"):
        memspace.watch(model, (x, y), out=tmp_path, resume=-1, settings=settings)
    memspace.watch(model, (x, y), out=tmp_path, resume=False, settings=settings).close()
    assert load_recording(tmp_path).run.step == (0,)


KILLED = """
import os, sys, torch
sys.path.insert(0, {root!r})
import memspace
from tests.watch.training import *
x, y = data()
model = network(stochastic=False)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
settings = memspace.WatchSettings(every=1, slow=False, probe=60, spacing=0.02, checkpoints=6)
run = memspace.watch(model, (x, y), optimizer, out={out!r}, settings=settings)
def after():
    if run.steps == 37:
        os._exit(9)
train(model, x, y, optimizer, 100, after=after)
"""


def test_a_killed_process_leaves_a_trajectory_that_reads(tmp_path, request):
    root = str(request.config.rootpath)
    done = subprocess.run([sys.executable, "-c", KILLED.format(root=root, out=str(tmp_path))], check=False)
    assert done.returncode == 9
    found = load_recording(tmp_path)
    assert not found.index["finished"]
    assert 0 < found.run.step[-1] <= 37
    assert all(torch.isfinite(v).all() for state in found.run.states for v in state.values())
    torn = tmp_path / "states" / "step-000000099.safetensors"
    torn.write_bytes(b"half")
    x, y = data()
    settings = memspace.WatchSettings(every=1, slow=False, probe=60, spacing=0.02, checkpoints=6)
    memspace.watch(network(stochastic=False), (x, y), out=tmp_path, resume=True, settings=settings).close()
    assert not torn.exists()


def test_a_full_disk_ends_the_recording_and_not_the_training(tmp_path, monkeypatch):
    real, writes = trajectory_module.write_tensors, []

    def filling(path, tensors):
        writes.append(path)
        if len(writes) > 5:
            raise OutputError("the disk is full", where=str(path), remedy="free some space")
        real(path, tensors)

    monkeypatch.setattr(trajectory_module, "write_tensors", filling)
    with pytest.warns(RuntimeWarning, match="disk is full") as said:
        model, run = watched(tmp_path, 40, spacing=0.01)
    assert len(said) == 1
    assert run.steps < 40
    plain = network(0, stochastic=False)
    train(plain, *data(0), torch.optim.SGD(plain.parameters(), 0.1), 40)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    found = load_recording(tmp_path)
    assert "disk is full" in found.index["fault"]
    assert len(list(found.run.states)) == 2  # labels, then two files a checkpoint


def test_a_diverging_training_is_left_alone(tmp_path):
    with pytest.warns(RuntimeWarning, match="NaN or infinite"):
        _, run = watched(tmp_path, 30, rate=math.inf)
    assert "NaN" in run.fault
    states = list(memspace.load_run(tmp_path).states)
    assert all(torch.isfinite(v).all() for v in states[0].values())


def test_states_stay_on_disk_until_they_are_asked_for(tmp_path):
    model, _ = watched(tmp_path, 40)
    run = memspace.load_run(tmp_path, model)
    assert isinstance(run.states, States)
    assert len(run.states[1:]) == len(run.states) - 1
    half = memspace.Task(model=model.bfloat16(), train=data(0), run=run).run
    assert half is not None
    assert isinstance(half.states, States)
    with pytest.raises(WeightsMismatchError):
        memspace.load_run(tmp_path, nn.Linear(2, 2))
    (tmp_path / "states" / f"step-{run.step[1]:09d}.safetensors").write_bytes(b"")
    with pytest.raises(RunFolderError, match="damaged"):
        run.states[1]
    (tmp_path / "trajectory.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunFolderError, match="damaged"):
        memspace.load_run(tmp_path)
    (tmp_path / "trajectory.json").write_text(json.dumps({"schema": 99}), encoding="utf-8")
    with pytest.raises(RunFolderError, match="schema 99"):
        memspace.load_run(tmp_path)
    with pytest.raises(RunFolderError, match="no recorded training"):
        memspace.load_run(tmp_path / "nowhere")


def test_the_table_carries_units(tmp_path):
    watched(tmp_path, 5)
    about = pq.read_schema(tmp_path / "looks.parquet").metadata
    units = json.loads(about[b"units"])
    assert units["length"] == "nats^½"
    assert units["single_step_squared"] == "nats"


class Logits(nn.Module):
    """Returns an object, shares a weight, is kept in half precision."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3, bias=False)
        self.twin = nn.Linear(6, 3, bias=False)
        self.twin.weight = self.inner.weight

    def forward(self, x):
        return {"logits": self.inner(x) + self.twin(x)}


def test_half_precision_objects_and_shared_weights(tmp_path):
    x, y = data(0)
    model = Logits().bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    settings = memspace.WatchSettings(every=1, probe=40, slow=False)
    with memspace.watch(model, (x, y), optimizer, out=tmp_path, settings=settings) as run:
        for _ in range(5):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                nn.functional.cross_entropy(model(x.bfloat16())["logits"].float(), y).backward()
            optimizer.step()
    assert run.fault is None
    assert run.numbers.length > 0
    last = memspace.load_run(tmp_path).states[-1]
    assert last.keys() == model.state_dict().keys()
    assert all(torch.equal(last[k], v) for k, v in model.state_dict().items())
    assert last["inner.weight"].dtype == torch.bfloat16


class Descent(torch.optim.Optimizer):
    """As a fused optimiser does, it steps or not by what the loss scaler found."""

    found_inf = None

    def step(self, closure=None):
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p -= group["lr"] * p.grad * (0.0 if self.found_inf is not None and self.found_inf else 1.0)


def test_steps_that_a_loss_scaler_skips_take_no_time(tmp_path):
    x, y = data(0)
    model = network(0, stochastic=False)
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": torch.tensor(0.4)}]
    optimizer = Descent(groups, {})
    settings = memspace.WatchSettings(every=1, slow=False, probe=40)
    run = memspace.watch(model, (x, y), optimizer, out=tmp_path, settings=settings)
    train(model, x, y, optimizer, 2)
    optimizer.found_inf = torch.ones(1)
    train(model, x, y, optimizer, 1)
    optimizer.found_inf = torch.zeros(1)
    train(model, x, y, optimizer, 1)
    run.close()
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model[0], model[2])]
    mean = (0.1 * sizes[0] + 0.4 * sizes[1]) / sum(sizes)
    assert run.numbers.time == pytest.approx(3 * mean, rel=1e-6)


def test_a_loop_without_rates_has_no_action(tmp_path):
    x, y = data(0)
    model = network(0, stochastic=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    settings = memspace.WatchSettings(every=1, slow=False, probe=40)
    with memspace.watch(model, (x, y), out=None, settings=settings) as run:
        train(model, x, y, optimizer, 5, after=run.step)
        assert run.numbers.step == 5
        assert run.numbers.time is None
        assert run.numbers.action is None
        run.attach(optimizer)
        with pytest.raises(TaskError, match="attached already"):
            run.step()
    with pytest.raises(TaskError, match="no steps to follow"):
        run.attach([object()])


def test_processes_after_the_first_do_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda *a: 1)
    _, run = watched(tmp_path / "second", 3)
    assert isinstance(run, Recorder)
    assert run.numbers is None
    assert not (tmp_path / "second").exists()


class Wordless(nn.Linear):
    def __init__(self):
        super().__init__(6, 3)

    def forward(self, x):
        return {"loss": super().forward(x).sum()}


def test_what_cannot_be_watched_says_so_before_the_training(tmp_path):
    x, y = data(0)
    cases = [
        (nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3)), StochasticModelError),
        (nn.Linear(5, 3), ShapeError),
        (Wordless(), ShapeError),
    ]
    broken = network(0)
    broken[0].weight.data[0, 0] = math.nan
    sharded = network(0)
    sharded[0].weight.full_tensor = lambda: None
    for model, kind in (*cases, (broken, NonFiniteError), (sharded, UnsupportedLayerError)):
        with pytest.raises(kind):
            memspace.watch(model, (x, y), out=tmp_path / "none")
        assert not (tmp_path / "none").exists()
    with pytest.raises(TaskError, match="cannot be sent"):
        memspace.watch(network(0), (x, y), out=None, to=3)
