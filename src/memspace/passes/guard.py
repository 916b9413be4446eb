"""The batches of a pass that are proven, and what happens where a proof fails.

The first and the last batch are proven, every batch whose record of calls is new (see ``proof.record_of``), and others
at random. The random ones keep the cost of all proofs below a share of the reading time: later passes, which find the
first and last batch proven already, make up for short ones. A proof also reads two examples again, in a batch of their
own, which shows random data and outputs that depend on their batch.
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
from memspace.passes.example_by_example import PLAINEST
from memspace.passes.proof import RefutedError, mismatched, record_of
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import of_its_batch
from memspace.task.checks import depends_on_batch
from memspace.task.data import Batch, Data, Inputs, call_model, move
from memspace.task.task import Task
from memspace.task.tensors import leaves

__all__ = ["Guard", "at_once", "overruled"]

COST = 0.05  # share of the reading time; proofs that cost more are not drawn at random
FORMED = 2**27  # numbers of per-example gradients held at a time where they are differentiated example by example


class Guard:
    """Proves batches of one pass; passed to :class:`Capture` as ``proof``.

    The space remembers what was proven, so that no batch is proven twice at the same weights.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        data: that the pass reads.
        total: number of examples of the pass.
        seed: of the batches and examples drawn.
    """

    def __init__(self, task: Task, space: ParameterSpace, data: Data, total: int, seed: int = 0) -> None:
        self._task, self._space, self._data, self._total = task, space, data, total
        self._parameters = space.parameters(task.model)
        self._draw = random.Random(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._due, self._seen = False, 0
        self._cost, self._mark, self._aside = space.proof_cost, time.process_time(), 0.0
        self._key: tuple[object, ...] = ()

    def begin(self, part: Batch, signals: Signals) -> None:
        """Decide whether this batch is to be proven, and read two of its examples again if so.

        Args:
            part: the batch.
            signals: of its forward pass.

        Raises:
            DataError: inputs or labels of an example differ when read again.
            StochasticModelError: its outputs do.
        """
        first = not self._seen
        self._seen += len(part)
        record = record_of(signals, self._parameters)
        # The outputs identify weights and data: addresses of freed tensors are used again.
        identity = (float(signals.f.double().sum()), int(part.index[0]), int(part.index[-1]), len(part))
        self._key = (frozenset(self._space.refuted), self._space.manner, *identity)
        end = (first or self._seen >= self._total) and self._key not in self._space.proven
        new = record not in self._space.proven
        self._due = self._drawn(len(part)) or end or new
        if self._due:
            begun = time.process_time()
            self._space.proven |= {record, self._key}
            self._repeated(part, signals.f)
            self._pay(time.process_time() - begun)
            self._cost.proven += len(part)

    def _pay(self, seconds: float) -> None:
        """Book time as spent on a proof."""
        self._cost.proving += seconds
        self._aside += seconds

    def _drawn(self, count: int) -> bool:
        """Whether a batch of ``count`` examples is drawn, as long as all proofs cost a small share of the reading."""
        now, cost = time.process_time(), self._cost
        cost.reading += now - self._mark - self._aside
        self._mark, self._aside = now, 0.0
        per_example = cost.proving / cost.proven if cost.proven else math.inf
        return cost.proving + per_example * count <= COST * cost.reading and self._draw.random() < 0.5

    def __call__(self, signals: Signals, u: Tensor, pulled: Mapping[str, Tensor]) -> None:
        """Prove what was pulled back, where this batch is due.

        Args:
            signals: of the forward pass.
            u: (K, B, ..., C) output cotangents.
            pulled: what ``Signals.cotangents`` returned for them.

        Raises:
            RefutedError: some modules fail; names them.
        """
        if not self._due:
            return
        begun = time.process_time()
        wrong = mismatched(self._space, self._parameters, signals, u, pulled, self._generator)
        self._pay(time.process_time() - begun)
        if wrong:
            raise RefutedError(wrong, len(u))

    def _repeated(self, part: Batch, f: Tensor) -> None:
        """Read two of the examples again in a batch of their own."""
        task, count = self._task, len(part)
        where = sorted(self._draw.sample(range(count), min(2, count)))
        again = self._data.again(part.index[where])
        name = f"{self._data.name}, examples {', '.join(str(int(i)) for i in again.index)}"
        if all(len(leaf) == count for leaf in leaves(part.x)):  # bags joined to one list have other rows
            _same(_taken(part.x, where), again.x, name, "inputs")
        _same(_taken(part.y, where), again.y, name, "labels")
        if count == len(where):
            return
        with torch.enable_grad():  # as in the pass: fused inference kernels round differently
            alone = call_model(task.model, move(again.x, task.device, task.dtype)).detach()
        before = f[where]
        if alone.dim() > 2 and alone.shape[1] != before.shape[1]:  # sequences padded to another length
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
                "let the model treat every example independently: no choice or statistic of the whole batch, and "
                "padding that changes nothing",
            )


def overruled(task: Task, space: ParameterSpace, error: RefutedError | UnsupportedLayerError, part: Batch) -> None:
    """Mark the modules that failed as differentiated example by example from now on, or refuse.

    Args:
        task: the network and its data.
        space: the parameters, changed in place.
        error: names the modules.
        part: the batch at which they failed.

    Raises:
        StochasticModelError: an example's outputs depend on its batch.
        UnsupportedLayerError: gradients differentiated example by example are not autograd's either.
    """
    space.late = space.late or space.finished > 0
    modules = error.modules if isinstance(error, RefutedError) else {error.where}
    refuted = {b.module for b in space.blocks if b.rule.hooked and modules & set(b.modules)} - space.refuted
    if refuted:
        space.refuted |= refuted
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
    """Compute how many examples may be read at a time while gradients are differentiated example by example.

    Args:
        space: the parameters.
        cotangents: pulled back per example.

    Returns:
        A number of examples, at least 1.
    """
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
        return  # padded to another length: the outputs are compared instead
    if not torch.equal(torch.nan_to_num(before), torch.nan_to_num(again.to(before.device))):
        raise DataError(
            f"the {what} differ when the data are read twice",
            where=where,
            remedy="switch random augmentation or sampling off",
        )
