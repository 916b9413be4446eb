"""Networks whose representation is known: what the scores, their nulls and the angles must say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memspace.errors import TaskError
from memspace.measures import disentanglement
from memspace.measures import factor_angles as factor_angles_module
from memspace.measures.alignment import random_cosine
from memspace.measures.disentanglement import Disentanglement, disentangle
from memspace.measures.factor_angles import factor_angles
from memspace.measures.representation import representation
from memspace.measures.scores.dci import dci
from memspace.measures.scores.mig import mig
from memspace.measures.scores.sap import sap
from memspace.progress import Silent
from memspace.task.factors import Factors
from memspace.task.likelihood import Categorical, Gaussian
from memspace.task.task import Task

SIZES = (5, 6, 4)


@pytest.fixture(autouse=True)
def _few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two parts, rotations and orders show the same as five of each, in less than half the time."""
    monkeypatch.setattr(disentanglement, "FOLDS", 2)
    monkeypatch.setattr(disentanglement, "ROTATIONS", 2)
    monkeypatch.setattr(disentanglement, "SHUFFLES", 2)


def _factors(sizes: tuple[int, ...] = SIZES, count: int = 400) -> Factors:
    g = torch.Generator().manual_seed(0)
    values = torch.stack([torch.randint(0, s, (count,), generator=g) for s in sizes], 1)
    names = tuple("abcdef"[: len(sizes)])
    return Factors(names, values, values.double(), sizes, lambda v: v.double())


def _task(weight: Tensor, factors: Factors | None = None, head: Tensor | None = None) -> Task:
    """Inputs are the factors; the representation is ``weight`` @ factors, and so are the outputs by default."""
    inner = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    head = torch.eye(len(weight), dtype=torch.float64) if head is None else head
    outer = nn.Linear(head.shape[1], head.shape[0], bias=False).double()
    with torch.no_grad():
        inner.weight.copy_(weight)
        outer.weight.copy_(head)
    factors = factors or _factors()
    y = torch.zeros(len(factors.inputs), len(head), dtype=torch.float64)
    model = nn.Sequential(inner, outer)
    return Task(model=model, train=(factors.inputs, y), likelihood=Gaussian(0.5), factors=factors)


def _measure(task: Task, seed: int = 0) -> tuple[dict[str, float], Disentanglement]:
    d = disentangle(task, seed=seed, progress=Silent())
    return {m.name.removeprefix("disentanglement."): m.value for m in d.measurements}, d


EYE = torch.eye(3, dtype=torch.float64)


def test_the_factors_themselves_score_one_and_their_rotation_far_less() -> None:
    v, d = _measure(_task(EYE))
    for name in (
        "mig",
        "dci",
        "dci.completeness",
        "dci.informativeness",
        "fisher_orthogonality",
        "layer_orthogonality",
    ):
        assert v[name] == pytest.approx(1, abs=0.04), name
    for name in ("mig", "dci", "dci.completeness"):
        assert v[f"{name}.null"] < 0.7 * v[name], name
        assert v[f"{name}.shuffled"] < 0.2, name
    assert v["sap.null"] < v["sap"]
    assert v["modularity.shuffled"] > 0.2  # of codes that tell nothing
    assert d.codes == "3 units"
    assert d.unmeasured == ()
    for m in d.measurements:
        assert m.interval is not None
        assert m.interval[0] <= m.value <= m.interval[1]


def test_a_rotation_destroys_alignment_and_keeps_every_angle() -> None:
    """Fisher orthogonality is not disentanglement: under an isotropic metric a rotation leaves it at one."""
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    v, _ = _measure(_task(q))
    assert v["fisher_orthogonality"] == pytest.approx(1, abs=1e-9)
    assert v["layer_orthogonality"] == pytest.approx(1, abs=1e-9)
    assert v["mig"] < 0.5
    assert v["dci"] < 0.7


