"""The network's differential: J v (forward mode) and Jᵀ u (reverse mode) for one batch, and exact Fisher products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from memspace.errors import UnsupportedLayerError
from memspace.passes.adjoint_proof import manner_of
from memspace.passes.batching import TRANSIENT
from memspace.passes.curvature import output_curvature
from memspace.passes.linearised import ENTRIES, Linearised
from memspace.passes.processes import ALONE, current
from memspace.passes.profile import profile_of
from memspace.passes.proof import RefutedError
from memspace.passes.signal_products import SignalProducts
from memspace.passes.space import ParameterSpace
from memspace.task.checks import evaluating
from memspace.task.data import Batch, Data, Inputs, move
from memspace.task.functional import functional_call
from memspace.task.operations import written_out
from memspace.task.restored import fresh_buffers
from memspace.task.task import Task

__all__ = ["MEMORY", "FisherOperator", "function_of_parameters"]

VECTORS = 8  # vectors at a time
MEMORY = 2**30  # bytes of signals held between products
PROVEN = 4  # examples for which products are proven
WIDE = 2 * TRANSIENT  # numbers in one layer's signals of all vectors together


def function_of_parameters(task: Task, x: Inputs) -> Callable[[dict[str, Tensor]], Tensor]:
    """Build the batch's outputs as a function of the trainable parameters.

    Args:
        task: the network.
        x: the batch's inputs.

    Returns:
        Parameters by name ↦ outputs (B, ..., C).
    """

    def outputs(params: dict[str, Tensor]) -> Tensor:
        # Gradients are on, so that what the model computes without them shows. Only the chosen parameters have any.
        others = {n: p.detach() for n, p in task.model.named_parameters() if n not in params}
        with torch.enable_grad(), written_out():
            state = {**others, **fresh_buffers(task.model), **params}
            f = functional_call(task.model, state, *_called(x))
        assert isinstance(f, Tensor)
        return f

    return outputs


def _called(x: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Positional and keyword arguments of the model."""
    return ((), x) if isinstance(x, dict) else (x if isinstance(x, tuple) else (x,), {})


