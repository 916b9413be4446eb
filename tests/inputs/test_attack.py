"""The attack against exact distances, certificates, a grid and captum; corruptions against what they mean."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from memspace.auditing.chapters.inputs import QUICK
from memspace.measures.attack import AttackSearch, minimal_perturbations, search
from memspace.measures.corruptions import CORRUPTIONS, corrupt, picture_shape
from memspace.measures.input_measures import study_inputs
from memspace.measures.input_metric import read_inputs
from memspace.measures.input_study import AttackSettings
from memspace.measures.lipschitz import certified_radius, lipschitz_bound
from memspace.measures.ranks import bootstrap_median, spearman
from memspace.task.laws.definition import boundary_of
from memspace.task.likelihood import Bernoulli, Gaussian
from memspace.task.task import Task
from tests.inputs.networks import curved, inputs_of, linear

NORMS = (2.0, math.inf)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("law", [None, Bernoulli()])
def test_linear_distances_are_found(norm, law):
    generator = torch.Generator().manual_seed(5)
    task = linear(torch.randn(4, 7, generator=generator), torch.randn(4, generator=generator), law)
    x = inputs_of(task)
    read = read_inputs(task, x)
    found = minimal_perturbations(task, x, read, AttackSearch(norm))
    exact = read.linear if norm == 2 else read.linear_max
    assert bool((found.distance >= exact * (1 - 1e-9)).all())  # no attack beats the exact distance
    # The last cuts halve the perturbation's own line 12 times.
    assert float((found.distance / exact).max()) < 1.01
    assert float((found.distance / exact).median()) < 1 + 2**-11
    changed = boundary_of(task.likelihood).gaps(task.model(x + found.perturbation).detach(), read.decision).amin(-1)
    assert bool((changed <= 0).all())


@pytest.mark.parametrize("norm", NORMS)
def test_curved_distances_are_those_of_a_fine_grid(norm):
    """Two inputs: every direction is tried."""
    task = curved(inputs=2, classes=3, n=8)
    x = inputs_of(task)
    read = read_inputs(task, x)
    found = minimal_perturbations(task, x, read, AttackSearch(norm, steps=30, restarts=8, bisections=10))
    angle = torch.linspace(0, 2 * math.pi, 361, dtype=torch.float64)[:-1]
    ways = torch.stack([angle.cos(), angle.sin()], 1)
    ways = ways / torch.linalg.vector_norm(ways, norm, dim=1, keepdim=True)
    for i in range(len(x)):
        radius = torch.linspace(0, 1.05 * float(found.distance[i]), 150, dtype=torch.float64)
        points = x[i] + radius[:, None, None] * ways
        same = task.model(points.reshape(-1, 2)).argmax(-1).reshape(150, -1) == read.decision[i]
        nearest = float(radius[(~same).any(1)][0])
        assert float(found.distance[i]) <= nearest * 1.02
        assert float(found.distance[i]) >= nearest * (1 - 0.01) - float(radius[1])


def test_no_attack_breaks_a_certificate():
    task = curved(n=60)
    x = inputs_of(task)
    read = read_inputs(task, x)
    bound = lipschitz_bound(task, x[:1])
    assert isinstance(bound, float)
    found = minimal_perturbations(task, x, read, AttackSearch())
    for radius in certified_radius(boundary_of(task.likelihood), bound, read.margin, read.boundary):
        assert bool((radius <= found.distance).all())


def test_stays_within_radius_and_bounds():
    task = curved()
    x = inputs_of(task).clamp(-1, 1)
    read = read_inputs(task, x)
    radius = torch.full((len(x),), 0.3, dtype=torch.float64)
    for norm in NORMS:
        how = AttackSearch(norm, bounds=(-1.0, 1.0))
        z, passes = search(task, x, read.decision, radius, torch.zeros_like(x), how)
        assert float(torch.linalg.vector_norm(z, norm, dim=1).max()) <= 0.3 * (1 + 1e-12)
        assert float((x + z).abs().max()) <= 1 + 1e-12
        assert 0 < passes <= len(x) * (how.steps + 1)
        within = minimal_perturbations(task, x, read, how)
        free = minimal_perturbations(task, x, read, replace(how, bounds=None))
        assert float((x + within.perturbation).abs().max()) <= 1 + 1e-12
        assert float((within.distance / free.distance).median()) >= 1 - 1e-3


def test_a_constant_network_has_no_other_decision():
    model = nn.Linear(3, 2).double()
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([1.0, 0.0]))
    x = torch.randn(15, 3, dtype=torch.float64)
    study = study_inputs(Task(model, (x, torch.zeros(15, dtype=torch.long))), AttackSettings(15))
    assert study.found is not None
    assert bool(study.found.distance.isinf().all())
    assert bool((study.found.perturbation == 0).all())
    assert "input.distance_l2.rank_linear" not in {m.name for m in study.measurements}
    rank = next(u for u in study.unmeasured if u.name == "input.distance_l2.rank_linear")
    assert rank.reason.startswith("none found for 15 examples")


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients:UserWarning")
def test_at_least_as_strong_as_captum():
    robust = pytest.importorskip("captum.robust")
    task = curved(n=80)
    x = inputs_of(task)
    read = read_inputs(task, x)
    radius = torch.full((len(x),), float(read.linear.median()), dtype=torch.float64)
    theirs = robust.PGD(task.model, nn.CrossEntropyLoss(reduction="none"))
    for norm, name in ((2.0, "L2"), (math.inf, "Linf")):
        size = radius if norm == 2 else torch.full_like(radius, float(read.linear_max.median()))
        r = float(size[0])
        moved = theirs.perturb(
            x.clone().requires_grad_(), radius=r, step_size=r / 4, step_num=40, target=read.decision, norm=name
        ).detach()
        flipped = task.model(moved).argmax(-1) != read.decision
        z, _ = search(task, x, read.decision, size, torch.zeros_like(x), AttackSearch(norm, steps=40))
        ours = task.model(x + z).argmax(-1) != read.decision
        assert int(ours.sum()) >= int(flipped.sum())
        assert 0.2 < float(ours.double().mean()) < 0.8  # the radius tells strong from weak


def test_corruptions_rise_from_nothing():
    pictures = torch.rand(6, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    for c in CORRUPTIONS:
        gone = [float((c.apply(pictures, s, 0.3, generator) - pictures).norm()) for s in (1e-6, *c.severities)]
        assert gone[0] < 1e-3 * gone[-1] or c.name in ("blur", "mask")
        assert gone[-1] > gone[1] > 0
        assert c.apply(pictures, c.severities[0], 0.3, generator).shape == pictures.shape


def test_rotation_and_shift_move_pixels_where_they_should():
    named = {c.name: c for c in CORRUPTIONS}
    generator = torch.Generator()
    picture = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    picture[0, 0, 4, 6] = 1
    turned = named["rotation"].apply(picture, 90, 1.0, generator)
    assert float(turned.sum()) == pytest.approx(1, abs=1e-9)
    assert {(2, 4), (6, 4)} & {tuple(divmod(int(turned.argmax()), 9))}
    wide = torch.zeros(1, 1, 5, 10, dtype=torch.float64)
    wide[0, 0, 2, 3] = 1
    shifted = named["shift"].apply(wide, 0.2, 1.0, generator)
    assert divmod(int(shifted.argmax()), 10) == (2, 5)


def test_blur_and_contrast_keep_the_mean():
    named = {c.name: c for c in CORRUPTIONS}
    inner = torch.zeros(2, 1, 31, 31, dtype=torch.float64)
    inner[:, :, 12:18, 12:18] = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    for name, severity in (("blur", 1.5), ("contrast", 0.6)):
        after = named[name].apply(inner, severity, 1.0, torch.Generator())
        assert torch.allclose(after.mean((2, 3)), inner.mean((2, 3)))
        assert float(after.std()) < float(inner.std())


def test_first_severity_of_brightness_is_the_crossing():
    """f = (sum of pixels, constant): brightness crosses the constant at a severity that is known."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 2)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.ones(25), torch.zeros(25)]))
        model[1].bias.zero_()
    x = torch.randn(30, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    task = Task(model, (x, torch.zeros(30, dtype=torch.long)))
    made = {c.corruption.name: c for c in corrupt(task, x, read_inputs(task, x).decision)}
    bright = made["brightness"]
    needed = -x.sum((1, 2, 3)) / 25 / float(x.std())
    grid = torch.tensor(bright.corruption.severities, dtype=torch.float64)
    for need, first in zip(needed, bright.first, strict=True):
        expected = grid[grid >= need][0] if 0 < need <= grid[-1] else 2 * grid[-1] - grid[-2]
        assert float(first) == pytest.approx(float(expected))
    for k, s in enumerate(grid):
        assert float(bright.kept[k]) == pytest.approx(1 - float(((needed > 0) & (needed <= s)).double().mean()))
    assert "mask" not in made


def test_shapes_of_pictures():
    y = torch.zeros(2, dtype=torch.long)
    flat = Task(nn.Linear(64, 2), (torch.randn(2, 64), y), input_shape=(8, 8))
    assert picture_shape(flat, torch.randn(2, 64)) == (1, 8, 8)
    assert picture_shape(replace(flat, input_shape=None), torch.randn(2, 64)) is None
    assert picture_shape(replace(flat, input_shape=None), torch.randn(2, 3, 9, 7)) == (3, 9, 7)


def test_rank_correlation_and_its_interval():
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(300, generator=rng).numpy()
    assert spearman(a, 3 * a**3)[0] == pytest.approx(1)
    from scipy.stats import spearmanr

    b = a + torch.randn(300, generator=rng).numpy()
    value, (low, high) = spearman(a, b)
    assert value == pytest.approx(spearmanr(a, b).statistic)
    # Fisher's z has standard error 1.03/√(n − 3) here (Fieller et al. 1957)
    half = math.tanh(math.atanh(value) + 1.96 * 1.03 / math.sqrt(297)) - value
    assert high - value == pytest.approx(half, rel=0.4)
    assert low < value
    middle, (below, above) = bootstrap_median(a)
    assert below < middle < above


def test_a_law_without_decisions_has_a_metric_and_no_distance():
    study = study_inputs(curved(likelihood=Gaussian()), AttackSettings(20))
    assert {m.name for m in study.measurements} == {"input.lambda_max", "input.trace", "input.kl_ratio"}
    assert "gaussian" in study.unmeasured[0].reason
    assert "distance" not in study.table()


def test_a_study_is_repeatable_and_whole():
    settings = AttackSettings(30, AttackSearch(steps=6, restarts=1, bisections=4), seed=3)
    first, second = study_inputs(curved(), settings), study_inputs(curved(), settings)
    assert [m.value for m in first.measurements] == [m.value for m in second.measurements]
    table = first.table()
    assert {len(v) for v in table.values()} == {30}
    assert {"distance", "distance_max", "certified", "first_noise", "first_mask"} <= set(table)
    assert first.passes > 30 * 10


def test_the_audit_s_search_fits_its_share_of_a_training_epoch():
    """200 inputs within half an epoch of 60,000 examples: 150 passes each, and little lost against a longer search."""
    task = curved(n=100)
    study = study_inputs(task, AttackSettings(100, QUICK, both_norms=False, draws=2))
    assert study.passes <= 150 * 100
    assert study.found is not None
    x = inputs_of(task)
    long = minimal_perturbations(task, x, read_inputs(task, x), AttackSearch(steps=30, restarts=6, bisections=9))
    ratio = study.found.distance / long.distance
    assert float(ratio.median()) < 1.02
