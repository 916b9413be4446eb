"""The retraining study: several kinds of truth about one task, as tables and measured quantities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

from memspace.arguments import check_fields
from memspace.auditing.store import Store
from memspace.display import Columns, Shown
from memspace.errors import SettingsError
from memspace.experiments.designs import left_out, random_parts
from memspace.experiments.lds import correlations
from memspace.experiments.outcomes import OutcomeQueries, queries_of
from memspace.experiments.reports import REPORTS, Tables
from memspace.experiments.truth import Design, Truth, retrain_design
from memspace.limits import BYTES, COUNT, PART, SEED, SEVERAL, one_of
from memspace.measurement import Measurement, Unmeasured, from_samples
from memspace.progress import Progress, Silent
from memspace.task.task import Task

__all__ = ["PARTS", "RetrainResults", "RetrainSettings", "designs_of", "retraining_study"]

PARTS = ("half", "same-order", "left-out", "memorisation")


@dataclass(frozen=True)
class RetrainSettings:
    """What to retrain.

    Args:
        parts: of ``half`` (random halves), ``same-order`` (shares left out with the same seeds and batch orders),
            ``left-out`` (chosen examples), ``memorisation`` (random 70% after Feldman & Zhang).
        subsets: random parts of the training data.
        seeds: trainings of each.
        queries: test examples (of a task without: training examples), spread over the data, whose outcomes are
            measured.
        at: names the queries instead, by position.
        shares: left out in ``same-order``.
        examples: training examples to leave out, by position; None: ``chosen`` random ones.
        chosen: how many random ones.
        together: how many are left out at a time.
        repeats: seeds of the part ``left-out``.
        networks: of ``memorisation``.
        seed: random seed of the parts.
        memory: bytes that networks trained together may take.

    Raises:
        SettingsError: a part is not known, or a number is out of its range.
    """

    parts: tuple[str, ...] = ("half",)
    subsets: Annotated[int, COUNT] = 64
    seeds: Annotated[int, COUNT] = 2
    queries: Annotated[int, COUNT] = 200
    at: tuple[int, ...] | None = None
    shares: tuple[float, ...] = (0.02, 0.1, 0.5)
    examples: tuple[int, ...] | None = None
    chosen: Annotated[int, COUNT] = 50
    together: Annotated[int, COUNT] = 1
    repeats: Annotated[int, SEVERAL] = 5
    networks: Annotated[int, SEVERAL] = 200
    seed: Annotated[int, SEED] = 0
    memory: Annotated[int, BYTES] = 2 * 2**30

    def __post_init__(self) -> None:
        check_fields(self)
        for part in self.parts:
            one_of(part, PARTS, "part")
        if not self.parts:
            raise SettingsError("no part is asked for", where="settings", remedy=f"choose of {', '.join(PARTS)}")
        for share in self.shares:
            PART(share, "shares")


@dataclass(frozen=True, repr=False)
class RetrainResults(Shown):
    """What retrained networks say: plain data.

    Args:
        task: its name.
        settings: the settings, by name.
        measurements: per part.
        tables: columns by name, one table a Parquet file.
        trained: how many networks.
        seconds: spent on them, also by earlier runs that this one went on from.
        truths: outcomes of the networks, by design.
    """

    task: str
    settings: dict[str, Any]
    measurements: dict[str, list[Measurement | Unmeasured]]
    tables: Tables
    trained: int
    seconds: float
    truths: dict[str, Truth] = field(default_factory=dict, repr=False)

    def _title(self) -> str:
        return f"{self.task}: {self.trained:,} networks in {self.seconds:.0f} s"

    def _quantities(self) -> list[Measurement | Unmeasured]:
        return [m for quantities in self.measurements.values() for m in quantities]

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {name: partial(dict, columns) for name, columns in self.tables.items()}

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            Everything but tables and truths.
        """
        measured = {k: [m.to_dict() for m in v] for k, v in self.measurements.items()}
        return {
            "task": self.task,
            "settings": self.settings,
            "measurements": measured,
            "tables": sorted(self.tables),
            "networks": self.trained,
            "seconds": self.seconds,
        }


def designs_of(task: Task, settings: RetrainSettings) -> list[tuple[str, Design, OutcomeQueries]]:
    """List the networks a study trains.

    Args:
        task: with the data.
        settings: what to retrain.

    Returns:
        (part, design, queries), in order.
    """
    n, s = len(task.train), settings
    asked = _queries(task, s)
    made: list[tuple[str, Design, OutcomeQueries]] = []
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
            chosen = torch.cat(groups)
            design = left_out(part, n, groups, max(2, s.repeats), seed=s.seed, same_order=task.training is not None)
            made.append((part, design, _queries(task, s, chosen)))
        else:
            design = random_parts(part, n, s.networks, 0.7, seed=s.seed, own_seeds=True)
            made.append((part, design, _queries(task, s, torch.arange(n))))
    return made


def retraining_study(
    task: Task,
    settings: RetrainSettings,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
) -> RetrainResults:
    """Retrain, measure and tabulate; with a store, what an earlier call finished is not trained again.

    Args:
        task: with a way to train.
        settings: what to retrain.
        store: keeps outcomes of finished networks.
        progress: told of every network.

    Returns:
        Measurements and tables by part.

    Raises:
        TaskError: the task cannot train again.
        DataError: settings that do not fit the data.
    """
    progress = progress or Silent()
    measurements: dict[str, list[Measurement | Unmeasured]] = {}
    tables: Tables = {}
    truths: dict[str, Truth] = {}
    for part, design, queries in designs_of(task, settings):
        if part == "same-order" and not design.same_order:
            measurements[part] = [
                Unmeasured(part, "the task has refit alone", "give Task(training=...): it draws the same batches")
            ]
            continue
        truth = retrain_design(task, design, queries, store=store, progress=progress, memory=settings.memory)
        truths[design.name] = truth
        quantities, made = REPORTS[part](truth)
        if part == "same-order":
            quantities = [*quantities, _repeated(task, truth, store, progress)]
        measurements.setdefault(part, []).extend(quantities)
        tables |= made
    return RetrainResults(
        task.name,
        asdict(settings),
        measurements,
        tables,
        sum(t.design.seeds.numel() for t in truths.values()),
        sum(t.seconds for t in truths.values()),
        truths,
    )


def _queries(task: Task, settings: RetrainSettings, train: Tensor | None = None) -> OutcomeQueries:
    data = task.test if task.test is not None else task.train
    if settings.at is not None:
        at = torch.tensor(settings.at, dtype=torch.long)
    else:
        at = torch.linspace(0, len(data) - 1, min(settings.queries, len(data))).long()
    if task.test is not None:
        return queries_of(task, train=train, test=at)
    return queries_of(task, train=at if train is None else train)


def _groups(n: int, settings: RetrainSettings) -> list[Tensor]:
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
    repeat = retrain_design(task, again, truth.queries, store=store, progress=progress, at_once=3)
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
