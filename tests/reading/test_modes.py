"""Modes of memory: those of the dense matrix, with what carries them; grouped where they are not told apart."""

import json

import pytest
import torch
from torch import nn

import memspace
from memspace import Task
from memspace.metric.fisher import build
from memspace.passes.space import ParameterSpace
from memspace.reading.modes import groups_of


def classifier(seed: int, examples: int = 40) -> Task:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = torch.randn(examples, 4, dtype=torch.float64)
    return Task(model, (x, torch.arange(examples) % 3), class_names=("a", "b", "c"))


def regression(scales: list[float], examples: int = 200) -> Task:
    """F = E[x xᵀ] of inputs whose deviations are the scales."""
    torch.manual_seed(1)
    x = torch.randn(examples, len(scales), dtype=torch.float64) * torch.tensor(scales, dtype=torch.float64)
    model = nn.Linear(len(scales), 1, bias=False).double()
    return Task(model, (x, x[:, :1]), likelihood=memspace.Gaussian(1.0))


def test_modes_are_the_eigenvectors_of_the_dense_matrix_and_shares_are_exact() -> None:
    task = classifier(2)
    space = ParameterSpace(task.model)
    eye = torch.eye(space.size, dtype=torch.float64)
    f = build(task, space, "dense").apply(lambda v: v, eye)
    values, vectors = torch.linalg.eigh(f)
    read = memspace.modes(task, count=3).read
    k = len(read.values)
    assert read.trace == pytest.approx(float(f.diagonal().sum()), rel=1e-10)
    assert torch.allclose(read.values, values.flip(0)[:k], rtol=1e-9)
    v = vectors.flip(1)[:, :k]
    for example in (0, 17):
        single = build(task, space, "dense", index=[example]).apply(lambda u: u, eye)
        share = (v * (single @ v)).sum(0) / len(task.train) / values.flip(0)[:k]
        assert torch.allclose(read.examples[example], share, rtol=1e-7, atol=1e-12)
    lengths = torch.stack([v[b.start : b.stop].square().sum(0) for b in space.blocks])
    assert torch.allclose(read.layers, lengths, rtol=1e-7, atol=1e-10)
    assert read.classes is not None
    for total in (read.examples.sum(0), read.layers.sum(0), read.classes.sum(0)):
        assert torch.allclose(total, torch.ones(k, dtype=torch.float64), atol=1e-9)


def test_modes_far_apart_stand_alone_and_equal_ones_form_a_group() -> None:
    apart = memspace.modes(regression([8.0, 4.0, 2.0, 1.0]), count=4).read.groups
    assert [g.name for g in apart] == ["1", "2", "3", "4"]
    alike = memspace.modes(regression([5.0, 1.0, 1.0, 1.0]), count=2).read.groups
    assert [g.name for g in alike] == ["1", "2-4"]
    assert alike[0].overlap.value > 0.95
    assert alike[1].overlap.value > 0.95  # a group of all that is left is the same space in every half


def test_a_group_that_is_cut_off_is_said_not_to_be_complete() -> None:
    groups = memspace.modes(regression([1.0] * 9), count=2).read.groups
    assert [(g.first, g.last, g.complete) for g in groups] == [(1, 4, False)]
    assert groups[0].overlap.value < 0.9  # four of nine equal directions are others in every half


def test_a_difference_counts_where_it_is_more_than_two_standard_errors() -> None:
    n = 100
    noise = torch.tensor([1.0, -1.0] * (n // 2), dtype=torch.float64)
    error = float(noise.std()) / n**0.5
    for difference, count in ((1.9 * error, 1), (2.1 * error, 2)):
        moments = torch.stack(
            [torch.full((n,), 5.0, dtype=torch.float64) + difference + noise, torch.full((n,), 5.0)], 1
        )
        assert len(groups_of(moments, moments.mean(0), 2)) == count


def test_the_interval_of_stability_holds_the_mean_of_other_halvings() -> None:
    task, inside = classifier(3, 60), 0
    (first, *_) = memspace.modes(task, count=1).read.groups
    assert first.overlap.interval is not None
    for seed in range(1, 9):
        (other, *_) = memspace.modes(task, count=1, seed=seed).read.groups
        assert other.overlap.interval is not None
        low, high = other.overlap.interval
        inside += low <= first.overlap.interval[1] and first.overlap.interval[0] <= high
    assert inside >= 7  # intervals of two means overlap in more than 95% of cases


def test_a_sample_is_said_to_be_one_and_the_page_shows_the_examples(tmp_path) -> None:
    result = memspace.modes(classifier(4), count=2, rows=30, page=tmp_path / "modes.html")
    assert result.read.plan.n == 10
    assert not result.results.measurement("modes.trace").reliable
    assert "label " in (tmp_path / "modes.html").read_text()
    assert json.loads(json.dumps(result.to_dict()))["modes"]["mode"][0] == 1
