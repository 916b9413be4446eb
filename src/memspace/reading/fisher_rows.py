"""The Fisher rows of some training examples as dense vectors in double precision, chunk by chunk."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace.passes.collect import CollectRows
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.kinds import Kind
from memspace.passes.profile import profile_of
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.task.task import Task

__all__ = ["RowPlan", "doubled", "formed_rows", "plan_rows"]

WIDEST = 64  # outputs of an example of which each gets a row of its own; beyond, labels are sampled
SAMPLED = 4  # labels drawn per example then
CHUNK = 2**23  # numbers of the dense rows made at a time


@dataclass(frozen=True)
class RowPlan:
    """Which examples are read, and by which rows.

    Args:
        index: (n,) positions in the training data, ascending.
        of: N, the number of training examples.
        kind: of the cotangents: ``exact``, or sampled labels where there are many outputs.
        per_example: rows of an example, K.
    """

    index: Tensor
    of: int
    kind: str
    per_example: int

    @property
    def n(self) -> int:
        """Number of examples read."""
        return len(self.index)

    @property
    def whole(self) -> bool:
        """Whether the rows are those of all training examples, and nothing was drawn."""
        return self.n == self.of and self.kind == "exact"

    @property
    def words(self) -> str:
        """Say what was read, for people."""
        examples = f"all {self.of:,}" if self.n == self.of else f"{self.n:,} of {self.of:,}"
        labels = "" if self.kind == "exact" else f", {self.per_example} labels drawn for each"
        return f"{examples} training examples{labels}"


def doubled(task: Task) -> Task:
    """Copy a task with its network in double precision.

    Args:
        task: stays as it is.

    Returns:
        the same task around a copy of the network.
    """
    return replace(task, model=copy.deepcopy(task.model).double())


def plan_rows(task: Task, most: int, seed: int) -> RowPlan:
    """Choose the examples whose Fisher rows are read.

    Args:
        task: the network and its data.
        most: rows at most.
        seed: of the choice.

    Returns:
        all examples where their rows fit, else a random sample of two or more.
    """
    profile, total = profile_of(task), len(task.train)
    outputs = profile.positions * profile.shape[-1]
    kind, rows = ("exact", outputs) if outputs <= WIDEST else (str(Kind("mc", SAMPLED)), SAMPLED)
    count = min(total, max(2, most // max(1, rows)))
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(seed + 61))[:count]
    return RowPlan(drawn.sort().values, total, kind, rows)


def formed_rows(
    task: Task, space: ParameterSpace, plan: RowPlan, progress: Progress | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Compute the Fisher rows, some examples at a time: F = (1/n) Σ_r row_r row_rᵀ.

    Args:
        task: the network and its data, in double precision where the rows are to be exact.
        space: the parameters.
        plan: which rows.
        progress: notified of every batch; None: silent.

    Yields:
        rows (r, P), float64, and the place (r,) of each row's example among those read.
    """
    step = max(1, CHUNK // max(1, plan.per_example * space.size))
    for start in range(0, plan.n, step):
        index = plan.index[start : start + step]
        collected = CollectRows(space.blocks, plan.kind, len(index))
        options = PassOptions(index=index, seed=start, progress=progress, what="Fisher rows")
        run_pass(task, space, [collected], options)
        rows = collected.finish()
        dense = torch.zeros(len(rows), space.size, dtype=torch.float64, device=rows.example.device)
        for block in space.blocks:
            dense[:, block.start : block.stop] = rows.formed(block)
        yield dense, rows.example + start
