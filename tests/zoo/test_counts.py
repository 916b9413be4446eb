"""Four counts of memory: closed forms and quadrature on linear models, rows of every family, plateaus and control."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from memspace.claims.sampling import Sampling
from memspace.claims.statistics.agreement import Agreement, agreement
from memspace.passes.outputs import outputs
from memspace.passes.verify import checked_space
from memspace.task.data import Data
from memspace.task.likelihood import Categorical
from memspace.task.task import Task
from memspace.value import Absent
from memspace.verbs.zoo import WorkSettings, train_zoo
from memspace.zoo.counts.control import threshold_units
from memspace.zoo.counts.curvature import LabelCurvature, label_curvature
from memspace.zoo.counts.network import count_memory
from memspace.zoo.counts.plateau import GEOMETRIC, plateaus
from memspace.zoo.counts.settings import CountSettings
from memspace.zoo.counts.stored import label_entropy, stored_labels
from memspace.zoo.declaration import load_zoo
from memspace.zoo.results import ZooResults
from memspace.zoo.stages.capacity import capacity_row
from memspace.zoo.stages.measures import task_of
from memspace.zoo.store import ZooStore
from memspace.zoo.training.draws import labels_of
from memspace.zoo.training.group import train_group
from tests.zoo.measured_networks import character_task
from tests.zoo.test_training import data_for, spec_of

SHORT = CountSettings(chains=2, warmup=4, draws=8, leaps=2)


def linear_task(n: int = 60, inputs: int = 3, classes: int = 2, seed: int = 0) -> Task:
    """A softmax model without biases at the maximum of its likelihood, float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, inputs, generator=generator, dtype=torch.float64)
    y = (x[:, 0] + 1.5 * torch.randn(n, generator=generator, dtype=torch.float64) > 0).long()
    y = y + (classes > 2) * torch.randint(0, classes - 1, (n,), generator=generator)
    model = nn.Linear(inputs, classes, bias=False, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=300, tolerance_grad=1e-12, tolerance_change=0)

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = nn.functional.cross_entropy(model(x), y)
        value.backward()
        return value

    optimiser.step(loss)
    return Task(model, Data((x, y)), Categorical(), name="linear")


def dense_fisher(task: Task) -> Tensor:
    """E xxᵀ ⊗ (diag p − ppᵀ), outputs first as in the weights of a linear layer."""
    batch = task.train.batch(list(range(len(task.train))))
    with torch.no_grad():
        p = task.model(batch.x).softmax(1)
    output = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    size = p.shape[1] * batch.x.shape[1]
    return torch.einsum("nab,ni,nj->aibj", output, batch.x, batch.x).reshape(size, size) / len(p)


def curvature_of(task: Task, rows: int = 50) -> LabelCurvature:
    return label_curvature(task, checked_space(task), rows)


@pytest.mark.parametrize("classes", [2, 4])
def test_information_of_a_linear_model_is_a_determinant(classes: int) -> None:
    task = linear_task(classes=classes)
    fisher, gamma = dense_fisher(task), 1e-2
    bits, error = curvature_of(task).information(gamma)
    exact = 0.5 * float(torch.logdet(torch.eye(len(fisher)) + fisher / gamma)) / math.log(2)
    assert bits == pytest.approx(exact, rel=1e-9)
    assert 0 < error < bits


def test_volume_of_a_linear_model_is_that_of_a_monte_carlo_count() -> None:
    task = linear_task()
    fisher, gamma, epsilon = dense_fisher(task), 1e-2, 0.05
    bits, _ = curvature_of(task).volume(gamma, epsilon)
    generator = torch.Generator().manual_seed(1)
    delta = torch.randn(400_000, len(fisher), generator=generator, dtype=torch.float64) / math.sqrt(60 * gamma)
    inside = (0.5 * ((delta @ fisher) * delta).sum(1) <= epsilon).double().mean()
    share = float(inside)
    error = math.sqrt(share * (1 - share) / len(delta)) / share / math.log(2)
    assert bits == pytest.approx(-math.log2(share), abs=5 * error)


