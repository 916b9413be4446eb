"""Ground truth: networks retrained on designed parts of the training data, and their outcomes on queries.

Finished networks' outcomes are kept in the run folder a few at a time, so that the same call goes on after a stop.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from memspace.auditing.store import Store
from memspace.errors import DataError, NonFiniteError, TaskError
from memspace.experiments.outcomes import OutcomeQueries, measured
from memspace.progress import Progress, Silent
from memspace.task.task import Task
from memspace.training.many import MEMORY, train_many
from memspace.training.refit import refit_many, whole

__all__ = ["Design", "Truth", "retrain_design"]

SECONDS = 30.0  # of training between two savings
FEWEST, MOST = 4, 64  # networks between two savings


@dataclass(frozen=True)
class Design:
    """Which networks to train: K parts of the training data, S trainings each.

    Args:
        name: of the part of a study, for files and messages.
        kept: which examples are trained on, (K, N) bool.
        seeds: of initialisation and order, (K, S).
        same_order: True: what is left out has weight 0 in the loss and keeps its place in the batches, so that
            networks of one seed see the same batches (see :func:`memspace.training.many.train_many`). False: batches
            are made of the kept examples alone.

    Raises:
        DataError: shapes do not fit, or a part keeps no example.
    """

    name: str
    kept: Tensor
    seeds: Tensor
    same_order: bool = False

    def __post_init__(self) -> None:
        if self.kept.dim() != 2 or self.kept.dtype != torch.bool or self.seeds.dim() != 2 or not self.seeds.numel():
            raise DataError("kept is no (K, N) mask or seeds no (K, S) table", where=self.name, remedy="give both")
        if len(self.kept) != len(self.seeds):
            raise DataError(
                f"{len(self.kept)} parts of the data and seeds for {len(self.seeds)}",
                where=self.name,
                remedy="give a row of seeds for every part",
            )
        if not bool(self.kept.any(1).all()):
            raise DataError("a part keeps no example", where=self.name, remedy="leave fewer examples out")


@dataclass(frozen=True)
class Truth:
    """Outcomes of retrained networks.

    Args:
        design: what was trained.
        queries: on what it was measured.
        outcomes: by name, (K, S, Q) float64.
        seconds: of training and measuring, also of what an earlier run did.
    """

    design: Design
    queries: OutcomeQueries
    outcomes: dict[str, Tensor]
    seconds: float

    def seed(self, s: int) -> Truth:
        """Restrict the truth to one seed.

        Args:
            s: column of the seeds.

        Returns:
            Outcomes (K, 1, Q).
        """
        design = replace(self.design, seeds=self.design.seeds[:, s : s + 1])
        return Truth(design, self.queries, {k: v[:, s : s + 1] for k, v in self.outcomes.items()}, self.seconds)

    def of_subsets(self, chosen: Tensor) -> Truth:
        """Restrict the truth to some of the parts.

        Args:
            chosen: (K,) bool.

        Returns:
            Their outcomes.
        """
        design = replace(self.design, kept=self.design.kept[chosen], seeds=self.design.seeds[chosen])
        return Truth(design, self.queries, {k: v[chosen] for k, v in self.outcomes.items()}, self.seconds)

    def support(self, outcome: str) -> Tensor:
        """Give an outcome the sign under which more of it is more support: minus the loss.

        Args:
            outcome: ``loss``, ``margin`` or ``correct``.

        Returns:
            (K, S, Q).

        Raises:
            DataError: it was not measured.
        """
        if outcome not in self.outcomes:
            raise DataError(
                f"no outcome {outcome!r} was measured, only {', '.join(self.outcomes)}",
                where=self.design.name,
                remedy="ask for one of these",
            )
        return -self.outcomes[outcome] if outcome == "loss" else self.outcomes[outcome]


def retrain_design(
    task: Task,
    design: Design,
    queries: OutcomeQueries,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
    at_once: int | None = None,
    memory: int = MEMORY,
) -> Truth:
    """Train the design's networks and measure their outcomes.

    Args:
        task: has a ``training`` (many networks at once), or a ``refit`` (one after another; not ``same_order``).
        design: which networks.
        queries: what they are measured on.
        store: keeps what is finished; the same design and queries are not trained again.
        progress: told of every network.
        at_once: networks in a group, as of :func:`memspace.training.many.train_many`.
        memory: bytes that a group may take.

    Returns:
        Outcomes of every network.

    Raises:
        TaskError: the task cannot train this way.
        DataError: the design is of another number of examples.
        NonFiniteError: a training diverged.
    """
    _check(task, design)
    progress = progress or Silent()
    k, s = design.seeds.shape
    name = f"{design.name}-{_digest(design, queries, at_once)}"
    finished: list[dict[str, Tensor]] = []
    done = 0
    while store is not None and done < k * s and store.has(f"{name}-{done}"):
        finished.append(store.load_tensors(f"{name}-{done}"))
        done += len(finished[-1]["loss"])
    handle = progress.start(f"retraining ({design.name})", k * s)
    progress.advance(handle, done)
    size = FEWEST
    try:
        while done < k * s:
            start = time.perf_counter()
            rows = _alike(design, torch.arange(done, min(done + size, k * s)))
            within = _Within(progress, handle, len(rows))
            part = _outcomes(task, design, rows, queries, within, at_once, memory)
            seconds = time.perf_counter() - start
            part["seconds"] = torch.tensor([seconds], dtype=torch.float64)
            if store is not None:
                store.save_tensors(f"{name}-{done}", part)
            finished.append(part)
            done += len(rows)
            progress.advance(handle, len(rows) - within.told)
            size = max(FEWEST, min(MOST, int(len(rows) * SECONDS / max(seconds, 1e-3))))
    finally:
        progress.finish(handle)
    joined = {n: torch.cat([p[n] for p in finished]) for n in finished[0]}
    total = float(joined.pop("seconds").sum())
    return Truth(design, queries, {n: t.reshape(k, s, -1) for n, t in joined.items()}, total)


class _Within(Progress):
    """Steps of some networks' training, told on as networks of the whole, so that its time left can be told."""

    def __init__(self, whole: Progress, handle: int, networks: int) -> None:
        self._whole, self._handle, self._networks = whole, handle, networks
        self._total, self._done, self.told = 1, 0, 0

    def start(self, what: str, total: int) -> int:
        """The one piece of work inside."""
        self._total = max(1, total)
        return 0

    def advance(self, handle: int, ticks: int = 1) -> None:
        """Tell the whole when another network's worth is done."""
        self._done += ticks
        due = self._networks * self._done // self._total - self.told
        if due > 0:
            self.told += due
            self._whole.advance(self._handle, due)

    def finish(self, handle: int) -> None:
        """The whole goes on."""


