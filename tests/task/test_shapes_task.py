"""The shapes task: its renderer is a smooth map from factors to pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memspace.errors import SettingsError
from memspace.progress import Silent
from memspace.task.builtin import BuildOptions, build
from memspace.task.builtin.shapes import NAMES, SIZES, render

_levels = st.tuples(*(st.integers(0, s - 1) for s in SIZES))


@settings(max_examples=40, deadline=None)
@given(_levels)
def test_pictures_are_in_range_and_show_something(levels: tuple[int, ...]) -> None:
    x = render(torch.tensor([levels]))
    assert x.shape == (1, 1, 32, 32)
    assert x.dtype == torch.float32
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1
    assert float(x.max()) > 0.9
    assert 10 < float(x.sum()) < 700


@settings(max_examples=25, deadline=None)
@given(_levels, st.sampled_from([1, 2, 3, 4]), st.floats(-0.5, 0.5))
def test_pictures_are_continuous_along_ordered_factors(levels: tuple[int, ...], factor: int, offset: float) -> None:
    at = torch.tensor([levels], dtype=torch.float64)
    at[0, factor] += offset
    step = torch.zeros_like(at)
    step[0, factor] = 1e-3
    near = (render(at + step) - render(at)).norm()
    far = (render(at + 10 * step) - render(at)).norm()
    assert float(near) > 0
    assert float(near) < 0.1
    assert float(far) == pytest.approx(10 * float(near), rel=0.1)


def test_every_single_factor_changes_the_picture() -> None:
    middle = torch.tensor([[1, 2, 3, 4, 4]])
    base = render(middle)
    for k in range(5):
        for level in range(SIZES[k]):
            if level == int(middle[0, k]):
                continue
            other = middle.clone()
            other[0, k] = level
            assert float((render(other) - base).abs().max()) > 0.05, (NAMES[k], level)


def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    levels = torch.stack([torch.randint(0, s, (12,)) for s in SIZES], 1)
    together = render(levels)
    alone = torch.cat([render(row.unsqueeze(0)) for row in levels])
    assert torch.equal(together, alone)


def test_the_position_factors_move_the_centre() -> None:
    levels = torch.tensor([[0, 1, 0, 0, 3], [0, 1, 0, 7, 3], [0, 1, 0, 3, 0], [0, 1, 0, 3, 7]])
    x = render(levels)[:, 0].double()
    axis = torch.arange(32, dtype=torch.float64) + 0.5
    cx = (x.sum(1) * axis).sum(1) / x.sum((1, 2))
    cy = (x.sum(2) * axis).sum(1) / x.sum((1, 2))
    assert float(cx[1] - cx[0]) == pytest.approx(16, abs=0.5)
    assert float(cy[3] - cy[2]) == pytest.approx(16, abs=0.5)


@pytest.mark.parametrize("seed", range(3))
def test_no_image_is_in_two_of_its_three_sets(tmp_path: Path, seed: int) -> None:
    options = BuildOptions(seed=seed, cache=tmp_path, epochs=1, train_network=False)
    task = build("shapes", options, Silent())
    assert task.factors is not None
    train, test = (torch.cat([b.x for b in data.batches(500)]) for data in (task.train, task.test or task.train))
    images = torch.cat([train, test, task.factors.inputs]).flatten(1)
    assert len(images) == 6000
    assert len(torch.unique((images * 1e4).round(), dim=0)) == 6000


def test_more_images_than_combinations_are_refused_in_one_sentence(tmp_path: Path) -> None:
    options = BuildOptions(cache=tmp_path, train_size=4000, test_size=145)
    with pytest.raises(SettingsError, match="4,145 training and test images are asked for, and factors make 4,144"):
        build("shapes", options, Silent())


def test_the_task_comes_with_its_factors(tmp_path: Path) -> None:
    options = BuildOptions(cache=tmp_path, train_size=64, test_size=32, epochs=1)
    state = torch.get_rng_state()
    task = build("shapes", options, Silent())
    assert torch.equal(state, torch.get_rng_state())
    factors = task.factors
    assert factors is not None
    assert factors.render is not None
    assert (len(task.train), len(task.test or [])) == (64, 32)
    assert factors.names == NAMES
    assert factors.sizes == SIZES
    assert len(factors.values) == len(factors.inputs) == 2000
    assert torch.equal(factors.render(factors.values[:50]), factors.inputs[:50])
    for k, size in enumerate(SIZES):
        assert factors.values[:, k].unique().tolist() == list(range(size))
    y = task.train.labels()
    assert int(y.max()) < 12
    assert task.class_names is not None
    assert len(task.class_names) == 12
    again = build("shapes", options, Silent())
    noisy = build("shapes", replace(options, label_noise=0.25), Silent())
    assert torch.equal(again.train.batch([3]).x, task.train.batch([3]).x)
    assert int((noisy.train.labels() != y).sum()) == 16
    assert torch.equal((noisy.test or task.train).labels(), (task.test or task.train).labels())
