"""The trainings of a study done in processes, each kept as it finishes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from memspace.auditing.store import Store
from memspace.experiments.action_methods import Method
from memspace.experiments.action_network import Examples
from memspace.experiments.action_settings import StudySettings
from memspace.experiments.action_training import READINGS, Outcome, Shape, StudyTraining, train_one
from memspace.files import writing
from memspace.version import VERSION

__all__ = ["TRAININGS", "StudyWork", "append_line", "open_study_folder", "read_trainings"]

TRAININGS = "trainings.jsonl"


def open_study_folder(folder: Path, examples: Examples, plan: StudySettings, *, fresh: bool = False) -> Store:
    """Open the folder of a study: finished trainings are kept for as long as data, network and steps stay the same.

    More seeds or methods go on from what is there.

    Args:
        folder: created if missing.
        examples: the data.
        plan: how much is trained.
        fresh: begin again.

    Returns:
        The folder's store.

    Raises:
        RunFolderError: the folder is damaged or of an incompatible version.
        OutputError: it cannot be written.
    """
    data = hashlib.sha256()
    for t in (examples.x, examples.y, examples.x_test, examples.y_test):
        data.update(t.contiguous().numpy().tobytes())
    sizes = {"train": examples.train, "valid": examples.valid, "noise": examples.noise}
    key = {"study": "action", "data": data.hexdigest(), **sizes, "steps": plan.steps, "shape": asdict(plan.shape)}
    key |= {"readings": READINGS, "version": VERSION, "torch": torch.__version__}
    store = Store(folder, key, fresh=fresh)
    if not store.resumed:
        (folder / TRAININGS).unlink(missing_ok=True)
    return store


def read_trainings(store: Store | None) -> tuple[dict[StudyTraining, Outcome], dict[str, float]]:
    """Read finished trainings and measured costs; a line that a stop cut short is left out.

    Args:
        store: of the study; None: nothing is kept.

    Returns:
        Outcomes by training, and costs of a step by method.
    """
    done: dict[StudyTraining, Outcome] = {}
    costs: dict[str, float] = {}
    path = None if store is None else store.folder / TRAININGS
    if path is None or not path.exists():
        return done, costs
    with writing(path):
        text = path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")  # the next training gets a line of its own
    for line in text.splitlines():
        try:
            content = json.loads(line)
            if "costs" in content:
                costs |= content["costs"]
            else:
                outcome = Outcome.from_dict(content)
                done[outcome.job] = outcome
        except (ValueError, KeyError, TypeError):
            continue
    return done, costs


def append_line(store: Store | None, content: Mapping[str, Any]) -> None:
    """Put a line to the finished trainings.

    Args:
        store: of the study; None: nothing is kept.
        content: plain JSON types.

    Raises:
        OutputError: it cannot be written.
    """
    if store is None:
        return
    path = store.folder / TRAININGS
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(content) + "\n")


class StudyWork:
    """Trains jobs in processes (or in this one), keeping each as it finishes.

    Args:
        examples: the data.
        plan: network and processes.
        methods: of the jobs.
        store: keeps finished trainings.
        done: trainings that had finished before; those that finish are added.
        tick: called after every training.
    """

    def __init__(
        self,
        examples: Examples,
        plan: StudySettings,
        methods: Sequence[Method],
        store: Store | None,
        done: dict[StudyTraining, Outcome],
        tick: Callable[[], None],
    ) -> None:
        self._work = (examples, plan.shape, {m.name: m for m in methods})
        self._store, self._done, self._tick = store, done, tick
        self._pool: ProcessPoolExecutor | None = None
        if plan.workers > 1:
            context = multiprocessing.get_context("spawn")  # threads of the parent's torch do not survive a fork
            self._pool = ProcessPoolExecutor(plan.workers, context, _begin, self._work)

    def __enter__(self) -> StudyWork:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def all(self, jobs: Sequence[StudyTraining]) -> list[Outcome]:
        """Train what is not done yet.

        Args:
            jobs: the trainings.

        Returns:
            Their outcomes, in order.
        """
        todo = []
        for job in jobs:
            if job in self._done:
                self._tick()
            else:
                todo.append(job)
        for outcome in self._trained(todo):
            self._done[outcome.job] = outcome
            append_line(self._store, outcome.to_dict())
            self._tick()
        return [self._done[job] for job in jobs]

    def _trained(self, jobs: Sequence[StudyTraining]) -> Iterator[Outcome]:
        if self._pool is None:
            examples, shape, methods = self._work
            for job in jobs:
                yield train_one(examples, shape, methods[job.method], job)
            return
        for future in as_completed([self._pool.submit(_train, job) for job in jobs]):
            yield future.result()


# Of a worker process: what all its trainings share.
_SHARED: ContextVar[tuple[Examples, Shape, dict[str, Method]]] = ContextVar("shared")


def _begin(examples: Examples, shape: Shape, methods: dict[str, Method]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the work
    _SHARED.set((examples, shape, methods))


def _train(job: StudyTraining) -> Outcome:
    examples, shape, methods = _SHARED.get()
    return train_one(examples, shape, methods[job.method], job)
