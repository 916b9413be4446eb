"""Rendered shapes for a zoo: known factors, disjoint halves, the same images each time."""

from __future__ import annotations

import torch

from memspace.task.builtin.shapes import SIZES
from memspace.zoo.datasets.shapes import NOISE, drawn, levels
from memspace.zoo.registry import dataset_named

read = dataset_named("shapes")


def test_no_combination_of_factors_and_no_image_is_in_both_halves() -> None:
    train, test = levels()
    rows = [tuple(v) for v in torch.cat([train, test]).tolist()]
    assert len(set(rows)) == len(rows)
    # Two combinations differ by more than the noise: their clean images are no copies either.
    distance = torch.cdist(drawn(test).flatten(1), drawn(train).flatten(1))
    assert float(distance.min()) > 0.1


def test_labels_are_shape_and_scale_of_the_stated_factors() -> None:
    data, (train, test) = read(None), levels()
    assert data.factors is not None
    torch.testing.assert_close(data.factors.values, test)
    assert torch.equal(data.factors.inputs, data.x_test)
    for y, values in ((data.y, train), (data.y_test, test)):
        assert torch.equal(y // SIZES[1], values[:, 0])
        assert torch.equal(y % SIZES[1], values[:, 1])
    assert torch.bincount(data.y, minlength=data.outputs).min() > 100
    for column, size in zip(test.t(), SIZES, strict=True):
        assert len(column.unique()) == size


def test_images_are_those_of_the_renderer_with_noise_and_the_same_each_time() -> None:
    first, again = read(None), read(None)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.x_test, again.x_test)
    assert first.factors is not None
    assert first.factors.render is not None
    noise = first.x_test - first.factors.render(first.factors.values)
    # Standard error of a standard deviation of n numbers: σ/√(2n).
    assert abs(float(noise.std()) - NOISE) < 5 * NOISE / (2 * noise.numel()) ** 0.5