class FisherOperator:
    """v ↦ F v exactly, F = (1/n) Σ Jᵀ H J, for flat vectors of the parameter space.

    A stack of vectors (k, P) shares the linearisation of every batch. Inside ``processes.across`` every process
    multiplies by its shard. One product costs about one forward-mode and one reverse-mode pass over the examples, or
    less where ``SignalProducts`` pays.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        data: examples; None: the task's training data.
        index: positions (n,) of the examples that F is the mean over; None: all.
        batch: examples at a time at most; fewer where their signals are large.
        kind: ``exact`` or ``empirical``.
        memory: bytes of the examples' signals that may be held between products.

    Attributes:
        n: number of examples.
        products: number of vectors multiplied so far.

    Raises:
        ValueError: a kind other than exact and empirical (sampled labels would have to be stored between products).
    """

    def __init__(
        self,
        task: Task,
        space: ParameterSpace,
        *,
        data: Data | None = None,
        index: Tensor | None = None,
        batch: int = 1024,
        kind: str = "exact",
        memory: int = MEMORY,
    ) -> None:
        if kind not in ("exact", "empirical"):
            raise ValueError(f"products are of kind exact or empirical, got {kind!r}")
        self._task, self._space, self._batch, self.kind = task, space, batch, kind
        self._data = task.train if data is None else data
        self.n = len(self._data) if index is None else len(index)
        self._processes = current() if current().shares(self.n) else ALONE
        self._index = index = index if self._processes is ALONE else self._processes.shard(self.n, index)
        self._at = {n: p.detach() for n, p in space.parameters(task.model).items()}
        self._signals = SignalProducts(task, space, self._data, index, kind, memory)
        self.products = 0
        self._widest = 0

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return self._space.size

    def __call__(self, v: Tensor) -> Tensor:
        """Multiply by F.

        Args:
            v: one flat vector (P,) or a stack (k, P).

        Returns:
            F v in the shape of ``v``, float64; summed in the model's dtype within a batch only.
        """
        stack = v.reshape(-1, self.size)
        with evaluating(self._task.model):  # ``pays`` runs the network on one example
            if self._signals.pays(len(stack)) and (total := self._by_signals(stack)) is not None:
                self.products += len(stack)
                return (self._processes.add(total) / self.n).reshape(v.shape)
        self.products += len(stack)
        total = self._by_network(stack)
        if self._masked(total, stack):
            total = self._by_network(stack)
        return (self._processes.add(total) / self.n).reshape(v.shape)

    def _by_network(self, stack: Tensor) -> Tensor:
        """Sum over this process's examples, by forward and reverse mode."""
        total = torch.zeros(stack.shape, dtype=torch.float64, device=self._task.device)
        batch, at_once = self._shape(len(stack))
        with torch.no_grad(), evaluating(self._task.model):
            for s in range(0, len(stack), at_once):
                tangents = self._unpack(stack[s : s + at_once])
                for part in self._data.batches(batch, self._index):
                    total[s : s + at_once] += self._one(part, tangents)
        return total

    def _masked(self, derivative: Tensor, along: Tensor) -> bool:
        """Whether a derivative is NaN along finite vectors; the plainest manner is used from now on.

        Forward mode multiplies a masked value by 0, and 0 · NaN is NaN (a softmax over -inf alone, replaced by 0
        afterwards). Reverse mode does not propagate it.
        """
        if bool(torch.isfinite(derivative).all()) or not bool(torch.isfinite(along).all()):
            return False
        push, pull = self._manner()
        if push == ENTRIES:
            raise UnsupportedLayerError(
                "its derivative is NaN or infinite for some examples",
                where=type(self._task.model).__name__,
                remedy="mask such values before the operation that produces them, not after it",
            )
        self._space.mapped = (ENTRIES, pull)
        return True

    def _by_signals(self, stack: Tensor) -> Tensor | None:
        """Sum over this process's examples; None where the signals fail their proof."""
        try:
            return self._signals(stack)
        except RefutedError as error:
            self._space.refuted |= error.modules
        except UnsupportedLayerError as error:
            self._space.refuted.add(error.where)
        return None

    def _manner(self) -> tuple[int, int]:
        """The manners of J and of Jᵀ, proven once per network."""
        if self._space.mapped is None:
            n = len(self._data) if self._index is None else len(self._index)
            some = torch.linspace(0, n - 1, min(PROVEN, n)).round().long()
            part = self._data.batch(some if self._index is None else self._index[some])
            x = move(part.x, self._task.device, self._task.dtype)
            f = function_of_parameters(self._task, x)

            def plain(params: dict[str, Tensor]) -> Tensor:
                out: Tensor = functional_call(self._task.model, params, *_called(x))
                return out

            v = torch.randn(2, self.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            with torch.no_grad(), evaluating(self._task.model):
                at = self._unpack(v.to(self._task.device))
                self._space.mapped = manner_of(f, plain, self._at, at, type(self._task.model).__name__)
        return self._space.mapped

    def _shape(self, count: int) -> tuple[int, int]:
        """(examples, vectors) at a time, so that one layer's signals for all of them stay within WIDE numbers."""
        at_once = self.at_once(count)
        return max(1, min(self._most(), self._rows() // at_once)), at_once

    def _rows(self) -> int:
        """Examples times vectors at a time."""
        if not self._widest:
            self._widest = profile_of(self._task, self._data, self._index).widest
        return max(1, WIDE // self._widest)

    def _most(self) -> int:
        """Examples at a time; 1 where every output costs a gradient."""
        return 1 if self._manner()[0] == ENTRIES else self._batch

    def at_once(self, count: int) -> int:
        """Compute how many vectors of a stack go through the network together.

        Args:
            count: vectors of the stack.

        Returns:
            A number of vectors, at most ``count``.
        """
        return min(count, self._rows(), VECTORS)

    def _unpack(self, stack: Tensor) -> dict[str, Tensor]:
        return self._space.unpack(stack.to(self._task.dtype))

    def directional(self, v: Tensor) -> dict[str, Tensor]:
        """Compute J v of every example.

        Args:
            v: flat vector (P,).

        Returns:
            ``f`` outputs and ``moved`` J v, both (n, ..., C), and ``y`` the labels.
        """
        columns = self._directional(v)
        return self._directional(v) if self._masked(columns["moved"], v) else columns

    def _directional(self, v: Tensor) -> dict[str, Tensor]:
        tangent = self._unpack(v.unsqueeze(0))
        columns: dict[str, list[Tensor]] = {"f": [], "moved": [], "y": []}
        with evaluating(self._task.model):
            for part in self._data.batches(self._most(), self._index):
                f = function_of_parameters(self._task, move(part.x, self._task.device, self._task.dtype))
                outputs, moved = Linearised(f, self._at, self._manner()).push(tangent)
                columns["f"].append(outputs.detach())
                columns["moved"].append(moved[0].detach())
                columns["y"].append(move(part.y, self._task.device))
        return self._processes.concatenated({k: torch.cat(c) for k, c in columns.items()})

    def _one(self, part: Batch, tangents: dict[str, Tensor]) -> Tensor:
        task = self._task
        f_of = function_of_parameters(task, move(part.x, task.device, task.dtype))
        at = Linearised(f_of, self._at, self._manner())
        y = move(part.y, task.device)
        f, moved = at.push(tangents)
        pulled = at.pull(output_curvature(task.likelihood, self.kind, f, y, moved))
        return torch.stack([self._space.pack({n: p[i] for n, p in pulled.items()}) for i in range(len(moved))]).double()
