"""Lists of labels that are numbers, or several in each example: the audit's own reading, ranked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from memspace.auditing.outputs_judged import judge_outputs
from memspace.auditing.reading import Reading
from memspace.auditing.targets import judge_targets
from memspace.errors import TaskError
from memspace.measurement import Measurement

__all__ = ["COLUMNS", "cannot_judge", "ranked", "sorted_rows"]

# The columns of a list by what is asked of a label, and the one that ranks it.
COLUMNS = {
    "p_outlier": ("index", "output", "value", "prediction", "standardised_residual", "p_outlier", "train_loss"),
    "p_wrong_label": ("index", "output", "label", "suggested_label", "p_wrong_label", "train_loss"),
}


def ranked(r: Reading, seed: int) -> tuple[dict[str, list[Any]], Measurement, str]:
    """The list, the share that looks wrong, and by whom it was judged.

    Raises:
        TaskError: labels of this kind are not judged.
    """
    index = r.task.train.numbers(torch.arange(r.n))
    targets = judge_targets(r, seed)
    if targets is not None:
        rows = {"index": index.tolist(), "train_loss": r.loss.tolist()} | targets.columns(r)
        return sorted_rows(rows, "p_outlier"), targets.share, targets.estimator
    found = judge_outputs(r, seed)
    if found is None:
        raise cannot_judge(_why(r))
    pairs = found.pairs()
    named: dict[str, list[Any]] = {"index": index[torch.tensor(pairs.pop("row"))].tolist()} | pairs
    return {name: named[name] for name in COLUMNS["p_wrong_label"]}, found.noise, found.estimator


def sorted_rows(columns: Mapping[str, Any], by: str) -> dict[str, list[Any]]:
    """Rows with the largest of ``by`` first, of the columns that there are."""
    order = torch.tensor(columns[by], dtype=torch.float64).argsort(descending=True, stable=True).tolist()
    return {name: [columns[name][i] for i in order] for name in COLUMNS[by] if name in columns}


def cannot_judge(what: str) -> TaskError:
    """The error for labels that no rule judges."""
    return TaskError(
        f"labels cannot be judged one by one: {what}",
        where="label issues",
        remedy="hand over labels that are one class, several 0 or 1, or numbers, for each example",
    )


def _why(r: Reading) -> str:
    y: Tensor = r.y
    if r.sequence:
        return "each example has a label at several positions"
    if r.loo_f is None:
        return f"{r.f.shape[-1]:,} outputs per example are too many"
    if y.is_floating_point() and r.task.likelihood.classifies:
        return "they are probabilities"
    return f"the output law is {r.task.likelihood.name} with {r.f.shape[-1]:,} outputs"
