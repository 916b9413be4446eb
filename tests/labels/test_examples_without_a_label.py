"""Examples without a label (-100) are left out, and every table counts examples as the user does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import memspace
from memspace.errors import DataError


def test_tables_and_questions_count_examples_as_the_user_does() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(24, 4), torch.arange(24) % 3
    x[20], y[20] = x[11], y[11]
    y[[2, 5, 6]] = -100
    model = nn.Linear(4, 3)
    task = memspace.Task(model, (x, y))
    labelled = (y != -100).nonzero().flatten().tolist()
    results = memspace.audit(model, (x, y))
    assert results.tables["examples"]["index"] == labelled
    assert results.tables["examples"]["label"] == y[labelled].tolist()
    assert set(results.tables["influence"]["train_index"]) <= set(labelled)
    loo = memspace.leave_one_out(task)
    assert loo.table["index"] == labelled
    pairs = memspace.duplicates(task).table
    exact = {(a, b) for kind, a, b in zip(pairs["kind"], pairs["train_index"], pairs["other_index"], strict=True)
             if kind == "exact"}  # fmt: skip
    assert exact in ({(11, 20)}, {(20, 11)})
    asked = memspace.influence(task, [3, 11], engine="dual")
    assert asked.scores.shape == (2, len(labelled))
    plain = memspace.influence(memspace.Task(model, (x[labelled], y[labelled])), [2, 8], engine="dual")
    torch.testing.assert_close(asked.scores, plain.scores)
    with pytest.raises(DataError, match="example 5"):
        memspace.influence(task, [5])
