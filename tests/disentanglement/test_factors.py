"""Generating factors that do not fit are named when they are given; few inputs are not enough for a score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from memspace import Factors, Task
from memspace.errors import DataError
from memspace.measures.disentanglement import disentangle
from memspace.progress import Silent

G = torch.Generator().manual_seed(0)
LEVELS = torch.stack([torch.randint(0, s, (120,), generator=G) for s in (4, 3, 2)], 1)
INPUTS = LEVELS.float() @ torch.randn(3, 6, generator=G) + 0.05 * torch.randn(120, 6, generator=G)
NAMES, SIZES = ("a", "b", "c"), (4, 3, 2)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((NAMES[:2], LEVELS, INPUTS, SIZES), r"shape \(120, 3\) for 2 names and 3 sizes"),
        ((NAMES, LEVELS, INPUTS, SIZES[:1]), "3 names and 1 sizes"),
        ((NAMES, LEVELS[:, 0], INPUTS, SIZES), r"shape \(120,\)"),
        ((NAMES, LEVELS, INPUTS[:100], SIZES), "100 inputs and levels of 120"),
        ((NAMES, LEVELS[:0], INPUTS[:0], SIZES), "levels of 0"),
        ((NAMES, LEVELS + 0.3, INPUTS, SIZES), "the factor 'a' are not whole numbers"),
        ((NAMES, LEVELS * float("nan"), INPUTS, SIZES), "'a' are not whole numbers"),
        ((NAMES, LEVELS, INPUTS, (2, 3, 2)), "the factor 'a' takes 4 levels, but its size is given as 2"),
        ((NAMES, "levels", INPUTS, SIZES), "values are a str"),
    ],
)
def test_factors_that_do_not_fit_are_named(given, says) -> None:
    with pytest.raises(DataError, match=says):
        Factors(*given)


def test_arrays_whole_floats_and_other_first_levels_are_read() -> None:
    plain = Factors(NAMES, LEVELS, INPUTS, SIZES)
    other = Factors(list(NAMES), (LEVELS + 1).numpy().astype(np.float32), INPUTS.numpy(), list(SIZES))
    assert torch.equal(other.values, plain.values + 1)
    assert other.values.dtype == torch.long
    assert other.names == NAMES


@pytest.mark.parametrize(("count", "enough"), [(20, False), (120, True)])
def test_scores_of_few_inputs_are_not_to_be_trusted(count, enough) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    factors = Factors(NAMES, LEVELS[:count], INPUTS[:count], SIZES)
    found = disentangle(Task(model, (INPUTS, LEVELS[:, 0]), factors=factors), seed=0, progress=Silent())
    assert found.measurements
    for m in found.measurements:
        assert m.reliable == enough, m.name
    if not enough:
        assert "made of 20 inputs" in found.measurements[0].note
