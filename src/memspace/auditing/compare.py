"""Two networks of one task compared: how far apart, over which barrier, in which layers, on which examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace.geometry.geodesic import Geodesic, PathLength, geodesic, path_length
from memspace.geometry.layers import LayerLengths, layer_lengths
from memspace.geometry.matching import Matching, match
from memspace.geometry.stacked import Probe, State, held_between, probe_of
from memspace.geometry.string import midpoints
from memspace.progress import Progress, Silent
from memspace.task.task import Task

__all__ = ["Comparison", "compare_networks"]

TEST = 1000  # test examples the loss along a path is taken on


@dataclass(frozen=True)
class Comparison:
    """What was found between two states; loss curves (M, n) are per example along ``share`` (M,)."""

    geodesic: Geodesic
    matching: Matching | None
    unmatched: PathLength | None
    layers: LayerLengths
    share: Tensor
    losses: dict[str, Tensor]
    outputs: Tensor  # (2, n, ..., C) at the two ends


def compare_networks(
    task: Task,
    a: State,
    b: State,
    *,
    align: bool = False,
    path: Sequence[State] = (),
    examples: int = 512,
    limit: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Measure two states of a task's model against each other.

    Args:
        align: reorder the hidden units of b to match those of a first.
        path: states from a to b, if a training recorded them; not with ``align``, which moves b away from their end.
        examples, limit, seed: as in :func:`memspace.geometry.geodesic.geodesic`.
    """
    progress = progress or Silent()
    matching = match(task, a, b, seed=seed) if align else None
    end = b if matching is None else matching.state
    path = () if align else path
    found = geodesic(task, a, end, path=path, examples=examples, limit=limit, seed=seed, progress=progress)
    unmatched = None
    if matching is not None:
        probe = replace(found.probe, held=held_between(task, found.probe.space, a, b))
        unmatched = path_length(probe, torch.stack([_flat(found.probe, s) for s in (a, b)]))
    layers = layer_lengths(found.probe, found.points, progress)
    share, losses = _losses(found, seed)
    with torch.no_grad():
        outputs = found.probe.outputs(found.points[[0, -1]]).double()
    return Comparison(found, matching, unmatched, layers, share, losses, outputs)


def _flat(probe: Probe, state: State) -> Tensor:
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
        for name, points in (("straight line", line), ("geodesic", fine)):
            with torch.no_grad():
                f = probe.outputs(points).double()
            loss = task.likelihood.nll(f, probe.y.expand(len(f), *probe.y.shape))
            out[f"{name}, {data} examples"] = loss.flatten(2).sum(2).cpu() if loss.dim() > 2 else loss.cpu()
    return share, out
