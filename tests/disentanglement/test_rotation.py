"""Rotating an isotropic latent: every Fisher angle stays, scores of single units fall, and an aligned DCI recovers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from memspace.measures.rotation import (
    aligned_dci,
    aligned_rotation,
    rotated_encoder,
    rotation_intervention,
)
from memspace.measures.scores.dci import dci
from memspace.measures.scores.score import ScoreSettings

NAMES, SIZES = ("a", "b", "c"), (4, 3, 5)


def levels(count: int = 600, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(0, s, (count,), generator=g) for s in SIZES], 1).double()


def plain(v: Tensor) -> Tensor:
    return v


def isotropic(x: Tensor) -> tuple[Tensor, Tensor]:
    """Factors bent and of unit variance, and a variance that moves with them: the same in all dimensions."""
    middle = (torch.tensor(SIZES) - 1) / 2
    mean = (x - middle) / torch.tensor([1.1, 0.8, 1.4]) + 0.05 * ((x - middle) ** 2 - 1)
    return mean, (0.2 * torch.exp(0.1 * x.sum(1, keepdim=True))).expand(-1, 3)


def rotation(seed: int, d: int = 3) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    return q


def test_angles_stay_and_scores_fall() -> None:
    got = rotation_intervention(isotropic, plain, levels(), NAMES, (0, 1, 2), rotations=3)
    assert got.change < 1e-10
    assert got.isotropic == pytest.approx(1)
    assert got.before["mig"] > 0.9
    assert got.before["sap"] > 0.2
    for name in ("mig", "dci", "sap"):
        assert got.after[name].value < 0.6 * got.before[name], name
        assert got.after[name].interval is not None


def test_angles_stay_whatever_the_posterior_but_it_is_no_longer_diagonal() -> None:
    def uneven(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.stack([x[:, 0] + x[:, 1], x[:, 1], x[:, 2]], 1)
        return mean, x[:, :3] + torch.tensor([1.0, 2.0, 3.0])

    got = rotation_intervention(uneven, plain, levels(60), NAMES, (0, 1, 2), rotations=2)
    assert got.change < 1e-9
    assert got.isotropic > 2
    _, covariance = rotated_encoder(uneven, torch.from_numpy(rotation(0)))(levels(5))
    assert float((covariance - torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))).abs().max()) > 0.1


@pytest.mark.parametrize("seed", range(2))
def test_an_aligned_dci_recovers_a_rotated_code(seed: int) -> None:
    v = levels(1200, seed).numpy().astype(np.int64)
    z = (v - v.mean(0)) / v.std(0)
    z = np.concatenate([z, 0.5 * np.random.default_rng(seed).standard_normal((len(z), 1))], 1)
    straight = dci(z[1::2], v[1::2], ScoreSettings(seed=seed))[0]
    got = aligned_dci(z @ rotation(seed + 5, 4), v, seed)
    assert got.unrotated < 0.7 * straight
    assert got.disentanglement > 0.9 * straight
    assert np.allclose(got.rotation.T @ got.rotation, np.eye(4), atol=1e-9)
    assert got.n == 600


def test_a_code_that_is_aligned_stays_so_and_noise_gains_little() -> None:
    v = levels(1200).numpy().astype(np.int64)
    z = (v - v.mean(0)) / v.std(0)
    q = aligned_rotation(z, v)
    assert np.allclose(np.abs(q).max(0), 1, atol=0.02)
    noise = np.random.default_rng(0).standard_normal((1200, 4))
    got = aligned_dci(noise, v)
    assert got.disentanglement < got.unrotated + 0.1  # chosen on other samples, so the search finds nothing
