"""What both backends of a reading share: stages kept on disk, held-out refits, queries."""

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
from memspace.measures.values import HeldOut, TestOutputs, TrainingOutputs
from memspace.metric.keep import Keep
from memspace.passes.engine import PassOptions
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.task.data import Data
from memspace.task.task import Task
from memspace.training.refit import refit_of
from memspace.value import Absent

__all__ = [
    "Queries",
    "ReadingJob",
    "explained",
    "held_out_of",
    "outputs_on_test_data",
    "pick_queries",
    "queries_of",
    "query_data",
    "stage",
    "total",
]

QUERIES = 12


@dataclass(frozen=True)
class ReadingJob:
    """What a backend is to read, and how.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        plan: of the audit.
        settings: of the audit.
        store: where stages are kept, or None.
        progress: told of every pass.
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
    """A stage's tensors: from the store where an interrupted run left them, else computed and kept."""
    if store is not None and store.has(name):
        return store.load_tensors(name)
    tensors = compute()
    if store is not None:
        store.save_tensors(name, tensors)
    return tensors


def held_out_of(job: ReadingJob) -> HeldOut | Absent:
    """Return outputs of refits that did not see the examples, where the task can train; kept as a stage."""
    if refit_of(job.task) is None or job.plan.folds == 0:
        return NO_REFITS

    def compute() -> dict[str, Tensor]:
        fresh = refit_held_out(job.task, job.plan.folds, job.plan.held_out, job.settings.seed, job.progress)
        assert fresh is not None
        seconds = torch.tensor(fresh.seconds, dtype=torch.float64)
        return {"index": fresh.index, "f": fresh.f, "seconds": seconds}

    kept = job.keep("held-out", compute)
    return HeldOut(kept["index"], kept["f"], job.plan.folds, float(kept["seconds"]))


def total(per_position: Tensor) -> Tensor:
    """Summed over positions, (n,)."""
    return per_position.flatten(1).sum(1) if per_position.dim() > 1 else per_position


def pick_queries(task: Task, settings: AuditSettings, f: Tensor, y: Tensor) -> Tensor:
    """Test examples to explain: the given ones, else the worst mistakes and the least certain right answers."""
    if settings.queries is not None:
        return torch.tensor(settings.queries, dtype=torch.long)
    loss = total(task.likelihood.nll(f.double(), y))
    order = loss.argsort(descending=True)
    if not task.likelihood.classifies or y.dim() > 1:
        return order[:QUERIES].cpu()
    wrong = task.likelihood.hits(f, y) < 1
    mistakes = order[wrong[order]][: QUERIES * 2 // 3]
    hard = order[~wrong[order]][: QUERIES - len(mistakes)]
    return torch.cat([mistakes, hard]).cpu()


def explained(task: Task, f: Tensor, y: Tensor) -> Tensor:
    """The labels whose losses the influence on queries is about: what is predicted, where there are classes.

    Where there are none, the labels themselves: a predicted mean has no loss to explain. Positions that do not count
    stay as they are.
    """
    law = task.likelihood
    if not law.classifies:
        return y
    predicted = law.predict(f)
    if y.dim() > predicted.dim():  # labels are distributions over the classes
        return torch.nn.functional.one_hot(predicted, f.shape[-1]).to(y.dtype)
    predicted = predicted.to(y.dtype)
    counted = law.weight(f, y) > 0
    return torch.where(counted.reshape(*counted.shape, *[1] * (y.dim() - counted.dim())), predicted, y)


@dataclass(frozen=True)
class Queries:
    """Examples whose predictions are explained.

    Args:
        index: (Q,) positions in the test data; in the training data where there are no test data.
        data: the examples, with the labels whose losses are meant (see :func:`explained`).
        f: (Q, C) outputs.
        y: those labels.
    """

    index: Tensor
    data: Data
    f: Tensor
    y: Tensor


def queries_of(task: Task, settings: AuditSettings, training: TrainingOutputs, test: TestOutputs | Absent) -> Queries:
    """Choose the examples to explain: test examples, or training examples where there are no test data.

    Args:
        task: the network and its data.
        settings: of the audit; they may name the examples.
        training: outputs on the training data.
        test: outputs on the test data.

    Returns:
        the examples, with what is explained of them.
    """
    f, y = (training.f, training.y) if isinstance(test, Absent) else (test.f, test.y)
    index = pick_queries(task, settings, f, y)
    labels = explained(task, f[index], y[index])
    data = Data((query_data(task).batch(index).x, labels.cpu()))
    return Queries(index, data, f[index], labels)


def query_data(task: Task) -> Data:
    """Where queries come from: the test data, or else the training data."""
    return task.test if task.test is not None else task.train


def outputs_on_test_data(task: Task) -> TestOutputs | Absent:
    """Return outputs and labels of the test data, where there are any."""
    return NO_TEST_DATA if task.test is None else TestOutputs(*outputs(task, task.test))