def test_factors_that_move_the_outputs_alike_are_not_orthogonal() -> None:
    pair = _factors((6, 6))
    mixed = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64) / math.sqrt(2)
    a = factor_angles(_task(mixed, pair), pair, 50, 0)
    assert torch.allclose(a.output, torch.zeros(50, dtype=torch.float64), atol=1e-9)
    slanted = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)  # 45° apart
    a = factor_angles(_task(slanted, pair), pair, 50, 0)
    assert torch.allclose(a.output, torch.full((50,), 1 - 0.5**0.5, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(a.halved, a.output, atol=1e-9)


def test_the_output_metric_counts_not_the_layer() -> None:
    """Factors apart at the layer that the head reads as one."""
    head = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    pair = _factors((6, 6))
    layer = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    a = factor_angles(_task(layer, pair, head), pair, 50, 0)
    assert float(a.output.abs().max()) < 1e-9
    assert float(a.layer.min()) == pytest.approx(1, abs=1e-9)
    assert (a.dimension, a.width) == (1, 3)


def test_the_null_of_an_isotropic_metric_is_that_of_random_directions() -> None:
    many = _factors((6, 6), 4000)
    a = factor_angles(_task(torch.randn(7, 2, dtype=torch.float64), many), many, 4000, 0)
    assert a.dimension == 7
    assert float(a.null.mean()) == pytest.approx(1 - random_cosine(7), abs=0.015)
    assert random_cosine(1) == pytest.approx(1)
    assert random_cosine(2) == pytest.approx(2 / math.pi)
    assert random_cosine(1000) == pytest.approx(math.sqrt(2 / (1000 * math.pi)), rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_angles_at_the_output_are_those_of_the_metric(seed: int) -> None:
    """Cosines g_ab / √(g_aa g_bb) with g = (∂_a f)ᵀ H (∂_b f), H applied by the law, at very uneven probabilities."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 4)).double()
    factors = _factors()
    task = Task(model=model, train=(factors.inputs, torch.zeros(len(factors.inputs)).long()), factors=factors)
    found = factor_angles(task, factors, 40, seed)
    chosen = torch.randperm(len(factors.values), generator=torch.Generator().manual_seed(seed))[:40]
    levels = factors.values[chosen].double()
    read = lambda v: task.model(factors.render(v)).double().detach()  # noqa: E731
    base, steps = read(levels), []
    for k in range(3):
        shift = torch.zeros_like(levels)
        shift[:, k] = factor_angles_module.STEP
        steps.append(read(levels + shift) - read(levels - shift))
    d = torch.stack(steps, 1)  # (M, K, C)
    moved = torch.stack([task.likelihood.fisher_matvec(base, d[:, k]) for k in range(3)], 1)
    g = torch.einsum("mkc,mlc->mkl", d, moved)
    scale = g.diagonal(dim1=1, dim2=2).sqrt()
    cosine = (g / scale[:, :, None] / scale[:, None]).abs()
    want = 1 - (cosine.sum((1, 2)) - 3) / 6
    torch.testing.assert_close(found.output, want, rtol=1e-6, atol=1e-6)


def test_a_class_law_has_one_dimension_less_than_outputs() -> None:
    pair = _factors((6, 6))
    task = replace(_task(torch.randn(4, 2, dtype=torch.float64), pair), likelihood=Categorical())
    assert factor_angles(task, pair, 20, 0).dimension == 3


def test_units_that_never_change_are_left_out() -> None:
    padded = torch.cat([EYE, torch.zeros(4, 3, dtype=torch.float64)])
    v, d = _measure(_task(padded))
    assert d.codes == "3 units (4 that never change left out)"
    assert v["dci"] == pytest.approx(1, abs=0.02)
    assert v["mig"] == pytest.approx(1, abs=0.04)


def test_a_wide_layer_is_read_through_its_principal_components() -> None:
    wide = torch.randn(40, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    _, d = _measure(_task(wide))
    assert d.codes.startswith("10 leading principal components of 40 units, 100%")


def test_a_factor_of_one_level_says_nothing() -> None:
    rng = np.random.default_rng(0)
    v = np.stack([rng.integers(0, 4, 600), np.full(600, 2), rng.integers(0, 5, 600)], 1)
    z = v[:, [0, 2]].astype(float)
    assert mig(z, v) > 0.95
    assert dci(z, v)[1] == pytest.approx(1, abs=0.02)
    assert dci(rng.standard_normal((600, 3)), v)[1] < 0.2
    assert sap(z, v) > 0.15
    still = v[:, [1]]
    assert all(math.isnan(x) for x in (mig(z, still), sap(z, still), *dci(z, still)))


def test_the_same_seed_gives_the_same_numbers() -> None:
    task = _task(EYE)
    assert _measure(task, 3)[0] == _measure(task, 3)[0]


def test_what_cannot_be_measured_says_why() -> None:
    task = _task(EYE)
    assert task.factors is not None
    none = disentangle(replace(task, factors=None), seed=0, progress=Silent())
    assert none.measurements == ()
    assert "not known" in none.unmeasured[0].reason
    _, d = _measure(replace(task, factors=replace(task.factors, render=None)))
    assert {u.name for u in d.unmeasured} == {"disentanglement.fisher_orthogonality"}
    single, d = _measure(_task(EYE[:1]))
    assert not {"mig", "dci", "sap", "mig.null"} & set(single)
    assert {u.name for u in d.unmeasured} >= {f"disentanglement.{k}" for k in ("mig", "dci", "sap")}
    assert "1 units that change" in d.unmeasured[0].reason
    kinds = _factors((3, 2, 8))
    _, d = _measure(_task(EYE, kinds))
    assert "fewer than two factors have an order" in d.unmeasured[0].reason
    blind = _task(torch.zeros(3, 3, dtype=torch.float64) + torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    _, d = _measure(blind)
    assert "the outputs move with fewer than two factors" in {u.reason for u in d.unmeasured}


class Net(nn.Module):
    """A convolution, a recurrent layer and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.drop = nn.Conv1d(1, 2, 2), nn.Dropout()
        self.lstm, self.head = nn.LSTM(2, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.lstm(self.drop(self.conv(x.unsqueeze(1))).mT)
        return self.head(h[:, -1])  # type: ignore[no-any-return]


def test_any_layer_can_be_read_and_no_hook_stays() -> None:
    torch.manual_seed(0)
    model = Net().double().train()
    x = torch.randn(600, 3, dtype=torch.float64)
    task = Task(model=model, train=(x, torch.zeros(600, dtype=torch.long)))
    random = torch.get_rng_state()
    z, name = representation(task, x)
    assert (z.shape, name) == ((600, 5), "the input of head")
    assert representation(task, x, "conv")[0].shape == (600, 4)
    assert representation(task, x, "lstm")[0].shape == (600, 10)
    with pytest.raises(TaskError, match="no layer 'missing'"):
        representation(task, x, "missing")
    with pytest.raises(RuntimeError):
        representation(task, x[:, :1])
    assert not any(m._forward_hooks for m in model.modules())
    assert model.training
    assert model.drop.training
    assert torch.equal(torch.get_rng_state(), random)
    bare = Task(model=model.conv, train=(x, x))
    assert representation(bare, x.unsqueeze(1))[1] == "the output"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 3), st.integers(40, 120))
def test_scores_are_bounded(seed: int, width: int, count: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    v = np.stack([rng.integers(0, rng.integers(2, 5), n) for _ in range(count)], 1)
    z = rng.standard_normal((n, width)) + rng.uniform(0, 2) * v[:, :1]
    for score in (mig(z, v), sap(z, v), *dci(z, v)):
        assert math.isnan(score) or -1e-9 <= score <= 1 + 1e-9
