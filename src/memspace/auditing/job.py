"""What both backends of a reading share: the job, stages stored on disk, held-out refits, test outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from memspace.auditing.plan import AuditSettings, Plan
from memspace.auditing.reading import NO_REFITS, NO_TEST_DATA
from memspace.auditing.store import Store
from memspace.measures.held_out import refit_held_out
from memspace.measures.values import HeldOut, TestOutputs
from memspace.metric.keep import Keep
from memspace.passes.engine import PassOptions
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.training.refit import refit_of
from memspace.value import Absent

__all__ = ["ReadingJob", "held_out_of", "outputs_on_test_data", "stage"]


@dataclass(frozen=True)
class ReadingJob:
    """What a backend is to read, and how.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        plan: of the audit.
        settings: of the audit.
        store: where stages are kept, or None.
        progress: where every pass reports.
    """

    task: Task
    space: ParameterSpace
    plan: Plan
    settings: AuditSettings
    store: Store | None
    progress: Progress

    @property
    def keep(self) -> Keep:
        """Runs a stage, or takes it from the store."""
        return partial(stage, self.store)

    @property
    def options(self) -> PassOptions:
        """Of every pass."""
        return PassOptions(seed=self.settings.seed, most=self.plan.batch, progress=self.progress)


def stage(store: Store | None, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Load a stage's tensors where an interrupted run stored them, else compute and store them.

    Args:
        store: None: nothing is stored.
        name: of the stage.
        compute: runs the stage.

    Returns:
        name → tensor.
    """
    if store is not None and store.has(name):
        return store.load_tensors(name)
    tensors = compute()
    if store is not None:
        store.save_tensors(name, tensors)
    return tensors


def held_out_of(job: ReadingJob) -> HeldOut | Absent:
    """Train networks without some examples and return their outputs on these, as a stored stage.

    Args:
        job: its plan says how many networks.

    Returns:
        the outputs; absent where the task cannot train or no refits are planned.
    """
    if refit_of(job.task) is None or job.plan.folds == 0:
        return NO_REFITS

    def compute() -> dict[str, Tensor]:
        fresh = refit_held_out(job.task, job.plan.folds, job.plan.held_out, job.settings.seed, job.progress)
        assert fresh is not None
        seconds = torch.tensor(fresh.seconds, dtype=torch.float64)
        return {"index": fresh.index, "f": fresh.f, "seconds": seconds}

    stored = job.keep("held-out", compute)
    return HeldOut(stored["index"], stored["f"], job.plan.folds, float(stored["seconds"]))


def outputs_on_test_data(task: Task) -> TestOutputs | Absent:
    """Run the network on its test data.

    Args:
        task: the network and its data.

    Returns:
        outputs and labels; absent without test data.
    """
    return NO_TEST_DATA if task.test is None else TestOutputs(*outputs(task, task.test))
