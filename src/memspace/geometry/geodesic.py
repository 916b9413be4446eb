"""The shortest path found between two networks, with what is certain about it.

Lower bound: the ambient distance of their predictions, which no path undercuts. Upper bound: the length of an actual
path in the parameters, a polygon of networks, measured with its sides cut until the length stands still, with the last
cut's gain added (``PathLength.upper``). The path is
relaxed from the straight line, from a curve through low loss (quadratic Bézier, Garipov et al. 2018) and from the
training path where one is given, so it is never longer than any of these. All on the same examples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from memspace.arguments import check_fields, typed
from memspace.display import Columns, Shown
from memspace.errors import SettingsError, WeightsMismatchError
from memspace.geometry.descent import CHUNK, descend
from memspace.geometry.stacked import PathProbe, State, held_between, probe_of
from memspace.geometry.string import midpoints, respaced, shortest
from memspace.limits import COUNT, POSITIVE, SEED, Limit
from memspace.measurement import Measurement
from memspace.metric.fisher import build
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress, Silent
from memspace.task.checkpoint import as_state, check_fit
from memspace.task.checks import holding
from memspace.task.task import Task

__all__ = ["Geodesic", "GeodesicSettings", "PathLength", "geodesic", "path_length"]

FINEST = 1024  # cuts of a side of the polygon at most
SETTLED = 2e-3  # relative change of a length by the last halving below which it counts as settled
MOST = 2**11  # points a length is measured at
LEVEL = Limit(2, MOST, whole=True)
BEZIER, BEZIER_POINTS = 60, 5  # evaluations spent on the curve of low loss, and points on it where the loss is taken


@dataclass(frozen=True)
class PathLength:
    """A polygon's length on the probe examples.

    Args:
        squared: squared steps per example, (M, n).
        change: what the last halving added; a third of it is what a smooth path still lacks, and one with kinks (ReLU)
            lacks about as much.
        sides: number of cuts a side was given.
        earlier: what the halving before the last one added.
    """

    squared: Tensor
    change: float
    sides: int
    earlier: float = 0.0

    @property
    def value(self) -> float:
        """Σ √(mean d²), nats^½, with the missing third added: Richardson's estimate of the continuous length."""
        return self.measured + max(0.0, self.change) / 3

    @property
    def measured(self) -> float:
        """The sum of the steps itself: a lower bound of the continuous length."""
        return float(self.squared.mean(1).sqrt().sum())

    @property
    def upper(self) -> float:
        """Upper bound: each further halving is taken to add the same share of the one before it, half at least."""
        change = max(0.0, self.change)
        share = min(0.9, max(0.5, change / self.earlier if self.earlier > 0 else 0.5))
        return self.measured + change * share / (1 - share)

    def effect(self) -> Tensor:
        """Differentiate the length by the examples' weights, to first order.

        Returns:
            (n,) nats^½, mean zero.
        """
        steps = self.squared.mean(1, keepdim=True).sqrt()
        parts = (self.squared - steps.square()) / (2 * steps.clamp_min(1e-300))
        return torch.where(steps > 0, parts, 0.0).sum(0)

    def error(self) -> float:
        """Estimate the standard error of the length over examples (delta method).

        Returns:
            Nats^½; 0 for a single example.
        """
        effect = self.effect()
        return float(effect.std()) / len(effect) ** 0.5 if len(effect) > 1 else 0.0


@dataclass(frozen=True)
class GeodesicSettings:
    """How a short path is searched for.

    Args:
        examples: number of training examples the lengths are taken on.
        levels: points of the string, coarse to fine.
        limit: evaluations of the energy per level and start.
        tolerance: relative fall of the energy by 20 evaluations at which a level ends.
        curve: also start from a curve of low loss (Garipov et al. 2018).
        seed: random seed of the choice of examples.

    Raises:
        SettingsError: one of them is out of its range.
    """

    examples: Annotated[int, COUNT] = 512
    levels: tuple[int, ...] = (9, 17, 33)
    limit: Annotated[int, COUNT] = 100
    tolerance: Annotated[float, POSITIVE] = 3e-3
    curve: bool = True
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        counts = tuple(LEVEL(level, "levels", "memspace.GeodesicSettings") for level in self.levels)
        object.__setattr__(self, "levels", counts)
        if not counts or list(counts) != sorted(counts):
            raise SettingsError(
                f"levels are {', '.join(map(str, counts)) or 'none'}, not numbers of points from coarse to fine",
                where="memspace.GeodesicSettings",
                remedy="give at least one, for example (9, 17, 33)",
            )