@pytest.mark.parametrize("count", ["information", "volume"])
def test_errors_over_examples_are_those_of_a_jackknife(count: str) -> None:
    task = linear_task(n=40, classes=3)
    curvature = curvature_of(task)
    batch = task.train.batch(list(range(40)))

    def bits(c: LabelCurvature) -> tuple[float, float]:
        return c.information(1e-2) if count == "information" else c.volume(1e-2, 0.05)

    left_out = []
    for k in range(40):
        others = [i for i in range(40) if i != k]
        one = Task(task.model, Data((batch.x[others], batch.y[others])), Categorical(), name="one less")
        mean = curvature_of(one, 400)
        left_out.append(bits(replace(mean, labels=40))[0])
    centre = np.array(left_out)
    jackknife = math.sqrt(39 / 40 * ((centre - centre.mean()) ** 2).sum())
    assert bits(curvature)[1] == pytest.approx(jackknife, rel=0.1)


def test_parts_of_examples_sum_to_the_eigenvalues_and_chunks_do_not_matter() -> None:
    task = character_task(3, 4, 3, dtype=torch.float64)
    whole, parts = curvature_of(task, 10**6), curvature_of(task, 1)
    assert whole.labels == 3 * 16
    torch.testing.assert_close(whole.values, parts.values)
    torch.testing.assert_close(whole.product(whole.vectors.t()), whole.values[:, None] * whole.vectors.t())
    torch.testing.assert_close(whole.parts.sum(0), whole.labels * whole.values)
    torch.testing.assert_close(parts.parts.sum(1), whole.parts.sum(1))


def test_the_coefficient_of_a_logistic_model_is_that_of_a_quadrature() -> None:
    task = linear_task(n=200, inputs=1)
    batch = task.train.batch(list(range(200)))
    settings = CountSettings(damping=5e-3, chains=4, warmup=20, draws=200, leaps=3)
    counted = count_memory(task, settings)
    assert not isinstance(counted.coefficient, Absent)
    assert counted.given.precision == pytest.approx(1.0)
    # The loss depends on the difference of the two weights alone: one dimension, v along (1, −1)/√2.
    v = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    weights = task.model.weight.detach().flatten()
    gap = (weights[1] - weights[0] + math.sqrt(2) * v)[:, None] * batch.x.flatten()
    signs = (2 * batch.y - 1).double()
    losses = nn.functional.softplus(-signs * gap).mean(1)
    rise = 200 / math.log(200) * (losses - losses[2000])
    density = torch.exp(-rise - 0.5 * v**2)
    expected = float((rise * density).sum() / density.sum()) * math.log2(200)
    assert counted.coefficient.bits == pytest.approx(expected, abs=4 * counted.coefficient.error)
    assert counted.coefficient.error < 0.25 * expected


def test_counts_of_a_regular_model_lie_where_theory_has_them() -> None:
    """At ε = d/2N the volume is the information less d/2 ln 2 bits, as N/α grows; N λ ≫ α in all d directions."""
    task, d = linear_task(n=400, inputs=3), 3
    gamma = 1e-7
    curvature = curvature_of(task)
    assert len(curvature.values) == d
    information, _ = curvature.information(gamma)
    volume, _ = curvature.volume(gamma, d / (2 * 400))
    # Stirling's formula for Γ(d/2 + 1) is off by less than 1/(6 d) nats, plus ½ ln πd that it adds to the difference.
    expected = information - d / (2 * math.log(2)) + 0.5 * math.log2(math.pi * d)
    assert volume == pytest.approx(expected, abs=1 / (6 * d * math.log(2)))


def test_evidence_is_where_the_weights_use_up_their_prior() -> None:
    curvature = curvature_of(linear_task())
    gamma = curvature.evidence()
    assert gamma is not None
    assert 60 * gamma * curvature.squared == pytest.approx(curvature.dimension(gamma), rel=1e-6)
    at_zero = replace(curvature, squared=0.0)
    assert at_zero.evidence() is None


