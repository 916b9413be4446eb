"""One training of the study and what is measured of it, and what a step of each method costs."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from memspace.experiments.action_methods import LAW, Method, Trainer
from memspace.experiments.action_network import DataSplit, Examples, ResidualNetwork
from memspace.geometry.distance import squared_distances
from memspace.measures.calibration import calibration_error
from memspace.measures.complexity import fisher_rao_norm
from memspace.passes.linearised import differential
from memspace.task.builtin.train import threads
from memspace.task.functional import functional_call
from memspace.task.recipe import Recipe

__all__ = ["Outcome", "Shape", "StudyTraining", "measured_costs", "train_one"]

POINTS = 40  # of a training, denser early, at which accuracy and memorisation are read
PROBE = 256  # training examples along which the path's length is measured
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
    """

    method: str
    rate: float
    strength: float
    seed: int
    steps: int
    final: bool


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Args:
        job: the training.
        valid_loss: nats, infinite where the training diverged.
        seconds: of processor time, in steps alone.
        values: by name, of a final training (see ``OUTCOMES`` in ``action_verdict``).
        curve: step, accuracy on test examples, share of wrong labels fitted; along a final training.
    """

    job: StudyTraining
    valid_loss: float
    seconds: float
    values: dict[str, float] = field(default_factory=dict)
    curve: dict[str, list[float]] = field(default_factory=dict)

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
        loss = math.inf if d["valid_loss"] is None else float(d["valid_loss"])
        return Outcome(StudyTraining(**d["job"]), loss, float(d["seconds"]), dict(d["values"]), dict(d["curve"]))


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
        trainer = how.make(model, job.rate, job.strength)
        watch = _Watch(model, examples, split) if job.final else None
        try:
            seconds = _run(model, trainer, split, shape, job, watch)
        finally:
            trainer.close()
        model.eval()
        with torch.no_grad():
            f_valid = model(split.x_valid).double()
        loss = float(LAW.nll(f_valid, split.y_valid).mean())
        if not math.isfinite(loss):
            return Outcome(job, math.inf, seconds)
        if watch is None:
            return Outcome(job, loss, seconds)
        values = _measured(model, examples, split, f_valid) | watch.length()
        return Outcome(job, loss, seconds, values, watch.curve)


def _run(
    model: nn.Module, trainer: Trainer, split: DataSplit, shape: Shape, job: StudyTraining, watch: _Watch | None
) -> float:
    recipe = Recipe(1, shape.batch, job.rate, 0.0)
    model.train()
    seconds = 0.0
    read = _points(job.steps)
    if watch is not None:
        watch.read(0)
    for step, (first, batch) in enumerate(_batches(len(split.y), shape.batch, job.steps, job.seed)):
        began = time.thread_time()
        if first:
            trainer.epoch()
        for group in trainer.optimiser.param_groups:
            group["lr"] = recipe.rate_at(step, job.steps)
        trainer.step(split.x[batch], split.y[batch])
        seconds += time.thread_time() - began
        if watch is not None and step + 1 in read:
            watch.read(step + 1)
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
    """Reads the network along its training: on test examples, wrong labels, and a probe of training examples."""

    def __init__(self, model: nn.Module, examples: Examples, split: DataSplit) -> None:
        self._model, self._examples, self._split = model, examples, split
        self._last: Tensor | None = None
        self._squared: list[Tensor] = []
        self.curve: dict[str, list[float]] = {"step": [], "accuracy": [], "memorised": []}

    @torch.no_grad()
    def read(self, step: int) -> None:
        """Append a point."""
        self._model.eval()
        e, s = self._examples, self._split
        f = self._model(s.x)
        self.curve["step"].append(step)
        self.curve["accuracy"].append(float((self._model(e.x_test).argmax(-1) == e.y_test).double().mean()))
        self.curve["memorised"].append(fitted(f, s))
        probe = f[:PROBE].double()
        if self._last is not None:
            self._squared.append(squared_distances(LAW, self._last, probe).mean())
        self._last = probe
        self._model.train()

    def length(self) -> dict[str, float]:
        """Fisher–Rao length of the path through the points read, nats^½, and its action ½L² at unit time, nats."""
        length = float(torch.stack(self._squared).sqrt().sum())
        return {"length": length, "action": length**2 / 2}


def fitted(f: Tensor, split: DataSplit) -> float:
    """Compute the share of the wrong training labels that are predicted.

    Args:
        f: logits on the training examples, (n, K).
        split: these examples.

    Returns:
        A share; 0 where no label is wrong.
    """
    wrong = split.wrong
    return float((f.argmax(-1) == split.y)[wrong].double().mean()) if bool(wrong.any()) else 0.0


def _measured(model: nn.Module, examples: Examples, split: DataSplit, f_valid: Tensor) -> dict[str, float]:
    e = examples
    theta = {n: p.detach() for n, p in model.named_parameters()}

    def outputs(p: dict[str, Tensor]) -> Tensor:
        f: Tensor = functional_call(model, p, (e.x_test,))
        return f

    with torch.no_grad():
        f, moved = differential(outputs, theta, theta)
        f = f.double()
        worse = [float((model(x).argmax(-1) == e.y_test).double().mean()) for x in e.worse.values()]
        memorised = fitted(model(split.x), split)
    temperature = _temperature(f_valid, split.y_valid)
    return {
        "loss": float(LAW.nll(f, e.y_test).mean()),
        "calibrated_loss": float(LAW.nll(f / temperature, e.y_test).mean()),
        "accuracy": float((f.argmax(-1) == e.y_test).double().mean()),
        "calibration_error": calibration_error(f, e.y_test).value,
        "corrupted_accuracy": statistics.fmean(worse),
        "memorised": memorised,
        "norm": float(fisher_rao_norm(LAW, f, e.y_test, moved)[0].mean()),
        "temperature": temperature,
    }


def _temperature(f: Tensor, y: Tensor) -> float:
    """The temperature of least validation loss (Guo et al. 2017), between e^-3 and e^3."""
    minimum = minimize_scalar(
        lambda t: float(LAW.nll(f / math.exp(t), y).mean()),
        bounds=(-3.0, 3.0),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return math.exp(float(minimum.x))


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