@dataclass(frozen=True, repr=False)
class Geodesic(Shown):
    """A path of networks between two given ones. Lengths are in nats^½, all on the same examples.

    Args:
        states: S state dicts, the ends first and last.
        points: the same as flat vectors, (S, P).
        length: of the path found.
        lower: ambient distance of the ends.
        straight: length of the straight line.
        given: length of the path that was passed, None without one.
        energy: (S−1) Σ d² over the states.
        uneven: √energy over the sum of steps, less 1 (0 at constant speed).
        remaining: share of the energy another Newton step is expected to gain.
        status: ``converged``, ``limit`` (evaluations ran out), or ``kept`` (a start was shorter than what came of it).
        start: name of the start it came from.
        seconds: wall-clock time.
        evaluations: of the energy.
        epochs: forward and backward passes over examples, in epochs of the training set.
        probe: the examples, for measuring more along the path.
    """

    states: tuple[dict[str, Tensor], ...]
    points: Tensor
    length: PathLength
    lower: float
    straight: PathLength
    given: PathLength | None
    energy: float
    uneven: float
    remaining: float
    status: str
    start: str
    seconds: float
    evaluations: int
    epochs: float
    probe: PathProbe

    def _title(self) -> str:
        return f"a path of {len(self.states)} networks on {self.probe.n} examples: {self.status}, from the {self.start}"

    def _quantities(self) -> tuple[Measurement, ...]:
        lengths = {
            "geodesic.length": (self.length.value, "length of the path found"),
            "geodesic.upper": (self.length.upper, "upper bound of the shortest length: the path, fully resolved"),
            "geodesic.lower": (self.lower, "lower bound: the distance of the predictions, which no path undercuts"),
            "geodesic.straight": (self.straight.value, "length of the straight line"),
        }
        return tuple(Measurement(name, v, "nats^½", how, self.probe.n) for name, (v, how) in lengths.items())

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"path": self._rows}

    def _rows(self) -> Columns:
        """A row a step of the path."""
        steps = self.length.squared.mean(1).sqrt().tolist()
        return {"step": list(range(len(steps))), "length": steps}

    @property
    def gap(self) -> float:
        """Upper bound of the length found over the lower bound, less 1: at most so much is left to gain."""
        return self.length.upper / self.lower - 1 if self.lower > 0 else 0.0

    @property
    def ratio(self) -> float:
        """Length found over that of the straight line."""
        return self.length.value / self.straight.value if self.straight.value > 0 else 1.0


