"""The retraining study: several kinds of truth about one task, as tables and measured quantities."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from memspace.auditing.store import Store
from memspace.errors import DataError
from memspace.experiments.designs import left_out, random_parts
from memspace.experiments.lds import correlations
from memspace.experiments.outcomes import Queries, queries_of
from memspace.experiments.reports import REPORTS, Tables
from memspace.experiments.truth import Design, Truth, retrain
from memspace.measurement import Measurement, Unmeasured, from_samples
from memspace.progress import Progress, Silent
from memspace.task.task import Task

__all__ = ["PARTS", "Study", "StudyResults", "designs_of", "study"]

PARTS = ("half", "same-order", "left-out", "memorisation")


@dataclass(frozen=True)
class Study:
    """What to retrain.

    Args:
        parts: of ``half`` (random halves), ``same-order`` (shares left out with the same seeds and batch orders),
            ``left-out`` (chosen examples), ``memorisation`` (random 70% after Feldman & Zhang).
        subsets, seeds: random parts, and trainings of each.
        queries: test examples (of a task without: training examples), spread over the data, whose outcomes are
            measured; ``at`` instead names them.
        shares: left out in ``same-order``.
        examples: training examples to leave out: their positions, or None: ``chosen`` random ones. ``together``: how
            many are left out at a time. Seeds of this part: ``repeats``.
        networks: of ``memorisation``.
    """

    parts: tuple[str, ...] = ("half",)
    subsets: int = 64
    seeds: int = 2
    queries: int = 200
    at: tuple[int, ...] | None = None
    shares: tuple[float, ...] = (0.02, 0.1, 0.5)
    examples: tuple[int, ...] | None = None
    chosen: int = 50
    together: int = 1
    repeats: int = 5
    networks: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [p for p in self.parts if p not in PARTS]
        if unknown or not self.parts:
            raise DataError(
                f"no part {', '.join(unknown)}" if unknown else "no part is asked for",
                where="retraining study",
                remedy=f"choose of {', '.join(PARTS)}",
            )
        if min(self.subsets, self.seeds, self.queries, self.chosen, self.together, self.repeats, self.networks) < 1:
            raise DataError("a count is below one", where="retraining study", remedy="give positive counts")


@dataclass(frozen=True)
class StudyResults:
    """What a study found: plain data.

    Args:
        measurements: per part.
        tables: columns by name, one table a Parquet file.
        trained: networks; seconds: spent on them, also by earlier runs that this one went on from.
    """

    task: str
    settings: dict[str, Any]
    measurements: dict[str, list[Measurement | Unmeasured]]
    tables: Tables
    trained: int
    seconds: float
    truths: dict[str, Truth] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the tables and truths apart."""
        found = {k: [m.to_dict() for m in v] for k, v in self.measurements.items()}
        return {
            "task": self.task,
            "settings": self.settings,
            "measurements": found,
            "tables": sorted(self.tables),
            "networks": self.trained,
            "seconds": self.seconds,
        }


def designs_of(task: Task, settings: Study) -> list[tuple[str, Design, Queries]]:
    """The networks a study trains: (part, design, queries), in order."""
    n, s = len(task.train), settings
    asked = _queries(task, s)
    made: list[tuple[str, Design, Queries]] = []
    for part in s.parts:
        if part == "half":
            made.append((part, random_parts("half", n, s.subsets, 0.5, seeds=s.seeds, seed=s.seed), asked))
        elif part == "same-order":
            for share in s.shares:
                name = f"same-order-{share:g}"
                design = random_parts(
                    name, n, s.subsets, 1 - share, seeds=s.seeds, seed=s.seed, same_order=task.training is not None
                )
                made.append((part, design, asked))
        elif part == "left-out":
            groups = _groups(n, s)
            own = torch.cat(groups)
            design = left_out(part, n, groups, max(2, s.repeats), seed=s.seed, same_order=task.training is not None)
            made.append((part, design, _queries(task, s, own)))
        else:
            design = random_parts(part, n, s.networks, 0.7, seed=s.seed, own_seeds=True)
            made.append((part, design, _queries(task, s, torch.arange(n))))
    return made


