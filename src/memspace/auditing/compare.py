"""Two networks of one task compared: how far apart, over which barrier, in which layers, on which examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from memspace.arguments import check_fields
from memspace.auditing.results import Results
from memspace.display import Columns, Quantity, Shown
from memspace.geometry.geodesic import Geodesic, GeodesicSettings, PathLength, geodesic, path_length
from memspace.geometry.layers import LayerLengths, layer_lengths
from memspace.geometry.matching import Matching, match
from memspace.geometry.stacked import PathProbe, State, held_between, probe_of
from memspace.geometry.string import midpoints
from memspace.limits import COUNT, SEED, SEVERAL
from memspace.progress import Progress, Silent
from memspace.task.task import Task

__all__ = ["LINE", "CompareSettings", "NetworkComparison", "NetworkNames", "compare_networks"]

LINE = "straight line"  # what the curve of losses along it is called
TEST = 1000  # test examples the loss along a path is taken on


@dataclass(frozen=True)
class CompareSettings:
    """How two networks are compared.

    Args:
        align: reorder the hidden units of the second network to match those of the first before.
        examples: training examples that lengths are taken on.
        effort: evaluations of the energy per level of the search for the shortest path.
        seed: random seed of the examples and of the matching.

    Raises:
        SettingsError: a number is out of its range.
    """

    align: bool = False
    examples: Annotated[int, SEVERAL] = 512
    effort: Annotated[int, COUNT] = 100
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class NetworkNames:
    """What two networks are called on the page that compares them.

    Args:
        first: the network the path leaves.
        second: the network it reaches.
    """

    first: str
    second: str


@dataclass(frozen=True, repr=False)
class NetworkComparison(Shown):
    """What was found between two states of a task's model.

    Args:
        geodesic: the shortest path found, with bounds.
        matching: how the hidden units were reordered, where they were.
        unmatched: the straight line before matching, where there was one.
        layers: lengths by layer.
        share: (M,) positions along the path, from 0 to 1.
        losses: per curve ("geodesic, test examples") the losses (M, n) by example.
        outputs: (2, n, ..., C) at the two ends.
        results: the same as chapters of a page, with every number as a measurement.
    """

    geodesic: Geodesic
    matching: Matching | None
    unmatched: PathLength | None
    layers: LayerLengths
    share: Tensor
    losses: dict[str, Tensor]
    outputs: Tensor
    results: Results | None = None

    def _title(self) -> str:
        return self.geodesic._title() if self.results is None else self.results.name

    def _quantities(self) -> Sequence[Quantity]:
        return self.geodesic._quantities() if self.results is None else self.results._quantities()

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {} if self.results is None else self.results._tables()


def compare_networks(
    task: Task,
    a: State,
    b: State,
    *,
    path: Sequence[State] = (),
    settings: CompareSettings | None = None,
    progress: Progress | None = None,
) -> NetworkComparison:
    """Compare two states of a task's model.

    Args:
        task: whose model the states are of.
        a: the first state dict.
        b: the second.
        path: states from a to b, if a training recorded them; ignored where b is aligned, which moves it off the path.
        settings: alignment, examples and effort.
        progress: where the work reports.

    Returns:
        the comparison, without ``results``.

    Raises:
        TaskError: the output law has no embedding.
        WeightsMismatchError: a state is not one of the task's model.
    """
    settings = settings or CompareSettings()
    align, seed = settings.align, settings.seed
    progress = progress or Silent()
    matching = match(task, a, b, seed=seed) if align else None
    end = b if matching is None else matching.state
    path = () if align else path
    search = GeodesicSettings(examples=settings.examples, limit=settings.effort, seed=seed)
    shortest = geodesic(task, a, end, path=path, settings=search, progress=progress)
    unmatched = None
    if matching is not None:
        probe = replace(shortest.probe, held=held_between(task, shortest.probe.space, a, b))
        unmatched = path_length(probe, torch.stack([_flat(shortest.probe, s) for s in (a, b)]))
    layers = layer_lengths(shortest.probe, shortest.points, progress)
    share, losses = _losses(shortest, seed)
    with torch.no_grad():
        outputs = shortest.probe.outputs(shortest.points[[0, -1]]).double()
    return NetworkComparison(shortest, matching, unmatched, layers, share, losses, outputs)


def _flat(probe: PathProbe, state: State) -> Tensor:
    return probe.space.pack({n: state[n].to(probe.task.device) for n in probe.space.names}).double()


def _losses(found: Geodesic, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss per example along straight line and geodesic, on the probe and on test examples."""
    task = found.probe.task
    fine = midpoints(found.points, max(0, 7 - (len(found.points) - 1).bit_length()))
    share = torch.linspace(0, 1, len(fine), dtype=torch.float64)
    line = found.points[:1] + share.to(fine).unsqueeze(1) * (found.points[-1:] - found.points[:1])
    probes = {"training": found.probe}
    if task.test is not None:
        generator = torch.Generator().manual_seed(seed + 11)
        some = torch.randperm(len(task.test), generator=generator)[:TEST].sort().values
        probes["test"] = replace(probe_of(task, found.probe.space, some, test=True), held=found.probe.held)
    out = {}
    for data, probe in probes.items():
        for name, points in ((LINE, line), ("geodesic", fine)):
            with torch.no_grad():
                f = probe.outputs(points).double()
            loss = task.likelihood.nll(f, probe.y.expand(len(f), *probe.y.shape))
            out[f"{name}, {data} examples"] = loss.flatten(2).sum(2).cpu() if loss.dim() > 2 else loss.cpu()
    return share, out