@typed
def geodesic(
    task: Task,
    a: State,
    b: State,
    *,
    path: Sequence[State] = (),
    settings: GeodesicSettings | None = None,
    progress: Progress | None = None,
) -> Geodesic:
    """Find a short path between two states of a task's model.

    Args:
        task: the model, its law and data.
        a: the first state dict.
        b: the last state dict.
        path: states from a to b, for example the checkpoints of a training: a further start, and an upper bound.
        settings: examples, levels and accuracy of the search.
        progress: told of the work as it goes.

    Returns:
        The shortest path found, with the bounds of every path's length.

    Raises:
        TaskError: the output law has no embedding.
        WeightsMismatchError: a state is not one of this task's model.
    """
    path = tuple(as_state(state, "memspace.geodesic") for state in path)
    for state in (a, b):
        check_fit(task.model, state, "memspace.geodesic")
    began, progress, settings = time.perf_counter(), progress or Silent(), settings or GeodesicSettings()
    levels, limit = settings.levels, settings.limit
    space = ParameterSpace.of(task)
    probe = _probe_between(task, space, a, b, settings.examples, settings.seed)
    ends = torch.stack([_flat(space, s, task) for s in (a, b)])
    with torch.no_grad():
        lower = float(probe.steps(ends).sqrt())
    polygon = torch.stack([_flat(space, s, task) for s in path]) if path else ends
    straight = path_length(probe, ends)
    given_length = path_length(probe, polygon) if path else None
    root = _preconditioner(task, probe, ends)
    starts, visited = _starts(probe, ends, polygon if path else None, root if settings.curve else None, levels[0])
    handle = progress.start("shortest path", (len(starts) + len(levels) - 1) * -(-limit // CHUNK))
    string = shortest(
        [p for _, p in starts],
        probe.steps,
        root=root,
        levels=levels,
        limit=limit,
        tolerance=settings.tolerance,
        report=lambda _: progress.advance(handle),
    )
    progress.finish(handle)
    points, length = string.points, path_length(probe, string.points)
    status, start = ("converged" if string.converged else "limit"), starts[string.chosen][0]
    for name, known, corners in (("straight line", straight, ends), ("given path", given_length, polygon)):
        if known is not None and known.value < length.value:
            points, length, status, start = corners, known, "kept", name
    shares = torch.linspace(0, 1, len(points), dtype=torch.float64).tolist()
    return Geodesic(
        states=tuple(probe.state(p, t) for p, t in zip(points, shares, strict=True)),
        points=points,
        length=length,
        lower=lower,
        straight=straight,
        given=given_length,
        energy=string.energy,
        uneven=string.uneven,
        remaining=string.remaining,
        status=status,
        start=start,
        seconds=time.perf_counter() - began,
        evaluations=string.evaluations,
        epochs=(visited + string.visited) * probe.n / len(task.train),
        probe=probe,
    )


def _probe_between(task: Task, space: ParameterSpace, a: State, b: State, examples: int, seed: int) -> PathProbe:
    """Training examples drawn at random, with what lies outside the parameters taken from both ends."""
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(seed + 9))
    probe = probe_of(task, space, order[: max(2, min(examples, len(order)))].sort().values)
    probe.held = held_between(task, space, a, b)
    return probe


def _preconditioner(task: Task, probe: PathProbe, ends: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows ↦ (F + γI)^{-½} of each, F by EKFAC half way between the ends, γ its mean eigenvalue."""
    with holding(task.model, probe.state((ends[0] + ends[1]) / 2, 0.5)):
        metric = build(task, probe.space, "ekfac", index=probe.index)
    damping = max(metric.trace().value / probe.space.size, 1e-12)
    return lambda rows: metric.apply(lambda values: torch.rsqrt(values + damping), rows)


def path_length(probe: PathProbe, points: Tensor) -> PathLength:
    """Measure the polygon through the points, each side cut in two until the length stands still.

    Args:
        probe: the examples.
        points: corners (S, P).

    Returns:
        The length, with the gain of the last cuts as its error.
    """
    sides, before, earlier = 1, 0.0, 0.0
    while True:
        with torch.no_grad():
            squared = probe.squared(points)
        now = float(squared.mean(1).sqrt().sum())
        change = now - before
        if sides > 1 and (abs(change) <= SETTLED * now or sides >= FINEST or len(points) > MOST):
            return PathLength(squared, change, sides, earlier if sides > 2 else 0.0)
        points, sides, before, earlier = midpoints(points), 2 * sides, now, change


def _flat(space: ParameterSpace, state: State, task: Task) -> Tensor:
    parameters = space.parameters(task.model)
    lost = [n for n, p in parameters.items() if n not in state or state[n].shape != p.shape]
    if lost:
        raise WeightsMismatchError(
            f"a state lacks {lost[0]} or has it in another shape",
            where="geodesic",
            remedy="give states of this task's model: copies of its state_dict()",
        )
    return space.pack({n: state[n].to(task.device) for n in space.names}).double()


def _starts(
    probe: PathProbe, ends: Tensor, polygon: Tensor | None, root: Callable[[Tensor], Tensor] | None, count: int
) -> tuple[list[tuple[str, Tensor]], int]:
    """The paths to relax, by name, and at how many points the model ran to find them."""
    shares = torch.linspace(0, 1, count, dtype=torch.float64).to(ends).unsqueeze(1)
    starts = [("straight line", ends[:1] + shares * (ends[1:] - ends[:1]))]
    if polygon is not None:
        with torch.no_grad():
            starts.append(("given path", respaced(polygon, probe.steps(polygon), count)))
    if root is None:
        return starts, 0
    inner = torch.linspace(0, 1, BEZIER_POINTS + 2, dtype=torch.float64).to(ends)[1:-1].unsqueeze(1)

    def loss(middle: Tensor) -> Tensor:
        """Mean loss along the curve with this control point."""
        f = probe.outputs(_bezier(ends, middle, inner), inner.squeeze(1)).double()
        return probe.task.likelihood.nll(f, probe.y.expand(len(f), *probe.y.shape)).mean()

    lowest = descend(loss, ends.mean(0, keepdim=True), root=root, limit=BEZIER, tolerance=1e-2)
    starts.append(("curve of low loss", _bezier(ends, lowest.x, shares)))
    return starts, lowest.evaluations * len(inner)


def _bezier(ends: Tensor, middle: Tensor, t: Tensor) -> Tensor:
    """(1−t)² a + 2t(1−t) m + t² b at t (S, 1)."""
    return (1 - t) ** 2 * ends[:1] + 2 * t * (1 - t) * middle + t**2 * ends[1:]
