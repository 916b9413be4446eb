"""Capacity, measured: how many bits of random labels networks of an architecture store.

Networks are trained on random labels of random inputs, more and more of them; what is stored rises with what is
offered and then stays. Gradient training may miss better weights: every figure is a lower bound of the architecture's
capacity, and training longer says how close it is to what this training can reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor, nn

from memspace.limits import COUNT, POSITIVE, SEED, WHOLE
from memspace.measurement import Measurement
from memspace.progress import Progress, Silent
from memspace.task.likelihood import Categorical
from memspace.task.recipe import Recipe, Training
from memspace.training.many import train_many

__all__ = [
    "Capacity",
    "CapacitySettings",
    "LabelBits",
    "Offered",
    "measure_capacity",
    "memorise",
    "mlp",
    "random_task",
    "stored_bits",
]

LN2 = math.log(2.0)
FULL = 0.98  # share of the bits offered from which nearly all are stored
SETTLED = 0.03  # relative change of the stored bits on training twice as long, below which training has converged


@dataclass(frozen=True)
class LabelBits:
    """Bits of N labels that a network holds, by three readings.

    Args:
        coded: Σ (log2 K − CE_i/ln 2), not below 0: what is saved when the labels are sent with its predictions.
        clipped: Σ max(0, log2 K − CE_i/ln 2): labels sent with or without it, whichever is shorter; the choice is not
            counted, so it reads high where many labels are not stored.
        recalled: N (log2 K − h(e) − e log2(K − 1)) at error rate e < 1 − 1/K of the most probable class, else 0: mutual
            information of label and recalled label, errors spread evenly.
        error: e.
    """

    coded: float
    clipped: float
    recalled: float
    error: float


def stored_bits(f: Tensor, y: Tensor) -> LabelBits:
    """Compute what outputs tell about labels that were drawn evenly from K classes.

    Args:
        f: outputs (N, K).
        y: labels (N,).

    Returns:
        Bits, by three readings.
    """
    n, k = f.shape
    saved = math.log2(k) - nn.functional.cross_entropy(f.double(), y, reduction="none") / LN2
    e = float((f.argmax(-1) != y).double().mean())
    h = 0.0 if e in (0.0, 1.0) else -(e * math.log2(e) + (1 - e) * math.log2(1 - e))
    spread = e * math.log2(k - 1) if k > 2 else 0.0
    recalled = n * (math.log2(k) - h - spread) if e < 1 - 1 / k else 0.0
    return LabelBits(max(0.0, float(saved.sum())), float(saved.clamp_min(0).sum()), max(0.0, recalled), e)


@dataclass(frozen=True)
class CapacitySettings:
    """How capacity is measured.

    Args:
        load: bits of labels offered per parameter, ascending.
        seeds: networks at each load, each with inputs, labels and initialisation of its own.
        steps: of Adam on all examples at once; doubled at the best load and the next until what is stored settles.
        doublings: at most so many.
        rate: of Adam, annealed to zero.
        seed: of all draws.

    Raises:
        SettingsError: a number is out of its range.
    """

    load: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
    seeds: int = 3
    steps: int = 1000
    doublings: int = 3
    rate: float = 3e-2
    seed: int = 0

    def __post_init__(self) -> None:
        for load in self.load:
            POSITIVE(load, "load")
        for name in ("seeds", "steps"):
            COUNT(getattr(self, name), name)
        WHOLE(self.doublings, "doublings")
        POSITIVE(self.rate, "rate")
        SEED(self.seed, "seed")


@dataclass(frozen=True)
class Offered:
    """One load.

    Args:
        examples: number offered.
        steps: of the training.
        stored: what each seed's network stored.
    """

    examples: int
    steps: int
    stored: tuple[LabelBits, ...]

    def mean(self, reading: str = "coded") -> tuple[float, tuple[float, float] | None]:
        """Average a reading over seeds.

        Args:
            reading: a field of :class:`LabelBits`.

        Returns:
            The mean, and its 95% Student interval (None for one seed), bits.
        """
        values = np.array([getattr(s, reading) for s in self.stored])
        if len(values) < 2:
            return float(values.mean()), None
        half = float(student.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / math.sqrt(len(values))
        return float(values.mean()), (float(values.mean()) - half, float(values.mean()) + half)


@dataclass(frozen=True)
class Capacity:
    """A measured capacity.

    Args:
        parameters: number of them.
        classes: K.
        curve: what was stored at each load.
        longer: the best load and the next, trained twice, four times, ... as long.
        drift: relative change of the stored bits by the last doubling of the training, the larger one of the two loads
            (NaN: not doubled).
    """

    parameters: int
    classes: int
    curve: tuple[Offered, ...]
    longer: tuple[Offered, ...]
    drift: float

    @property
    def best(self) -> Offered:
        """Load at which most is stored, as trained longest."""
        return max((*self.curve, *self.longer), key=lambda o: o.mean()[0])

    @property
    def reached(self) -> bool:
        """Whether more than the best load was offered: else the capacity may be larger."""
        return self.best.examples < self.curve[-1].examples

    def measurement(self, name: str, reading: str = "coded") -> Measurement:
        """State the most that was stored, as a lower bound.

        Args:
            name: of the measurement.
            reading: a field of :class:`LabelBits`.

        Returns:
            Bits.
        """
        value, interval = self.best.mean(reading)
        notes = [] if self.reached else ["the greatest load stores most: offer more"]
        if self.reached and value > FULL * self.best.examples * math.log2(self.classes):
            notes.append("all that was offered there is stored, and at the next load training falls short: more fits")
        if not abs(self.drift) < SETTLED:
            notes.append(f"training twice as long changed it by {self.drift:.1%}")
        steps = f"{self.best.steps} steps, {len(self.best.stored)} seeds"
        how = f"lower bound: random labels of {self.best.examples} Gaussian inputs, {steps}"
        return Measurement(name, value, "bits", how, self.best.examples, interval, "", not notes, "; ".join(notes))


def mlp(inputs: int, width: int, depth: int, classes: int) -> Callable[[], nn.Module]:
    """Make fully connected networks of ReLU units.

    Args:
        inputs: numbers of an input.
        width: of the hidden layers.
        depth: number of hidden layers.
        classes: K.

    Returns:
        A function that makes a fresh network.
    """

    def make() -> nn.Module:
        sizes = [inputs, *[width] * depth]
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))

    return make


def measure_capacity(
    make: Callable[[], nn.Module],
    shape: tuple[int, ...],
    classes: int,
    settings: CapacitySettings,
    progress: Progress | None = None,
) -> Capacity:
    """Measure the most bits of random labels that trained networks of an architecture hold.

    Args:
        make: makes a fresh network.
        shape: of one input.
        classes: K, its outputs.
        settings: loads, seeds and steps.
        progress: told of every load.

    Returns:
        A lower bound, with what says how close it is.
    """
    progress = progress or Silent()
    parameters = _size(make)
    sizes = sorted({max(2, round(load * parameters / math.log2(classes))) for load in settings.load})
    curve = []
    for n in progress.track(sizes, "random labels", len(sizes)):
        curve.append(_offer(make, shape, classes, n, settings, progress))
    best = max(range(len(curve)), key=lambda k: curve[k].mean()[0])
    # Trained longer, the most may lie at the next load: at the best one perhaps all that is offered is stored.
    runs = [[o] for o in curve[best : best + 2]]
    drift = math.nan
    for k in range(settings.doublings):
        more = replace(settings, steps=settings.steps * 2 ** (k + 1))
        for run in runs:
            run.append(_offer(make, shape, classes, run[0].examples, more, progress))
        change = [run[-1].mean()[0] / max(run[-2].mean()[0], 1e-12) - 1 for run in runs]
        drift = max(change, key=abs)
        if abs(drift) < SETTLED:
            break
    longer = [o for run in runs for o in run[1:]]
    return Capacity(parameters, classes, tuple(curve), tuple(longer), drift)


def _size(make: Callable[[], nn.Module]) -> int:
    with torch.random.fork_rng(devices=[]):
        return sum(p.numel() for p in make().parameters() if p.requires_grad)


def random_task(shape: tuple[int, ...], classes: int, n: int, seeds: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw inputs, labels, and the examples of each network: none is shared.

    Args:
        shape: of one input.
        classes: K.
        n: examples of a network.
        seeds: number of networks.
        seed: of the draw.

    Returns:
        Inputs (seeds·n, ...), labels (seeds·n,), positions (seeds, n).
    """
    generator = torch.Generator().manual_seed(1_000_003 * seed + n)
    x = torch.randn(seeds * n, *shape, generator=generator)
    y = torch.randint(0, classes, (seeds * n,), generator=generator)
    return x, y, torch.arange(seeds * n).reshape(seeds, n)


def memorise(
    make: Callable[[], nn.Module], x: Tensor, y: Tensor, index: Tensor, settings: CapacitySettings
) -> list[nn.Module]:
    """Train one network for each row of positions on those examples alone, all at once, without decay.

    Args:
        make: makes a fresh network.
        x: inputs (N, ...).
        y: labels (N,).
        index: positions (M, n).
        settings: steps, rate and seed.

    Returns:
        M networks.
    """
    recipe = Recipe(settings.steps, None, settings.rate, 0.0)
    seeds = [settings.seed * 1000 + k for k in range(len(index))]
    nets = train_many(Training(make, recipe), x, y, Categorical(), seeds=seeds, index=index)
    return [nets.model(m) for m in range(len(nets))]


def _offer(
    make: Callable[[], nn.Module],
    shape: tuple[int, ...],
    classes: int,
    n: int,
    settings: CapacitySettings,
    progress: Progress,
) -> Offered:
    x, y, index = random_task(shape, classes, n, settings.seeds, settings.seed)
    models = memorise(make, x, y, index, settings)
    with torch.no_grad():
        stored = tuple(stored_bits(model(x[at]), y[at]) for model, at in zip(models, index, strict=True))
    return Offered(n, settings.steps, stored)
