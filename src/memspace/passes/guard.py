"""Which batches of a pass are proven, what becomes of those that fail, and what that may cost.

Proven are the first batch and the last, every batch whose record of calls is new (see ``proof.record_of``), and others
at random, at a rate that holds the cost of all proofs at a share of the reading: what the ends of a short pass take is
made up for by later passes, which find the ends proven. A proof also reads two examples again, in a batch
of their own: data that are random and outputs that depend on their batch show there.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from memspace.errors import DataError, UnsupportedLayerError
from memspace.passes.capture import Signals
from memspace.passes.generic import PLAINEST
from memspace.passes.proof import RefutedError, mismatched, record_of
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import of_its_batch
from memspace.task.checks import depends_on_batch
from memspace.task.data import Batch, Data, Inputs, call_model, move
from memspace.task.task import Task
from memspace.task.tensors import leaves

__all__ = ["Guard", "at_once", "overruled"]

COST = 0.05  # of the time of all reading, beyond which no batch is drawn at random
FORMED = 2**27  # numbers of per-example gradients that the generic way may hold at a time


class Guard:
    """Watches the batches of one pass; give it to :class:`Capture` as ``proof``.

    What was proven is remembered with the space: a batch is not proven twice at the same weights.
    """

    def __init__(self, task: Task, space: ParameterSpace, data: Data, total: int, seed: int = 0) -> None:
        self._task, self._space, self._data, self._total = task, space, data, total
        self._parameters = space.parameters(task.model)
        self._draw = random.Random(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._due, self._seen = False, 0
        self._purse, self._mark, self._aside = space.purse, time.process_time(), 0.0
        self._key: tuple[object, ...] = ()

    def begin(self, part: Batch, signals: Signals) -> None:
        """Decide whether this batch is to be proven, and read two of its examples again if so."""
        first = not self._seen
        self._seen += len(part)
        record = record_of(signals, self._parameters)
        # The outputs stand for weights and data: addresses of freed tensors are used again.
        what = (float(signals.f.double().sum()), int(part.index[0]), int(part.index[-1]), len(part))
        self._key = (frozenset(self._space.refuted), self._space.manner, *what)
        end = (first or self._seen >= self._total) and self._key not in self._space.proven
        new = record not in self._space.proven
        self._due = self._drawn(len(part)) or end or new
        if self._due:
            begun = time.process_time()
            self._space.proven |= {record, self._key}
            self._repeated(part, signals.f)
            self._pay(time.process_time() - begun)
            self._purse.proven += len(part)

    def _pay(self, seconds: float) -> None:
        """Book time as spent on a proof."""
        self._purse.proving += seconds
        self._aside += seconds

    def _drawn(self, count: int) -> bool:
        """By chance, as soon as what all proofs have cost and so many examples more leaves them a small enough part."""
        now, purse = time.process_time(), self._purse
        purse.reading += now - self._mark - self._aside
        self._mark, self._aside = now, 0.0
        each = purse.proving / purse.proven if purse.proven else math.inf
        return purse.proving + each * count <= COST * purse.reading and self._draw.random() < 0.5

    def __call__(self, signals: Signals, u: Tensor, pulled: Mapping[str, Tensor]) -> None:
        """Prove what was pulled back, where this batch is due.

        Raises:
            RefutedError: with the modules that fail.
        """
        if not self._due:
            return
        begun = time.process_time()
        wrong = mismatched(self._space, self._parameters, signals, u, pulled, self._generator)
        self._pay(time.process_time() - begun)
        if wrong:
            raise RefutedError(wrong, len(u))

    def _repeated(self, part: Batch, f: Tensor) -> None:
        """Two of the examples again, by themselves.

        Raises:
            DataError: inputs or labels are not those of before.
            StochasticModelError: the outputs are not.
        """
        task, count = self._task, len(part)
        where = sorted(self._draw.sample(range(count), min(2, count)))
        again = self._data.again(part.index[where])
        name = f"{self._data.name}, examples {', '.join(str(int(i)) for i in again.index)}"
        if all(len(leaf) == count for leaf in leaves(part.x)):  # else rows are not examples: bags joined to one list
            _same(_taken(part.x, where), again.x, name, "inputs")
        _same(_taken(part.y, where), again.y, name, "labels")
        if count == len(where):
            return
        with torch.enable_grad():  # as in the pass: fused inference kernels round otherwise
            alone = call_model(task.model, move(again.x, task.device, task.dtype)).detach()
        before = f[where]
        if alone.dim() > 2 and alone.shape[1] != before.shape[1]:  # sequences filled up to another length
            shorter = min(alone.shape[1], before.shape[1])
            alone, before = alone[:, :shorter], before[:, :shorter]
            y = move(again.y, task.device)[:, :shorter]
        else:
            y = move(again.y, task.device)
        counted = (task.likelihood.weight(before, y) > 0).unsqueeze(-1)
        apart = float(((alone - before) * counted).abs().max())
        if not apart <= 10 * torch.finfo(f.dtype).eps ** 0.5 * max(1.0, float(before.abs().max())):
            raise depends_on_batch(
                task.model,
                f"an example's outputs depend on its batch: read with other examples they differ by {apart:.2g}",
                f"{type(task.model).__name__}, {name}",
                "let the model treat every example by itself: no choice or statistic of the whole batch, and "
                "padding that changes nothing",
            )


def overruled(task: Task, space: ParameterSpace, error: RefutedError | UnsupportedLayerError, part: Batch) -> None:
    """Have the modules that failed read the generic way from now on, or refuse.

    Args:
        part: the batch at which they failed.

    Raises:
        StochasticModelError: an example's outputs depend on its batch.
        UnsupportedLayerError: the generic way does not give autograd's gradient either.
    """
    space.late = space.late or space.finished > 0
    modules = error.modules if isinstance(error, RefutedError) else {error.where}
    mine = {b.module for b in space.blocks if b.rule.hooked and modules & set(b.modules)} - space.refuted
    if mine:
        space.refuted |= mine
        return
    if isinstance(error, UnsupportedLayerError):
        raise error
    if space.manner < PLAINEST:
        space.manner += 1
        return
    of_its_batch(task, move(part.x, task.device, task.dtype), f"examples {int(part.index[0])}..{int(part.index[-1])}")
    raise UnsupportedLayerError(
        "its per-example gradients do not add up to autograd's gradient",
        where=", ".join(sorted(modules)),
        remedy="freeze it (requires_grad=False) or rewrite it with standard layers",
    )


def at_once(space: ParameterSpace, cotangents: int) -> int:
    """Examples whose gradients, as far as they come the generic way, may be held at a time."""
    numbers = sum(b.size for b in space.blocks if b.module in space.refuted)
    return max(1, FORMED // max(1, numbers * cotangents))


def _taken(x: Inputs, where: list[int]) -> Inputs:
    if isinstance(x, Tensor):
        return x[where]
    if isinstance(x, dict):
        return {k: _taken(v, where) for k, v in x.items()}
    return tuple(_taken(v, where) for v in x) if isinstance(x, list | tuple) else x


def _same(before: Inputs, again: Inputs, where: str, what: str) -> None:
    if isinstance(before, dict) and isinstance(again, dict):
        before, again = tuple(before.values()), tuple(again.values())
    if isinstance(before, list | tuple):
        for a, b in zip(before, again, strict=False):
            _same(a, b, where, what)
        return
    if not isinstance(before, Tensor) or before.shape != again.shape:
        return  # filled up to another length: the outputs will tell
    if not torch.equal(torch.nan_to_num(before), torch.nan_to_num(again.to(before.device))):
        raise DataError(
            f"the data give different {what} when read twice",
            where=where,
            remedy="switch random augmentation or sampling off for the audit",
        )
