"""Fisher products of plain outputs from the network's signals: J from the pulled-back unit cotangents.

Once an example's C unit cotangents are pulled back, J v and Jᵀ u need no further pass through the network. They cost
two matrix products per plain layer, each of the size of a forward pass, where forward and reverse mode take four and
more. The signals of small networks are held between products. Those of larger ones are read again for every stack of
vectors, which pays from about C vectors on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.passes.capture import Capture
from memspace.passes.cotangent import output_cotangents
from memspace.passes.curvature import output_curvature
from memspace.passes.forms.form import Form
from memspace.passes.guard import Guard
from memspace.passes.space import ParameterSpace
from memspace.task.data import Batch, Data, move
from memspace.task.task import Task

__all__ = ["SignalProducts"]

AT_ONCE = 2**26  # bytes of signals of one batch
VECTORS = 32  # vectors at a time


@dataclass(frozen=True)
class _Part:
    """One batch: outputs, labels and the forms of every block for the unit cotangents."""

    f: Tensor
    y: Tensor
    forms: tuple[Form, ...]

    @property
    def held(self) -> int:
        """Bytes of its tensors, every storage counted once."""
        storages = {}
        for form in self.forms:
            for t in _tensors_of(form):
                storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return sum(storages.values())


def _tensors_of(form: Form) -> Iterator[Tensor]:
    for value in vars(form).values():
        if isinstance(value, Form):
            yield from _tensors_of(value)
        elif isinstance(value, Tensor):
            yield value


class SignalProducts:
    """v ↦ Σ Jᵀ H J v for stacks of vectors, H as in ``output_curvature``; batches are proven as those of a pass.

    Args:
        task: the network.
        space: the parameters, laid out in blocks.
        data: the examples.
        index: positions (n,) of the examples to read; None: all.
        kind: ``exact`` or ``empirical``.
        memory: bytes of signals that may be held between products.
    """

    def __init__(
        self, task: Task, space: ParameterSpace, data: Data, index: Tensor | None, kind: str, memory: int
    ) -> None:
        self._task, self._space, self._data, self._index, self._kind = task, space, data, index, kind
        self._memory = memory
        self._outputs, self._bytes = 0, 1
        self._parts: list[_Part] | None = None
        self._read: tuple[int, ...] = ()

    def pays(self, vectors: int) -> bool:
        """Tell whether a stack of vectors costs less by signals than by forward and reverse mode.

        Args:
            vectors: of the stack.

        Returns:
            False where the layout is not verified, or a block has no closed form, too.
        """
        if not self._space.verified or self._space.refuted:
            return False
        if any(b.rule.by_example for b in self._space.blocks):
            return False
        if not self._outputs:
            self._measure()
        return self._outputs > 0 and (vectors >= self._outputs or self._holds)

    @property
    def _holds(self) -> bool:
        """Whether all signals fit into memory."""
        return self._bytes * self._count <= self._memory

    @property
    def _count(self) -> int:
        return len(self._data) if self._index is None else len(self._index)

    def __call__(self, stack: Tensor) -> Tensor:
        """Multiply a stack of vectors by Σ Jᵀ H J.

        Args:
            stack: (k, P).

        Returns:
            (k, P), float64; summed in the model's dtype within a batch only.

        Raises:
            RefutedError: the signals do not reproduce autograd's gradient.
        """
        total = torch.zeros(stack.shape, dtype=torch.float64, device=stack.device)
        for s in range(0, len(stack), VECTORS):
            v = stack[s : s + VECTORS].to(self._task.dtype)
            for part in self._batches(len(v)):
                self._add(total[s : s + VECTORS], part, v)
        return total

    def _add(self, total: Tensor, part: _Part, v: Tensor) -> None:
        blocks = self._space.blocks
        moved = part.f.new_zeros(part.f.shape[1], len(part.f), len(v))  # (C, B, k)
        for block, form in zip(blocks, part.forms, strict=True):
            moved += form.push(block.view(v))
        u = output_curvature(self._task.likelihood, self._kind, part.f, part.y, moved.permute(2, 1, 0))
        u = u.permute(2, 1, 0).contiguous()
        for block, form in zip(blocks, part.forms, strict=True):
            total[:, block.start : block.stop] += form.pull(u).flatten(1)

    def _batches(self, vectors: int) -> Iterator[_Part]:
        # Signals held are those of earlier weights where these have changed since.
        now = tuple(p._version for p in self._task.model.parameters())
        if self._parts is not None and now == self._read:
            yield from self._parts
            return
        self._parts, self._read = None, now
        parts: list[_Part] = []
        guard = Guard(self._task, self._space, self._data, self._count)
        with Capture(self._task.model, self._space, guard) as capture:
            for batch in self._data.batches(max(16, min(2048, AT_ONCE // self._bytes)), self._index):
                part = self._part(capture, batch, 2**20 if self._holds else vectors, guard)
                if self._holds:
                    parts.append(part)
                yield part
        self._parts = parts if self._holds else None

    def _part(self, capture: Capture, batch: Batch, vectors: int, guard: Guard | None = None) -> _Part:
        signals = capture.forward(move(batch.x, self._task.device, self._task.dtype))
        if guard is not None:
            guard.begin(batch, signals)
        y = move(batch.y, self._task.device)
        pulled = signals.cotangents(output_cotangents("jacobian", self._task.likelihood, signals.f, y))
        forms = tuple(signals.form(b, pulled[b.name]).settled(vectors) for b in self._space.blocks)
        return _Part(signals.f, y, forms)

    def _measure(self) -> None:
        """Find the number of outputs (-1: they are not plain), and the bytes of one example's signals."""
        batch = self._data.batch([0] if self._index is None else self._index[:1])
        with Capture(self._task.model, self._space) as capture:
            f = capture.forward(move(batch.x, self._task.device, self._task.dtype)).f
            self._outputs = f.shape[1] if f.dim() == 2 and f.shape[1] <= VECTORS else -1
            if self._outputs > 0:
                self._bytes = max(1, self._part(capture, batch, 2**20).held)
