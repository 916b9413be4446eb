"""What a representation of F is built from: the network, the kind of cotangents, and passes that memory holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from memspace.errors import MemoryBudgetError
from memspace.passes.capture import Capture
from memspace.passes.engine import PassOptions
from memspace.passes.kinds import Kind
from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.passes.space import Block, ParameterSpace
from memspace.passes.statistics import SampleSpread
from memspace.task.checks import evaluating
from memspace.task.data import move
from memspace.task.task import Task

__all__ = ["BuildContext"]

PROBED = 16  # examples whose outputs tell how many cotangents merged classes need
PRODUCTS_AT_ONCE = 1024  # examples; products choose their own batch below this


@dataclass(frozen=True)
class BuildContext:
    """The network and how it is read.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        kind: of the cotangents (see ``memspace.passes.kinds``).
        memory: bytes that the representation may hold.
        batch: examples at a time; None: by the size of the network's signals.
        seed: of sampled labels and probes.
        index: positions (n,) of the training examples that F is the mean over; None: all of them.
    """

    task: Task
    space: ParameterSpace
    kind: Kind
    memory: int
    batch: int | None
    seed: int
    index: Tensor | None

    @property
    def n(self) -> int:
        """Examples that F is the mean over."""
        return len(self.task.train) if self.index is None else len(self.index)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of parameters."""
        return tuple(self.space.blocks)

    @property
    def sampled(self) -> bool:
        """Whether several labels are sampled per example, so that their spread tells the trace's error."""
        return self.kind.name == "mc" and self.kind.samples > 1

    @cached_property
    def spread(self) -> tuple[SampleSpread, ...]:
        """The statistic of that spread, to be read by a pass; empty where one label per example shows none."""
        return (SampleSpread(self.blocks, str(self.kind)),) if self.sampled else ()

    @property
    def sampling(self) -> float:
        """Standard error of tr F from the labels drawn, once ``spread`` was read; else 0."""
        return self.spread[0].standard_error() if self.spread else 0.0

    def operator(self, parts: int) -> FisherOperator:
        """Return the operator of exact products F v, whose cost does not grow with the number of classes.

        Args:
            parts: products may take the memory budget divided by this.

        Returns:
            The operator, stacks (k, P) to stacks (k, P).
        """
        batch, memory = self.batch or PRODUCTS_AT_ONCE, self.memory // parts
        return FisherOperator(self.task, self.space, index=self.index, batch=batch, kind=str(self.kind), memory=memory)

    def options(self, kind: Kind | None = None) -> PassOptions:
        """Return options of passes whose cotangents, and one transformed copy of them, fit into memory.

        Args:
            kind: of the cotangents that are read; None: the metric's.

        Returns:
            The options.

        Raises:
            MemoryBudgetError: one example's cotangents do not fit; the remedy names what would.
        """
        count = self.cotangents(kind or self.kind)
        per_example = 2 * torch.finfo(self.task.dtype).bits // 8 * count * self._numbers()
        what = f"one example's {count:,} cotangents (one per output and position)"
        self.check_memory(
            per_example, what, 'kind="mc" with a few samples, kind="topk", or the representation implicit'
        )
        return PassOptions(index=self.index, batch=self.batch, most=self.memory // per_example, seed=self.seed)

    def cotangents(self, kind: Kind) -> int:
        """Count the cotangents per example; for topk the most that a few examples need.

        Args:
            kind: of the cotangents.

        Returns:
            How many: samples for sampled labels, else outputs times positions.
        """
        if not kind.several:
            return kind.samples
        first = torch.arange(min(PROBED, len(self.task.train))) if self.index is None else self.index[:PROBED]
        f, _ = outputs(self.task, self.task.train, index=first)
        if kind.name == "topk":
            return f[0, ..., 0].numel() * self.task.likelihood.merged_columns(f, kind.share)
        return f[0].numel()

    def check_memory(self, need: int, what: str, instead: str) -> None:
        """Refuse what memory does not hold.

        Args:
            need: bytes.
            what: the object that needs them, as messages name it.
            instead: alternatives that need less, as messages name them.

        Raises:
            MemoryBudgetError: more bytes are needed than allowed.
        """
        if need > self.memory:
            raise MemoryBudgetError(
                f"{what} needs {need / 2**30:.1f} GiB of the {self.memory / 2**30:.1f} GiB allowed",
                where="memory budget",
                remedy=f"raise --memory or use {instead}",
            )

    def _numbers(self) -> int:
        """Numbers that one output cotangent of one example takes, at the outputs and pulled back to every block."""
        task = self.task
        with evaluating(task.model), Capture(task.model, self.space) as capture:
            x = task.train.batch([0] if self.index is None else self.index[:1]).x
            signals = capture.forward(move(x, task.device, task.dtype))
            pulled = signals.cotangents(torch.zeros_like(signals.f).unsqueeze(0))
            return int(signals.f.numel()) + sum(int(g.numel()) for g in pulled.values())
