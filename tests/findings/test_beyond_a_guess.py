"""Leave-one-out to first order, where it is worse than guessing."""

import math

import pytest
import torch

from memspace.measures.expected import beyond_a_guess
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian


@pytest.mark.parametrize(("share", "told"), [(0.98, False), (1.02, True)])
def test_what_a_sequence_model_expects_is_held_against_a_uniform_guess_at_its_counted_positions(share, told):
    g = torch.Generator().manual_seed(0)
    f, y = torch.randn(5, 7, 11, generator=g), torch.randint(11, (5, 7), generator=g)
    y[:, 4:] = -100
    loss = torch.full((5,), share * 4 * math.log(11), dtype=torch.float64)
    assert bool(beyond_a_guess(Categorical(), f, y, loss, None)) == told
    assert beyond_a_guess(Categorical(), f, y, loss, f) == ""  # outputs themselves, no first order


def test_several_labels_are_held_against_a_coin_for_each_and_numbers_against_nothing():
    f, y = torch.zeros(4, 3), torch.ones(4, 3)
    assert beyond_a_guess(Bernoulli(), f, y, torch.full((4,), 3.1 * math.log(2)), None)
    assert not beyond_a_guess(Bernoulli(), f, y, torch.full((4,), 2.9 * math.log(2)), None)
    assert not beyond_a_guess(Gaussian(1.0), f, y, torch.full((4,), 1e6), None)