def study(
    task: Task,
    settings: Study,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
    memory: int = 2 * 2**30,
) -> StudyResults:
    """Retrain, measure and tabulate; with a store, what an earlier call finished is not trained again.

    Raises:
        TaskError: the task cannot train anew.
        DataError: settings that do not fit the data.
    """
    progress = progress or Silent()
    measurements: dict[str, list[Measurement | Unmeasured]] = {}
    tables: Tables = {}
    truths: dict[str, Truth] = {}
    for part, design, queries in designs_of(task, settings):
        if part == "same-order" and not design.same_order:
            measurements[part] = [
                Unmeasured(part, "the task has refit alone", "hand over Task(training=...): it draws the same batches")
            ]
            continue
        truth = retrain(task, design, queries, store=store, progress=progress, memory=memory)
        truths[design.name] = truth
        found, made = REPORTS[part](truth)
        if part == "same-order":
            found = [*found, _repeated(task, truth, store, progress)]
        measurements.setdefault(part, []).extend(found)
        tables |= made
    return StudyResults(
        task.name,
        asdict(settings),
        measurements,
        tables,
        sum(t.design.seeds.numel() for t in truths.values()),
        sum(t.seconds for t in truths.values()),
        truths,
    )


def _queries(task: Task, settings: Study, train: Tensor | None = None) -> Queries:
    data = task.test if task.test is not None else task.train
    if settings.at is not None:
        at = torch.tensor(settings.at, dtype=torch.long)
    else:
        at = torch.linspace(0, len(data) - 1, min(settings.queries, len(data))).long()
    if task.test is not None:
        return queries_of(task, train=train, test=at)
    return queries_of(task, train=at if train is None else train)


def _groups(n: int, settings: Study) -> list[Tensor]:
    if settings.examples is not None:
        chosen = torch.tensor(settings.examples, dtype=torch.long)
    else:
        generator = torch.Generator().manual_seed(settings.seed + 47)
        chosen = torch.randperm(n, generator=generator)[: settings.chosen * settings.together]
    return list(torch.split(chosen, settings.together))


def _repeated(task: Task, truth: Truth, store: Store | None, progress: Progress) -> Measurement | Unmeasured:
    """The same-seed ceiling: some networks trained again in other groups, which changes rounding and nothing else.

    A training that magnifies rounding cannot be predicted better than it repeats itself.
    """
    design = truth.design
    count = min(len(design.kept), 16)
    if count < 3:
        name = f"{design.name}.loss.same-seed ceiling"
        return Unmeasured(name, f"{count} subsets give no correlation", "use at least 3")
    again = Design(f"{design.name}-again", design.kept[:count], design.seeds[:count, :1].contiguous(), True)
    repeat = retrain(task, again, truth.queries, store=store, progress=progress, at_once=3)
    first = Truth(again, truth.queries, {n: t[:count, :1] for n, t in truth.outcomes.items()}, 0.0)
    r = _agreement(first, repeat)
    return from_samples(
        f"{design.name}.loss.same-seed ceiling",
        r.tolist(),
        "1",
        f"Spearman of {count} networks with the same trained again, mean over queries",
        note="1 where a training repeats itself but for rounding",
    )


def _agreement(a: Truth, b: Truth) -> Tensor:
    """Rank correlation over parts of two truths' losses, per query."""
    # A mask of one-hot rows makes the summed scores the other truth's outcomes themselves.
    k = len(a.design.kept)
    design = Design("agreement", torch.eye(k, dtype=torch.bool), a.design.seeds)
    return correlations(b.support("loss").mean(1).T, Truth(design, a.queries, a.outcomes, 0.0))
