"""Small tables as pandas users have them: columns of several kinds, labels as strings, rows in some order."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import memspace
from memspace import Task
from memspace.errors import DataError, MemspaceError

N = 30


def table(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, N).astype("int8"),
            "member": rng.random(N) > 0.5,
            "score": rng.normal(size=N).astype("float32"),
            "label": np.array(["low", "mid", "high"])[np.arange(N) % 3],
        }
    )


def task(x, y) -> Task:
    torch.manual_seed(0)
    return Task(nn.Linear(3, 3), (x, y))


@pytest.mark.parametrize(
    "labels",
    [
        lambda t: t["label"],
        lambda t: t[["label"]],
        lambda t: t["label"].values,
        lambda t: t["label"].to_numpy(dtype=object),
        lambda t: t["label"].astype("category"),
        lambda t: t["label"].tolist(),
        lambda t: pd.Index(t["label"]),
    ],
    ids=["column", "frame", "values", "objects", "category", "list", "index"],
)
def test_string_labels_come_in_every_container(labels) -> None:
    t = table()
    made = task(t.drop(columns="label"), labels(t))
    assert made.class_names == ("high", "low", "mid")
    assert made.train.labels().tolist() == [["high", "low", "mid"].index(v) for v in t["label"]]


@pytest.mark.parametrize("inputs", [lambda x: x, lambda x: x.values, lambda x: x.to_numpy(dtype=object)])
def test_columns_of_several_kinds_are_numbers(inputs) -> None:
    t = table(1)
    x = t.drop(columns="label")
    made = task(inputs(x), t["label"])
    torch.testing.assert_close(made.train.batch(range(N)).x, torch.tensor(x.astype("float32").to_numpy()))


def test_rows_in_another_order_than_their_labels_are_refused() -> None:
    t = table(2)
    x, y = t.drop(columns="label").sample(frac=1, random_state=1), t["label"]
    with pytest.raises(DataError, match="same rows in different orders"):
        task(x, y)
    made = task(x, y.loc[x.index])
    assert made.class_names == ("high", "low", "mid")
    assert len(task(x.reset_index(drop=True), y.loc[x.index].reset_index(drop=True)).train) == N
    assert len(task(x.set_index(x.index + 100), y).train) == N
    assert len(task(x, y.to_numpy()).train) == N


@pytest.mark.parametrize("given", [lambda t: t, lambda t: (t, t["label"]), lambda t: (t["label"], t["label"])])
def test_a_table_with_its_labels_among_the_inputs_is_refused_in_a_sentence(given) -> None:
    with pytest.raises(MemspaceError) as said:
        memspace.audit(nn.Linear(3, 3), given(table()))
    assert "\n" not in str(said.value)
