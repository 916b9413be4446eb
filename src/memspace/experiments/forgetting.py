"""What new labels overwrite: bits of a first set that are left after a second one is learnt, by how much that holds."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from memspace.experiments.capacity import CapacitySettings, LabelBits, memorise, random_task, stored_bits
from memspace.progress import Progress, Silent

__all__ = ["Forgetting", "forgetting_curve"]


@dataclass(frozen=True)
class Forgetting:
    """What a second set of labels leaves of a first one, per seed and size of the second.

    Args:
        parameters: of the networks.
        first: number of examples of the first set.
        second: numbers of examples of the second, (B,).
        before: what the networks held of the first set before any of the second, (S,).
        kept: what they hold of the first set afterwards, (S, B).
        stored: what they hold of the second, (S, B).
    """

    parameters: int
    first: int
    second: tuple[int, ...]
    before: tuple[LabelBits, ...]
    kept: tuple[tuple[LabelBits, ...], ...]
    stored: tuple[tuple[LabelBits, ...], ...]

    def curve(self, reading: str = "recalled") -> tuple[np.ndarray, np.ndarray]:
        """Arrange bits of both sets; the first column is before the second set.

        Args:
            reading: a field of :class:`LabelBits`.

        Returns:
            Bits of the second set stored, and bits of the first left, (S, 1 + B) each.
        """
        new = [[0.0, *(getattr(b, reading) for b in row)] for row in self.stored]
        old = [
            [getattr(a, reading), *(getattr(b, reading) for b in row)]
            for a, row in zip(self.before, self.kept, strict=True)
        ]
        return np.array(new), np.array(old)

    def half(self, reading: str = "recalled") -> list[float]:
        """Find the bits of the second set at which half of the first is gone, interpolated.

        Args:
            reading: a field of :class:`LabelBits`.

        Returns:
            One number a seed; NaN where it never is.
        """
        out = []
        for new, old in zip(*self.curve(reading), strict=True):
            below = np.nonzero(old <= old[0] / 2)[0]
            if not len(below):
                out.append(math.nan)
                continue
            k = int(below[0])
            share = (old[k - 1] - old[0] / 2) / max(old[k - 1] - old[k], 1e-12)
            out.append(float(new[k - 1] + share * (new[k] - new[k - 1])))
        return out


def forgetting_curve(
    make: Callable[[], nn.Module],
    shape: tuple[int, ...],
    classes: int,
    first: int,
    second: Sequence[int],
    settings: CapacitySettings,
    progress: Progress | None = None,
    slower: float = 3.0,
) -> Forgetting:
    """Train on random labels of a first set, then of a second alone; recall both.

    Args:
        make: makes a fresh network.
        shape: of one input.
        classes: K.
        first: examples of the first set.
        second: sizes of the second, each learnt from the same network.
        settings: seeds, steps and rate.
        progress: told of every size.
        slower: the second set is learnt at the rate divided by this. Adam's steps keep their size however small the
            gradient: the higher the rate, the more is lost to it alone.

    Returns:
        Bits of both sets.
    """
    progress = progress or Silent()
    s = settings.seeds
    x, y, index = random_task(shape, classes, first, s, settings.seed)
    models = memorise(make, x, y, index, settings)
    before = [_held(m, x[at], y[at]) for m, at in zip(models, index, strict=True)]
    left: list[list[LabelBits]] = [[] for _ in range(s)]
    stored: list[list[LabelBits]] = [[] for _ in range(s)]
    for n in progress.track(second, "overwriting", len(second)):
        other = replace(settings, seed=settings.seed + 7_001, rate=settings.rate / slower)
        u, v, rows = random_task(shape, classes, n, s, other.seed)
        for k, (model, at) in enumerate(zip(models, rows, strict=True)):
            (after,) = memorise(_from(model), u, v, at[None], other)
            left[k].append(_held(after, x[index[k]], y[index[k]]))
            stored[k].append(_held(after, u[at], v[at]))
    size = sum(p.numel() for p in models[0].parameters())
    return Forgetting(size, first, tuple(second), tuple(before), tuple(map(tuple, left)), tuple(map(tuple, stored)))


def _from(model: nn.Module) -> Callable[[], nn.Module]:
    """Training that goes on from a network instead of from a fresh one; its optimiser starts fresh."""
    return lambda: copy.deepcopy(model).train()


@torch.no_grad()
def _held(model: nn.Module, x: Tensor, y: Tensor) -> LabelBits:
    return stored_bits(model(x), y)
