"""Scores of codes whose alignment is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memspace.measures.alignment import orthogonality
from memspace.measures.scores.dci import dci
from memspace.measures.scores.mig import mig
from memspace.measures.scores.repeated import one_more
from memspace.measures.scores.sap import sap

SIZES = (4, 5, 6)


@pytest.fixture(scope="module")
def levels() -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.stack([generator.integers(0, s, 1500) for s in SIZES], 1)


def _rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    return q


def _standard(z: np.ndarray) -> np.ndarray:
    return (z - z.mean(0)) / z.std(0)


def test_the_factors_themselves_are_disentangled(levels: np.ndarray) -> None:
    z = _standard(levels.astype(float))
    assert mig(z, levels) > 0.97
    disentangled, complete, informative = dci(z, levels)
    assert disentangled > 0.75
    assert complete > 0.75
    assert informative > 0.99
    assert sap(z, levels) > 0.25


def test_order_sign_and_scale_of_codes_do_not_matter(levels: np.ndarray) -> None:
    z = _standard(levels.astype(float))
    moved = z[:, [2, 0, 1]] * np.array([-1.0, 30.0, 0.01])
    assert mig(moved, levels) == pytest.approx(mig(z, levels), abs=0.02)
    assert dci(moved, levels)[0] > 0.75


def test_a_random_rotation_is_entangled(levels: np.ndarray) -> None:
    z = _standard(levels.astype(float))
    scores = [(mig(z @ _rotation(s), levels), dci(z @ _rotation(s), levels)[0]) for s in range(4)]
    assert np.mean([m for m, _ in scores]) < 0.5
    assert np.mean([d for _, d in scores]) < 0.6
    half = np.array([[1, 1, 0], [1, -1, 0], [0, 0, np.sqrt(2)]]) / np.sqrt(2)
    assert mig((z @ half)[:, :2], levels[:, :2]) < 0.1


def test_a_duplicated_code_has_no_gap(levels: np.ndarray) -> None:
    z = _standard(levels.astype(float))
    twice = np.concatenate([z, z], 1)
    assert mig(twice, levels) == pytest.approx(0, abs=1e-12)
    assert sap(twice, levels) == pytest.approx(0, abs=1e-12)
    assert dci(twice, levels)[0] > 0.8  # each copy still stands for one factor only


def test_noise_scores_next_to_nothing(levels: np.ndarray) -> None:
    z = np.random.default_rng(1).standard_normal((len(levels), 3))
    disentangled, complete, informative = dci(z, levels)
    assert mig(z, levels) < 0.03
    assert disentangled < 0.1
    assert complete < 0.1
    assert informative < 0.3
    assert abs(sap(z, levels)) < 0.08


def test_a_constant_factor_is_left_out_of_mig(levels: np.ndarray) -> None:
    z = _standard(levels.astype(float))
    fixed = levels.copy()
    fixed[:, 1] = 2
    assert mig(z, fixed) > 0.97


def test_orthogonality_of_known_directions() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    assert orthogonality(eye[None]).tolist() == [1.0]
    same = torch.tensor([[1.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    opposite = torch.tensor([[1.0, 1.0], [-0.1, -0.1]], dtype=torch.float64)
    slanted = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    got = orthogonality(torch.stack([same, opposite, slanted]))
    assert got.tolist() == pytest.approx([0, 0, 1 - 0.5**0.5], abs=1e-12)


def test_zero_directions_are_left_out() -> None:
    d = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    d[0, 2] = 0
    d[1, 1:] = 0
    got = orthogonality(d)
    assert got[0] == 1
    assert bool(torch.isnan(got[1]))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(1, 6), st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_orthogonality_is_bounded_and_free_of_scale_and_rotation(k: int, d: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(4, k, d, generator=generator, dtype=torch.float64)
    o = orthogonality(v)
    assert bool(((o >= -1e-9) & (o <= 1 + 1e-9)).all())
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    assert torch.allclose(orthogonality(scale * v @ q), o, atol=1e-9)
    if d == 1:
        assert torch.allclose(o, torch.zeros(4, dtype=torch.float64), atol=1e-9)


def test_constant_codes_are_not_complete(levels: np.ndarray) -> None:
    """They tell nothing of any factor: completeness is not 1 but unknown; beside good codes one is idle."""
    disentangled, complete, _ = dci(np.ones((len(levels), 4)), levels)
    assert np.isnan(disentangled)
    assert np.isnan(complete)
    good = _standard(levels.astype(float))
    padded = np.concatenate([good, np.zeros((len(levels), 1))], 1)
    assert dci(padded, levels)[1] > 0.95


@pytest.mark.parametrize("count", [3, 5, 10])
def test_the_null_covers_one_more_rotation(count: int) -> None:
    """By Student's t, the mean's own error included; 1.96 spreads covered 0.85 at five rotations."""
    g = np.random.default_rng(count)
    draws = g.beta(40, 160, (3000, count + 1))
    held = [low <= d[-1] <= high for d in draws for low, high in [one_more(d[:-1])]]
    assert np.mean(held) == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 3000) ** 0.5)
