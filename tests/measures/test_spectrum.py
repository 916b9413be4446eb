"""Readings of known spectra."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memspace.measures.complexity import information_bits, spectrum_summary
from memspace.metric.spectral import Dense


@pytest.mark.parametrize("rank", [1, 3, 40])
def test_a_flat_spectrum_has_its_rank(rank: int) -> None:
    s = spectrum_summary(torch.full((rank,), 0.5), 100)
    assert s.largest == 0.5
    assert s.trace == pytest.approx(0.5 * rank)
    assert s.effective_rank == pytest.approx(rank)
    assert s.participation == pytest.approx(rank)
    assert s.flat == pytest.approx(1 - rank / 100)


def test_a_geometric_spectrum() -> None:
    s = spectrum_summary(0.5 ** torch.arange(60, dtype=torch.float64), 60)
    assert s.trace == pytest.approx(2.0)
    assert s.effective_rank == pytest.approx(math.exp(2 * math.log(2)), rel=1e-6)
    assert s.participation == pytest.approx(4 / (4 / 3), rel=1e-6)
    assert s.flat == pytest.approx(1 - 20 / 60)  # 2^-19 is the last above 1e-6


def test_empty_zero_and_slightly_negative_spectra() -> None:
    for values in (torch.zeros(0), torch.zeros(5), torch.full((3,), -1e-12)):
        s = spectrum_summary(values, 7)
        assert (s.largest, s.trace, s.effective_rank, s.participation, s.flat) == (0, 0, 0, 0, 1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30), st.floats(1e-3, 1e3))
def test_ranks_are_bounded_and_free_of_scale(values: list[float], scale: float) -> None:
    v = torch.tensor(values, dtype=torch.float64)
    a, b = spectrum_summary(v, 50), spectrum_summary(v * scale, 50)
    assert 1 - 1e-9 <= a.participation <= a.effective_rank * (1 + 1e-9) <= len(values) * (1 + 1e-9)
    assert b.effective_rank == pytest.approx(a.effective_rank, rel=1e-6)
    assert b.participation == pytest.approx(a.participation, rel=1e-6)
    assert 0 <= a.flat <= 1


def test_information_of_known_eigenvalues() -> None:
    metric = Dense.of(torch.diag(torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)), "exact")
    assert information_bits(metric, 1.0) == pytest.approx(0.5 * (2 + 1 + 0))