def test_stored_bits_of_known_predictions() -> None:
    y = torch.tensor([0, 0, 0, 1, 2, 2])
    frequencies = torch.tensor([3.0, 1.0, 2.0]).log().expand(6, 3)
    assert stored_labels(frequencies, y).bits == pytest.approx(0, abs=1e-6)
    known = stored_labels(100.0 * nn.functional.one_hot(y).double(), y)
    assert known.bits == pytest.approx(known.offered)
    assert known.offered == pytest.approx(6 * label_entropy(y))
    assert known.error == pytest.approx(0, abs=1e-12)
    assert stored_labels(-frequencies, y).bits < 0
    half = stored_labels(torch.tensor([[9.0, 0, 0]] * 3 + [[0.0, 0, 0]] * 3), y)
    saved = np.array([label_entropy(y) - math.log2(1 + 2 * math.exp(-9))] * 3 + [label_entropy(y) - math.log2(3)] * 3)
    assert half.bits == pytest.approx(saved.sum())
    assert half.error == pytest.approx(math.sqrt(6) * saved.std(ddof=1))


@pytest.mark.parametrize("kind", ["mlp", "conv", "recurrent", "transformer", "character model"])
def test_every_family_has_a_row_and_only_its_own_permutation_is_stored(kind: str) -> None:
    data = data_for(spec_of(kind).data)
    spec = spec_of(kind, permuted=True, batch=60, most=100, target=1e-6, width=4, size=20, rate=12.0)
    (trained,) = train_group([spec], data)
    steps = torch.tensor([s for s, _ in trained.states])
    row = capacity_row(spec, data, steps, torch.stack([v for _, v in trained.states]), SHORT)
    y = labels_of(spec, data)
    assert row["labels"] == y.numel()
    assert row["offered_bits"] == pytest.approx(y.numel() * label_entropy(y))
    assert row["earlier_bits"] < row["stored_bits"] <= row["offered_bits"]
    assert row["stored_bits"] == pytest.approx(row["offered_bits"] - y.numel() * trained.loss / math.log(2), rel=1e-4)
    for column in GEOMETRIC:
        if row[column] is None:
            assert row["doubts"]
        else:
            assert row[f"{column}_error"] > 0
    assert row["information_bits"] > 0
    # Control: of another permutation it holds nothing.
    (other,) = train_group([spec_of(kind, **{**vars_of(spec), "seed": 7})], data)
    crossed = task_of(spec, data, steps[:1], other.states[-1][1][None], 0)
    assert stored_labels(*outputs(crossed, crossed.train)).bits < 0.2 * row["stored_bits"]


def vars_of(spec: object) -> dict[str, object]:
    return {k: v for k, v in vars(spec).items() if k not in ("family", "data")}


def rows_of(plateau: float, seeds: int = 2, spread: float = 0.0) -> list[dict[str, object]]:
    """An architecture that stores what is offered, up to a plateau."""
    generator = np.random.default_rng(0)
    rows = []
    for size, offered in ((10, 50.0), (20, 100.0), (40, 200.0)):
        for seed in range(seeds):
            bits = min(offered, plateau) * (1 + spread * generator.standard_normal())
            rows.append(
                {
                    "family": "mlp", "data": "digits", "width": 4, "depth": 1, "size": size, "seed": seed,
                    "permuted": True, "parameters": 100, "stored_bits": bits, "earlier_bits": 0.9 * bits,
                    "information_bits": 3.0 * size,
                }
            )  # fmt: skip
    return rows