def _check(task: Task, design: Design) -> None:
    if design.kept.shape[1] != len(task.train):
        raise DataError(
            f"the design is of {design.kept.shape[1]:,} examples, the training data hold {len(task.train):,}",
            where=design.name,
            remedy="make it for this task",
        )
    if task.training is None and (design.same_order or task.refit is None):
        why = "with the same batches" if task.refit is not None else "again"
        raise TaskError(f"the task cannot train a network {why}", where=task.name, remedy="give Task(training=...)")


def _alike(design: Design, rows: Tensor) -> Tensor:
    """The first of these networks that can be trained together: those that keep equally many examples."""
    if design.same_order:
        return rows
    sizes = design.kept.sum(1)[rows // design.seeds.shape[1]]
    other = (sizes != sizes[0]).nonzero().flatten()
    return rows[: int(other[0])] if len(other) else rows


def _outcomes(
    task: Task,
    design: Design,
    rows: Tensor,
    queries: OutcomeQueries,
    progress: Progress,
    at_once: int | None,
    memory: int,
) -> dict[str, Tensor]:
    """Outcomes (R, Q) of the networks of these rows of the (K·S) table."""
    per = design.seeds.shape[1]
    masks = design.kept[rows // per]
    seeds = design.seeds.flatten()[rows].tolist()
    index = None if design.same_order else masks.nonzero()[:, 1].reshape(len(rows), -1)
    networks: list[nn.Module]
    if task.training is None:
        assert index is not None
        networks = refit_many(task, index, seeds, progress)
    else:
        x, y = whole(task)
        many = train_many(
            task.training,
            x,
            y,
            task.likelihood,
            seeds=seeds,
            index=index,
            weights=masks.double() if design.same_order else None,
            progress=progress,
            at_once=at_once,
            memory=memory,
        )
        networks = [many.model(m) for m in range(len(many))]
    by_network = [measured(n, queries, task.likelihood) for n in networks]
    made = {name: torch.stack([f[name] for f in by_network]) for name in by_network[0]}
    bad = int((~torch.isfinite(made["loss"])).any(1).sum())
    if bad:
        raise NonFiniteError(
            f"{bad} of {len(rows)} trainings end with losses that are not finite",
            where=design.name,
            remedy="lower the learning rate of the recipe",
        )
    return made


def _digest(design: Design, queries: OutcomeQueries, at_once: int | None) -> str:
    """What decides the outcomes, except the task."""
    digest = hashlib.sha256(json.dumps([design.same_order, list(queries.split), at_once]).encode())
    for t in (design.kept, design.seeds, queries.index):
        digest.update(json.dumps(list(t.shape)).encode())
        digest.update(t.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
