"""One training of the study and what is measured of it, and what a step of each method costs."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn

from memspace.experiments.action_crossing import Crossing, path_of
from memspace.experiments.action_methods import LAW, Method, Trainer
from memspace.experiments.action_network import DataSplit, Examples, ResidualNetwork
from memspace.experiments.action_outcomes import PROBE, accuracy, fitted, loss, measured
from memspace.geometry.distance import squared_distances
from memspace.task.builtin.train import threads
from memspace.task.recipe import Recipe

__all__ = ["READINGS", "Outcome", "Shape", "StudyTraining", "measured_costs", "train_one"]

POINTS = 40  # of a training, denser early, at which it is read
READINGS = ("step", "accuracy", "memorised", "train_loss", "test_loss")  # what is read there
TIMED, WARM = 200, 20  # steps of each method whose mean is its cost


@dataclass(frozen=True)
class Shape:
    """The network's size and the batch.

    Args:
        width: of the blocks.
        blocks: number of them.
        batch: examples in a batch.
    """

    width: int = 64
    blocks: int = 4
    batch: int = 100

    def network(self, examples: Examples, dropout: float = 0.0) -> nn.Module:
        """Make a fresh network for these inputs and classes, drawn from torch's generator.

        Args:
            examples: the data.
            dropout: share dropped.

        Returns:
            The network.
        """
        return ResidualNetwork(examples.x.shape[1], self.width, self.blocks, examples.classes, dropout)


@dataclass(frozen=True)
class StudyTraining:
    """One training of the study.

    Args:
        method: its name.
        rate: learning rate.
        strength: of the method.
        seed: of split, labels, initialisation and order.
        steps: number of steps.
        final: measured in full; the others on validation examples alone.
        level: training loss, nats: the training is measured where it first reaches it, and ends there; None: it goes on
            to its last step.
    """

    method: str
    rate: float
    strength: float
    seed: int
    steps: int
    final: bool
    level: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Args:
        job: the training.
        valid_loss: nats, infinite where the training diverged.
        seconds: of processor time, in steps alone.
        values: by name, at the end of a final training (see ``OUTCOMES`` in ``action_verdict``).
        curve: step, accuracy on test examples, share of wrong labels fitted, losses on training and test examples;
            along a final training.
        matched: by name, of the network that first reached the job's training loss (see ``action_crossing``), instead
            of values at the end; nothing where none did.
        finished: time of UTC, ISO 8601.
    """

    job: StudyTraining
    valid_loss: float
    seconds: float
    values: dict[str, float] = field(default_factory=dict)
    curve: dict[str, list[float]] = field(default_factory=dict)
    matched: dict[str, float] = field(default_factory=dict)
    finished: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            What :meth:`from_dict` reads.
        """
        return asdict(self) | {"valid_loss": self.valid_loss if math.isfinite(self.valid_loss) else None}

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> Outcome:
        """Invert :meth:`to_dict`.

        Args:
            d: what it gave.

        Returns:
            The outcome.
        """
        valid_loss = math.inf if d["valid_loss"] is None else float(d["valid_loss"])
        return Outcome(**{**d, "job": StudyTraining(**d["job"]), "valid_loss": valid_loss})


def train_one(examples: Examples, shape: Shape, how: Method, job: StudyTraining) -> Outcome:
    """Train on one thread; torch's random state is left as it was.

    Args:
        examples: the data.
        shape: of the network.
        how: the method.
        job: its setting, seed and steps.

    Returns:
        What the training came to.
    """
    split = examples.split(job.seed)
    with threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        model = shape.network(examples, job.strength if how.dropout else 0.0)
        watch = _Watch(model, examples, split, job.level) if job.final else None
        trainer = how.make(model, job.rate, job.strength)
        try:
            seconds = _run(model, trainer, split, shape, job, watch)
        finally:
            trainer.close()
        model.eval()
        with torch.no_grad():
            f_valid = model(split.x_valid).double()
        valid_loss, finished = loss(f_valid, split.y_valid), datetime.now(UTC).isoformat()
        if not math.isfinite(valid_loss):
            return Outcome(job, math.inf, seconds, finished=finished)
        if watch is None:
            return Outcome(job, valid_loss, seconds, finished=finished)
        if job.level is not None:
            return Outcome(job, valid_loss, seconds, curve=watch.curve, matched=watch.matched, finished=finished)
        values = measured(model, examples, split, f_valid) | path_of(watch.squared)
        return Outcome(job, valid_loss, seconds, values, watch.curve, finished=finished)


def _run(
    model: nn.Module, trainer: Trainer, split: DataSplit, shape: Shape, job: StudyTraining, watch: _Watch | None
) -> float:
    recipe = Recipe(1, shape.batch, job.rate, 0.0)
    model.train()
    seconds = 0.0
    read = _points(job.steps)
    if watch is not None:
        watch.keep(0)
        watch.read(0)
    for step, (first, batch) in enumerate(_batches(len(split.y), shape.batch, job.steps, job.seed)):
        began = time.thread_time()
        if first:
            trainer.epoch()
        for group in trainer.optimiser.param_groups:
            group["lr"] = recipe.rate_at(step, job.steps)
        trainer.step(split.x[batch], split.y[batch])
        seconds += time.thread_time() - began
        if watch is not None:
            watch.keep(step + 1)
            if step + 1 in read:
                watch.read(step + 1)
            if watch.matched:
                break
    return seconds


def _batches(n: int, size: int, steps: int, seed: int) -> Iterator[tuple[bool, Tensor]]:
    """(whether an epoch begins, positions) of every step; what is left over at an epoch's end is not used.

    The order has a generator of its own, so that methods which draw masks see the same one.
    """
    generator = torch.Generator().manual_seed(seed + 61)
    size = min(size, n)
    per_epoch, done = n // size, 0
    while done < steps:
        order = torch.randperm(n, generator=generator)
        for k in range(min(per_epoch, steps - done)):
            yield k == 0, order[k * size : (k + 1) * size]
        done += per_epoch


def _points(steps: int) -> set[int]:
    return {max(1, round(steps ** (k / (POINTS - 1)))) for k in range(POINTS)} | {steps}


class _Watch:
    """Reads the network along its training, and where it crosses a training loss."""

    def __init__(self, model: nn.Module, examples: Examples, split: DataSplit, level: float | None) -> None:
        self._model, self._examples, self._split = model, examples, split
        self._crossing = None if level is None else Crossing(model, examples, split, level)
        self._last: Tensor | None = None
        self.squared: list[Tensor] = []  # squared lengths of the path from reading to reading
        self.curve: dict[str, list[float]] = {name: [] for name in READINGS}

    @property
    def matched(self) -> dict[str, float]:
        """What was measured where the training loss was crossed."""
        return {} if self._crossing is None else self._crossing.values

    def keep(self, step: int) -> None:
        """Keep the weights after a step for as long as they may be asked for."""
        if self._crossing is not None:
            self._crossing.keep(step)

    @torch.no_grad()
    def read(self, step: int) -> None:
        """Append a point."""
        self._model.eval()
        e, s = self._examples, self._split
        f, f_test = self._model(s.x).double(), self._model(e.x_test)
        train_loss = loss(f, s.y)
        point = (step, accuracy(f_test, e.y_test), fitted(f, s), train_loss, loss(f_test, e.y_test))
        for name, value in zip(READINGS, point, strict=True):
            self.curve[name].append(value)
        if self._crossing is not None:
            self._crossing.read(train_loss, self.squared, self._last)
        probe = f[:PROBE]
        if self._last is not None:
            self.squared.append(squared_distances(LAW, self._last, probe).mean())
        self._last = probe
        self._model.train()


def measured_costs(
    examples: Examples, shape: Shape, methods: Sequence[Method], *, repeats: int = TIMED
) -> dict[str, float]:
    """Measure the processor time of a step of each method over that of the first, on one thread; methods take turns.

    A mean, since what a method does now and then (an eigenbasis every hundred steps) is part of its cost. Processor
    time leaves out what other programs took meanwhile; taking turns lets a busy machine slow all of them
    alike. No step counts as cheaper than the first method's.

    Args:
        examples: the data.
        shape: of the networks.
        methods: those to measure.
        repeats: steps of each that count.

    Returns:
        Cost by method.
    """
    split = examples.split(0)
    seconds: dict[str, list[float]] = {m.name: [] for m in methods}
    with threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainers = []
        for m in methods:
            rate, strength = m.settings[0]
            model = shape.network(examples, strength if m.dropout else 0.0)
            model.train()
            trainers.append(m.make(model, rate, strength))
        for k, (first, batch) in enumerate(_batches(len(split.y), shape.batch, WARM + repeats, 0)):
            for m, trainer in zip(methods, trainers, strict=True):
                began = time.thread_time()
                if first:
                    trainer.epoch()
                trainer.step(split.x[batch], split.y[batch])
                if k >= WARM:
                    seconds[m.name].append(time.thread_time() - began)
        for trainer in trainers:
            trainer.close()
    unit = statistics.fmean(seconds[methods[0].name])
    return {name: max(1.0, round(statistics.fmean(s) / unit, 2)) for name, s in seconds.items()}
