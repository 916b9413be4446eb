"""Lists of labels that are numbers, or several in each example: the audit's own reading, ranked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from memspace.auditing.reading import Reading
from memspace.errors import TaskError
from memspace.measurement import Measurement
from memspace.measures.declaration import measurement_of
from memspace.measures.outputs_judged import OutputsJudged
from memspace.measures.targets import Targets, outlier_share
from memspace.measures.workspace import Workspace
from memspace.measures.wrong_labels import noise
from memspace.value import Absent

__all__ = ["COLUMNS", "cannot_judge", "ranked", "sorted_rows"]

# The columns of a list by what is asked of a label, and the one that ranks it.
COLUMNS = {
    "p_outlier": ("index", "output", "value", "prediction", "standardised_residual", "p_outlier", "train_loss"),
    "p_wrong_label": ("index", "output", "label", "suggested_label", "p_wrong_label", "train_loss"),
}


def ranked(r: Reading, workspace: Workspace) -> tuple[dict[str, list[Any]], Measurement, str]:
    """Rank labels by how likely they are wrong.

    Args:
        r: the network, read.
        workspace: the values of an audit.

    Returns:
        the list, the share that looks wrong, and the estimator.

    Raises:
        TaskError: labels of this kind are not judged.
    """
    outputs = r.training
    index = r.task.train.numbers(torch.arange(outputs.n))
    targets = workspace.get(Targets)
    if not isinstance(targets, Absent):
        rows = {"index": index.tolist(), "train_loss": outputs.loss.tolist()} | targets.columns(outputs.y)
        return sorted_rows(rows, "p_outlier"), measurement_of(outlier_share, targets.share), targets.estimator
    several = workspace.get(OutputsJudged)
    if isinstance(several, Absent):
        raise cannot_judge(targets.reason or several.reason or _why(r))
    pairs = several.pairs()
    named: dict[str, list[Any]] = {"index": index[torch.tensor(pairs.pop("row"))].tolist()} | pairs
    columns = {name: named[name] for name in COLUMNS["p_wrong_label"]}
    return columns, measurement_of(noise, several.noise), several.estimator


def sorted_rows(columns: Mapping[str, Any], by: str) -> dict[str, list[Any]]:
    """Return rows with the largest of one column first, of the columns that there are.

    Args:
        columns: of a table.
        by: the column that ranks.

    Returns:
        columns of the list.
    """
    order = torch.tensor(columns[by], dtype=torch.float64).argsort(descending=True, stable=True).tolist()
    return {name: [columns[name][i] for i in order] for name in COLUMNS[by] if name in columns}


def cannot_judge(what: str) -> TaskError:
    """Return the error for labels that no rule judges.

    Args:
        what: why not.

    Returns:
        the error, to be raised.
    """
    return TaskError(
        f"labels cannot be judged one by one: {what}",
        where="label issues",
        remedy="pass labels that are one class, several 0 or 1, or numbers, for each example",
    )


def _why(r: Reading) -> str:
    """Why nothing is judged."""
    law, outputs = r.task.likelihood, r.training
    if outputs.sequence:
        return "each example has a label at several positions"
    if isinstance(r.left_out, Absent):
        return f"{outputs.f.shape[-1]:,} outputs per example are too many"
    if outputs.y.is_floating_point() and law.classifies:
        return "they are probabilities"
    return f"the output law is {law.name} with {outputs.f.shape[-1]:,} outputs"