def test_a_plateau_is_the_most_that_any_load_leaves() -> None:
    row = plateaus(pl.DataFrame(rows_of(120.0))).row(0, named=True)
    assert (row["plateau_bits"], row["plateau_size"], row["bits_per_parameter"]) == (120.0, 40, 1.2)
    assert not row["passed"]  # the last load still raised it by a fifth
    assert row["settled"] == pytest.approx(0.1)
    assert row["information_bits"] == 120.0  # of the greatest load
    assert row["volume_bits"] is None
    assert plateaus(pl.DataFrame(rows_of(102.0))).row(0, named=True)["passed"]
    unpermuted = [{**r, "permuted": False} for r in rows_of(120.0)]
    assert plateaus(pl.DataFrame(rows_of(120.0) + unpermuted)).height == 1


def test_intervals_of_plateaus_cover() -> None:
    hits = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        rows = [{**r, "stored_bits": r["stored_bits"] * (1 + 0.1 * generator.standard_normal())} for r in rows_of(40.0)]
        # One load is looked at, as the choice of the greatest is not in the interval.
        row = plateaus(pl.DataFrame([{**r, "size": 10} for r in rows])).row(0, named=True)
        hits += row["plateau_low"] <= 40.0 <= row["plateau_high"]
    assert hits >= 51  # 57 expected; fewer than 51 has probability below 0.01


def test_threshold_units_hold_nearly_two_bits_a_weight() -> None:
    # Two in the limit of many weights; units of forty hold a sixth less at their best load.
    row = plateaus(threshold_units(40, seeds=6)).row(0, named=True)
    assert row["passed"]
    assert 1.6 < row["bits_per_parameter"] <= 2.0
    assert row["plateau_size"] in (80, 120)


def test_the_capacity_zoo_passes_its_capacity_in_every_family() -> None:
    declared = load_zoo("capacity")
    assert declared.counted
    assert not load_zoo("small").counted
    stars: dict[tuple[str, int, int], set[int]] = {}
    for s in declared.specs:
        if s.permuted:
            stars.setdefault((s.family, s.width, s.depth), set()).add(s.size)
            assert s.batch >= s.size
    families = [family for family, _, _ in stars]
    assert all(families.count(f) >= 5 for f in ("mlp", "conv", "recurrent", "transformer"))
    assert all(len(sizes) == 3 for sizes in stars.values())
    doses = {(s.family, s.label_noise) for s in declared.specs if not s.permuted}
    assert len(doses) == 4 * 4


def test_the_stage_counts_what_is_declared_so_and_once(tmp_path) -> None:
    text = """
name = "tiny"
counted = true
[every]
family = "mlp"
data = "digits"
dropout = 0.0
decay = 0.0
label_noise = 0.0
optimiser = "adam"
batch = 60
rate = 4.0
depth = 1
width = 2
target = 1e-6
most = 50
permuted = true
[[star]]
name = "two loads"
seeds = [0]
centre = { size = 20 }
vary = { size = [40] }
"""
    (tmp_path / "tiny.toml").write_text(text)
    settings = WorkSettings(1, stages=("train", "capacity"))
    made = train_zoo(tmp_path / "tiny.toml", out=tmp_path / "zoo", settings=settings)
    table = ZooResults([made.store]).table("capacity")
    assert table.height == 2
    assert {"family", "width", "stored_bits", "information_bits_at_evidence"} <= set(table.columns)
    names = ("stored_bits", "information_bits", "volume_bits")
    judged = Agreement(names, tuple(f"{n}_error" for n in names))
    assert agreement(table, judged, Sampling(("key",), ("mlp",))).networks == 2
    assert ZooResults([made.store]).table("plateau")["networks"].to_list() == [2]
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "zoo" / "capacity").iterdir()}
    train_zoo(tmp_path / "tiny.toml", out=tmp_path / "zoo", settings=settings)
    assert files == {p: p.stat().st_mtime_ns for p in (tmp_path / "zoo" / "capacity").iterdir()}
    (tmp_path / "tiny.toml").write_text(text.replace("counted = true\n", ""))
    train_zoo(tmp_path / "tiny.toml", out=tmp_path / "other", settings=settings)
    assert not ZooStore(tmp_path / "other").names("capacity")
