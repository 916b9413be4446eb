"""“Why this prediction?” explains what is predicted, not what the label says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import memspace
from memspace.auditing.queries import explained
from memspace.task.builtin.train import fit


def _three_classes(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    centres = 4 * torch.tensor([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]])
    return centres[y] + torch.randn(n, 2, generator=generator), y


@pytest.mark.parametrize("representation", ["dual", "ekfac"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_supporters_of_a_wrong_prediction_are_of_the_predicted_class(representation, seed):
    x, y = _three_classes(seed, 90)
    recipe = memspace.Recipe(epochs=60, batch=30, rate=0.02, decay=1e-3)
    model = fit(lambda: nn.Linear(2, 3), x, y, recipe, seed=seed, record=False).model
    tx, ty = _three_classes(seed + 7, 30)
    predicted = model(tx).argmax(-1)
    given = (ty + 1) % 3  # every test label is wrong: no example's label is what is predicted
    settings = memspace.Settings(representation=representation, queries=(0, 1, 2))
    influence = memspace.audit(model, (x, y), (tx, given), settings=settings, decay=1e-3).tables["influence"]
    for q in (0, 1, 2):
        top = [i for query, i, rank in zip(influence["query"], influence["train_index"], influence["rank"], strict=True)
               if query == q and 1 <= rank <= 3]  # fmt: skip
        assert [int(y[i]) for i in top] == [int(predicted[q])] * 3


def test_positions_that_do_not_count_and_laws_without_classes_keep_their_labels():
    model = nn.Linear(2, 3)
    data = (torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
    f, y = torch.randn(2, 5, 3), torch.tensor([[0, 1, 2, -100, -100]] * 2)
    task = memspace.Task(model, data)
    seen = explained(task, f, y)
    assert torch.equal(seen[:, 3:], y[:, 3:])
    assert torch.equal(seen[:, :3], f.argmax(-1)[:, :3])
    regression = memspace.Task(model, (data[0], torch.zeros(4, 3)), memspace.Gaussian())
    targets = torch.randn(4, 3)
    assert explained(regression, torch.randn(4, 3), targets) is targets
