"""Which outcomes are asked about: the query data, the examples of it, and the gradients of their outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.attribution.target import Target
from memspace.errors import DataError, MemoryBudgetError, TaskError
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.scores import OutcomeGradients
from memspace.passes.space import ParameterSpace
from memspace.positions import as_positions
from memspace.progress import Progress
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["Asked", "Queries", "ask", "queries_of"]

AT_ONCE = 2**25  # numbers in the gradients that are formed at a time
Queries = Sequence[int] | Tensor | Data | None


@dataclass(frozen=True)
class Asked:
    """Gradients of outcomes.

    Args:
        gradients: (Q, P).
        outcome: (Q,).
        queries: (Q,) positions in the query data.
        positions: (Q,) within the sequence where each is an outcome of its own.
    """

    gradients: Tensor
    outcome: Tensor
    queries: Tensor
    positions: Tensor | None


def queries_of(task: Task, queries: Queries) -> tuple[Data, Tensor]:
    """Read which examples are asked about.

    Args:
        task: with its data.
        queries: positions in the test data, or in the training data where there are none; other data; None: all.

    Returns:
        the query data, and positions in them.

    Raises:
        DataError: none, or one that is out of range or not a whole number.
    """
    if isinstance(queries, Data):
        return queries, torch.arange(len(queries))
    data = task.test if task.test is not None else task.train
    if queries is None:
        return data, torch.arange(len(data))
    index = as_positions(queries, "queries", "give positions in the data, for example [17, 4]")
    if index.numel() == 0:
        raise DataError("no query was given", where="queries", remedy="name at least one example")
    index = data.places(index)
    bad = index[(index < 0) | (index >= len(data))]
    if len(bad):
        raise DataError(
            f"there is no example {int(bad[0])}",
            where="queries",
            remedy=f"the {data.name} hold {len(data):,} examples, from 0 to {len(data) - 1}",
        )
    return data, index.long().cpu()


def ask(
    task: Task,
    space: ParameterSpace,
    target: Target,
    data: Data,
    index: Tensor,
    *,
    apart: bool = False,
    memory: int = 4 * 2**30,
    progress: Progress | None = None,
) -> Asked:
    """Compute the gradients of the outcomes of examples.

    Args:
        task: the network and its law.
        space: its parameters.
        target: the outcome.
        data: the query data.
        index: positions of the examples.
        apart: every position of a sequence is an outcome of its own; padded ones are left out.
        memory: bytes for the gradients.
        progress: told of every batch.

    Returns:
        the gradients (Q, P), in the outcome's unit.

    Raises:
        TaskError: positions are asked for of a network without, or of an outcome about the whole sequence.
        MemoryBudgetError: their gradients do not fit.
    """
    law, bytes_each = task.likelihood, 16 * space.size
    if bytes_each * len(index) > memory:
        raise MemoryBudgetError(
            f"the gradients of {len(index):,} outcomes in {space.size:,} parameters need "
            f"{bytes_each * len(index) / 2**30:.2g} GiB",
            where="memory budget",
            remedy=f"allow more, or ask fewer queries at a time (at most {memory // bytes_each:,})",
        )
    table = OutcomeGradients(space.blocks, lambda f, y: target.cotangent(law, f, y), apart)
    most = max(1, AT_ONCE // space.size)
    run_pass(
        task,
        space,
        [table],
        PassOptions(data=data, index=index, most=most, progress=progress, what="gradients of outcomes"),
    )
    columns = table.finish()
    f, y = columns["f"], columns["y"]
    by_position = target.by_position(law, f, y).detach()
    if not apart:
        return Asked(columns["gradients"], target.value(law, f, y).detach(), index, None)
    if f.dim() == 2 or by_position.dim() == 1:
        raise TaskError(
            "outcomes by position need a network with positions and a target that gives one number for each",
            where=f"outputs of shape {tuple(f.shape)}, target {target.name}",
            remedy="ask about whole examples",
        )
    weight = law.weight(f, y).flatten(1) > 0
    t = weight.shape[1]
    keep = weight.flatten().cpu()
    return Asked(
        columns["gradients"][keep.to(f.device)],
        by_position.flatten()[keep.to(f.device)],
        index.repeat_interleave(t)[keep],
        torch.arange(t).repeat(len(index))[keep],
    )
