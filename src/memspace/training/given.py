"""What many trainings at once are given: examples, seeds and which examples each network sees, checked at the door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from memspace.errors import DataError, LabelError
from memspace.limits import DRAW
from memspace.task.data import Inputs, as_labels
from memspace.task.likelihood import Likelihood
from memspace.task.tensors import as_batch, leaves

__all__ = ["check_labels", "check_networks", "examples_of", "seeds_of"]

WHERE = "train_many"


def examples_of(x: Any, y: Any) -> tuple[Inputs, Tensor]:
    """Turn inputs and labels into tensors; NumPy arrays and tables become tensors.

    Args:
        x: inputs, one row a label.
        y: labels.

    Returns:
        Inputs and labels.

    Raises:
        DataError: the inputs hold no numbers, or not one row for each label.
        LabelError: the labels are no numbers.
    """
    labels = as_labels(y)
    if not isinstance(labels, Tensor) or not labels.dim():
        raise LabelError("the labels are no tensor of numbers", where=WHERE, remedy="give one label per example")
    inputs = as_batch(x, WHERE)
    rows = [len(t) if t.dim() else 0 for t in leaves(inputs)]
    if not rows or set(rows) != {len(labels)} or not len(labels):
        what = f"inputs with {' and '.join(f'{r:,}' for r in dict.fromkeys(rows))} rows" if rows else "no inputs"
        raise DataError(
            f"there are {what} and {len(labels):,} labels",
            where=WHERE,
            remedy="give x as a tensor, or a tuple or dict of tensors, with one row for each label",
        )
    return inputs, labels


def seeds_of(seeds: Sequence[int]) -> list[int]:
    """Turn seeds into whole numbers.

    Args:
        seeds: one a network.

    Returns:
        The same, checked.

    Raises:
        SettingsError: one of them is none, or out of range.
    """
    return [DRAW(s, "seeds", WHERE) for s in seeds]


def check_labels(likelihood: Likelihood, f: Tensor, y: Tensor) -> None:
    """Refuse labels that are not the law's.

    Args:
        likelihood: the output law.
        f: outputs (1, ..., C) of one example.
        y: all labels (N, ...).

    Raises:
        LabelError: they are not the law's.
    """
    likelihood.check(f.expand(len(y), *f.shape[1:]), y.to(f.device), WHERE)


def check_networks(n: int, seeds: Sequence[int], weights: Any, index: Any) -> None:
    """Refuse examples of networks that are not what is documented.

    Args:
        n: number of training examples.
        seeds: one a network.
        weights: (M, n) of the examples, or None.
        index: (M, m) each network's examples, or None.

    Raises:
        DataError: shapes, types or ranges do not fit.
    """
    fault = None
    if not len(seeds):
        fault = "no seeds are given"
    elif weights is not None and index is not None:
        fault = "both weights and index are given"
    elif weights is not None and not isinstance(weights, Tensor):
        fault = f"weights are a {type(weights).__name__}, not a tensor"
    elif index is not None and not isinstance(index, Tensor):
        fault = f"index is a {type(index).__name__}, not a tensor"
    elif weights is not None and weights.shape != (len(seeds), n):
        fault = f"weights are of shape {tuple(weights.shape)}, not ({len(seeds)}, {n})"
    elif weights is not None and not bool(torch.isfinite(weights).all()):
        fault = "weights are not finite"
    elif index is not None and (index.dim() != 2 or len(index) != len(seeds) or index.shape[1] == 0):
        fault = f"index is of shape {tuple(index.shape)}, not ({len(seeds)}, examples of each network)"
    elif index is not None and (index.dtype != torch.long or int(index.min()) < 0 or int(index.max()) >= n):
        fault = f"index does not hold integers from 0 to {n - 1}"
    if fault is not None:
        raise DataError(fault, where=WHERE, remedy="give one row per seed, over the training examples")
