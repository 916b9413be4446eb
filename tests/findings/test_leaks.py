"""Copies of training examples among the test examples come first, and the test numbers are given without them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import memspace
from memspace.task.builtin.train import fit

RECIPE = memspace.Recipe(epochs=150, batch=None, rate=0.05, decay=0.0)


def _overlapping(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    return 0.7 * (2.0 * y[:, None] - 1) + torch.randn(n, 6, generator=generator), y


def _audit(copies: int, fresh: int, seed: int = 0) -> memspace.Results:
    x, y = _overlapping(seed, 60)
    model = fit(
        lambda: nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 2)), x, y, RECIPE, seed=seed, record=False
    ).model
    tx, ty = _overlapping(seed + 5, max(fresh, 1))
    test = torch.cat([x[:copies], tx[:fresh]]), torch.cat([y[:copies], ty[:fresh]])
    return memspace.audit(model, (x, y), test)


def test_leaked_examples_come_first_and_accuracy_is_given_without_them():
    results = _audit(copies=22, fresh=38)
    assert results.measurement("duplicates.leaked_share").value == pytest.approx(22 / 60)
    without = results.measurement("generalisation.test_accuracy_without_copies")
    whole = results.measurement("generalisation.test_accuracy")
    # The copies are all right (the network fits its training data), so without them accuracy is lower.
    assert without.n == 38
    assert whole.value * 60 == pytest.approx(22 + without.value * 38, abs=1e-6)
    first = [f for c in results.chapters for f in c.findings if f.first]
    assert [f.title for f in first] == ["22 of 60 test examples are copies of training examples"]
    assert first[0].level == "bad"


def test_without_copies_nothing_is_said_of_them():
    results = _audit(copies=0, fresh=30)
    assert results.measurement("duplicates.leaked_share").value == 0
    titles = [f.title for c in results.chapters for f in c.findings]
    assert not any("copies" in t or "copy" in t for t in titles)


def test_test_data_that_are_training_data_leave_nothing_to_test_on():
    results = _audit(copies=25, fresh=0)
    with pytest.raises(KeyError):
        results.measurement("generalisation.test_loss_without_copies")
    names = {u.name for c in results.chapters for u in c.unmeasured}
    assert "generalisation.test_loss_without_copies" in names


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_near_pairs_that_chance_gives_are_no_finding(seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(400, 5, generator=generator), torch.arange(400) % 2
    torch.manual_seed(seed)
    results = memspace.audit(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)), (x, y))
    near, beyond = (results.measurement(f"duplicates.near.train{end}") for end in ("", ".beyond_chance"))
    spoken = any("alike" in f.title for c in results.chapters for f in c.findings)
    assert spoken == (beyond.interval[0] > 0)
    assert near.value < 5  # 0.4 are expected
    assert not spoken


def test_near_pairs_beyond_chance_are_told():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(300, 5, generator=generator)
    x = torch.cat([x, x[:8] + 1e-4 * torch.randn(8, 5, generator=generator)])
    y = torch.cat([torch.arange(300) % 2, torch.arange(8) % 2])
    torch.manual_seed(3)
    results = memspace.audit(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)), (x, y))
    assert results.measurement("duplicates.near.train.beyond_chance").interval[0] > 2
    assert any("pairs of training examples look alike" in f.title for c in results.chapters for f in c.findings)
