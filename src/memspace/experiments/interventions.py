"""Interventions: networks of several arms that differ in the regulariser alone, read at one training loss.

Arms share, seed by seed, the examples, the wrong labels, the initialisation and the order of the batches. Each is read
where its training first crosses the training loss of the plan (see ``action_crossing``), so that outcomes compare at
equal training loss and not at equal time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq

from memspace.display import Columns, Shown
from memspace.experiments.action_methods import method
from memspace.experiments.action_network import Examples, examples_of
from memspace.experiments.action_plan import Workload
from memspace.experiments.action_settings import StudySettings
from memspace.experiments.action_training import Outcome, StudyTraining
from memspace.experiments.action_work import StudyWork, open_study_folder, read_trainings
from memspace.files import locked, written
from memspace.limits import COUNT, SEVERAL, WHOLE
from memspace.progress import Progress, Silent
from memspace.task.builtin import BuildOptions
from memspace.task.load import resolve

__all__ = ["TABLE", "InterventionRows", "InterventionSettings", "interventions"]

TABLE = "interventions"
# What is read of the network that crosses the training loss, besides the gaps.
READ = (
    "step", "train_loss", "test_loss", "calibrated_loss", "train_accuracy", "test_accuracy", "memorised",
    "fisher_rao_norm", "weight_norm", "depth_action", "length", "action",
)  # fmt: skip


@dataclass(frozen=True)
class InterventionSettings:
    """Which seeds are trained, and how.

    Args:
        seeds: number of seeds, each trained in every arm.
        first: the first of them; the package's own plan was chosen on seeds below 100.
        workers: processes, each training on one thread.
        data_root: folder or file of the data.
    """

    seeds: Annotated[int, SEVERAL] = 20
    first: Annotated[int, WHOLE] = 100
    workers: Annotated[int, COUNT] = 1
    data_root: Path | None = None


@dataclass(frozen=True, repr=False)
class InterventionRows(Shown):
    """A row a training: what it was, and what was read of it at the training loss of its workload.

    Args:
        columns: name → values; an outcome is None where the training did not reach the loss.
    """

    columns: dict[str, list[Any]]

    def _title(self) -> str:
        reached = self.columns["fitted"]
        return f"{len(reached)} trainings, {sum(reached)} of which reached their training loss"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {TABLE: lambda: self.columns}

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            The columns.
        """
        return dict(self.columns)


def interventions(
    plan: Sequence[Workload],
    settings: InterventionSettings,
    *,
    out: Path,
    fresh: bool = False,
    progress: Progress | None = None,
) -> InterventionRows:
    """Train every arm of a plan on the same seeds, and write the table of what is read at equal training loss.

    Finished trainings are kept in the folder, so a stopped call goes on.

    Args:
        plan: workloads with their arms.
        settings: seeds and processes.
        out: folder of ``interventions.parquet``.
        fresh: begin again.
        progress: told of every training.

    Returns:
        The rows, as written.

    Raises:
        TaskError: a task is not there.
        DataError: its data are not there, too few or not of a kind that the study takes.
        RunFolderError: the folder holds what other work wrote.
        OutputError: it cannot be written.
    """
    progress = progress or Silent()
    options = BuildOptions(data_root=settings.data_root, train_network=False)
    data = []
    for w in plan:  # all data first: what lacks is told before anything is trained
        task = resolve(w.task, options, progress)
        data.append(examples_of(task, noise=w.noise, train=w.train, valid=w.valid, test=w.test))
    rows: list[dict[str, Any]] = []
    with locked(out):
        for workload, examples in zip(plan, data, strict=True):
            outcomes = _trained(workload, examples, settings, out, fresh, progress)
            rows += [_row(workload, examples, outcome) for outcome in outcomes]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        written(out / f"{TABLE}.parquet", partial(pq.write_table, pa.table(columns)))
    return InterventionRows(columns)


def _trained(
    workload: Workload, examples: Examples, settings: InterventionSettings, out: Path, fresh: bool, progress: Progress
) -> list[Outcome]:
    """Every arm on every seed; the seeds one after the other, so that what a stop leaves is whole pairs."""
    arms = {name: method(name) for name in workload.arms}
    steps = max(arm.steps for arm in workload.arms.values())
    study = StudySettings(steps, settings.seeds, workers=settings.workers, first=settings.first, noise=workload.noise)
    folder = out / "trainings" / re.sub(r"[^\w.-]+", "_", workload.family)
    store = open_study_folder(folder, examples, study, fresh=fresh)
    done, _ = read_trainings(store)
    jobs = [
        StudyTraining(name, arm.rate, arm.strength, seed, arm.steps, True, workload.level)
        for seed in range(settings.first, settings.first + settings.seeds)
        for name, arm in workload.arms.items()
    ]
    handle = progress.start(f"{workload.family}: trainings", len(jobs))
    try:
        with StudyWork(examples, study, list(arms.values()), store, done, lambda: progress.advance(handle)) as work:
            return work.all(jobs)
    finally:
        progress.finish(handle)


def _row(workload: Workload, examples: Examples, outcome: Outcome) -> dict[str, Any]:
    job, read = outcome.job, outcome.matched
    row: dict[str, Any] = {
        "family": workload.family,
        "data": examples.name,
        "arm": job.method,
        "seed": job.seed,
        "rate": job.rate,
        "strength": job.strength,
        "steps": job.steps,
        "label_noise": examples.noise,
        "size": examples.train,
        "level": workload.level,
        "fitted": bool(read),
    }
    row |= {name: read.get(name) for name in READ}
    row["gap_loss"] = read["test_loss"] - read["train_loss"] if read else None
    row["gap_accuracy"] = read["train_accuracy"] - read["test_accuracy"] if read else None
    least = min(outcome.curve["train_loss"], default=None)  # of the readings; nothing where the training diverged
    return row | {"least_train_loss": least, "finished": outcome.finished}
