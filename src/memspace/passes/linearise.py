"""The network's differential: J v (forward mode) and Jᵀ u (reverse mode) for one batch, and exact Fisher products."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap

from memspace.passes.batching import TRANSIENT, widest_signal
from memspace.passes.curvature import output_curvature
from memspace.passes.processes import ALONE, current
from memspace.passes.signal_products import SignalProducts
from memspace.task.checks import evaluating
from memspace.task.data import Batch, Data, Inputs, move
from memspace.task.functional import functional_call
from memspace.task.operations import written_out
from memspace.task.restored import fresh_buffers
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["FisherOperator", "differential", "function_of_parameters"]

VECTORS = 8  # vectors at a time
WIDE = 2 * TRANSIENT  # numbers in one layer's signals of all vectors together


def _pair(result: Any) -> tuple[Any, Any]:
    """The first two of what torch.func gives (its type has a third, for auxiliary outputs)."""
    return result[0], result[1]


def function_of_parameters(task: Task, x: Inputs) -> Callable[[dict[str, Tensor]], Tensor]:
    """The batch's outputs as a function of the trainable parameters."""

    def outputs(params: dict[str, Tensor]) -> Tensor:
        args = () if isinstance(x, dict) else x if isinstance(x, tuple) else (x,)
        # Gradients are on: what the model computes without them can then be told. Only the chosen parameters have any.
        others = {n: p.detach() for n, p in task.model.named_parameters() if n not in params}
        with torch.enable_grad(), written_out():
            state = {**others, **fresh_buffers(task.model), **params}
            f = functional_call(task.model, state, args, x if isinstance(x, dict) else {})
        assert isinstance(f, Tensor)
        return f

    return outputs


def differential(
    f: Callable[[dict[str, Tensor]], Tensor], at: dict[str, Tensor], v: dict[str, Tensor], *, graph: bool = False
) -> tuple[Tensor, Tensor]:
    """(f, J v); by the reverse-reverse trick where an operation has no forward-mode derivative.

    Args:
        graph: whether both are to be differentiated further, in ``at`` and ``v``.
    """
    try:
        return _pair(jvp(f, (at,), (v,)))
    except (NotImplementedError, RuntimeError):
        return _reverse_twice(f, at, v, graph)


def _reverse_twice(
    f: Callable[[dict[str, Tensor]], Tensor], at: dict[str, Tensor], v: dict[str, Tensor], graph: bool = False
) -> tuple[Tensor, Tensor]:
    """(f, J v): u ↦ Jᵀ u is linear, and its own pull-back is v ↦ J v. Plain autograd, which bears packed sequences."""
    leaves = at if graph else {n: p.detach().requires_grad_() for n, p in at.items()}
    with torch.enable_grad():
        value = f(leaves)
        u = torch.zeros_like(value, requires_grad=True)
        pulled = torch.autograd.grad(value, list(leaves.values()), u, create_graph=True, allow_unused=True)
        inner = sum(((g * t).sum() for g, t in zip(pulled, v.values(), strict=True) if g is not None), u.sum() * 0)
        moved = torch.autograd.grad(inner, u, create_graph=graph)[0]
        return (value, moved) if graph else (value.detach(), moved)


def _pull_plain(f: Callable[[dict[str, Tensor]], Tensor], at: dict[str, Tensor], u: Tensor) -> dict[str, Tensor]:
    """Jᵀ u for a stack (k, B, ..., C) by plain autograd."""
    leaves = {n: p.detach().requires_grad_() for n, p in at.items()}
    with torch.enable_grad():
        value = f(leaves)
    parts = []
    for w in u:
        grads = torch.autograd.grad(value, list(leaves.values()), w, retain_graph=True, allow_unused=True)
        parts.append([torch.zeros_like(p) if g is None else g for g, p in zip(grads, at.values(), strict=True)])
    return {n: torch.stack([p[i] for p in parts]) for i, n in enumerate(at)}


class _Linearised:
    """One batch's outputs with J on stacks of vectors (k, ...) and Jᵀ on stacks of cotangents.

    The stack goes through the network in one piece, so that a layer meets k times the examples in one product; where
    an operation cannot be mapped over the stack, the vectors go one after another (slower, same result).
    """

    def __init__(self, f: Callable[[dict[str, Tensor]], Tensor], at: dict[str, Tensor]) -> None:
        self._f, self._at = f, at

    def push(self, v: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(f, J v) with J v (k, B, ..., C)."""
        count = len(next(iter(v.values())))
        if count > 1:
            try:
                with _quiet():
                    at_v = vmap(lambda t: _pair(jvp(self._f, (self._at,), (t,))), out_dims=(None, 0))  # type: ignore[arg-type]
                    return _pair(at_v(v))
            except (NotImplementedError, RuntimeError, ValueError):
                pass
        pairs = [differential(self._f, self._at, {n: t[i] for n, t in v.items()}) for i in range(count)]
        return pairs[0][0], torch.stack([moved for _, moved in pairs])

    def pull(self, u: Tensor) -> dict[str, Tensor]:
        """Jᵀ u for u (k, B, ..., C), one linearisation for all."""
        try:
            _, pull = _pair(vjp(self._f, self._at))
        except (NotImplementedError, RuntimeError):  # an operation that functorch does not know
            return _pull_plain(self._f, self._at, u)
        if len(u) > 1:
            try:
                with _quiet():
                    return dict(vmap(lambda w: pull(w)[0])(u))
            except (NotImplementedError, RuntimeError, ValueError):
                pass
        parts = [pull(w, retain_graph=i + 1 < len(u))[0] for i, w in enumerate(u)]
        return {n: torch.stack([p[n] for p in parts]) for n in self._at}


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch says which operations it maps one by one; the result is the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        yield


class FisherOperator:
    """v ↦ F v exactly, F = (1/n) Σ Jᵀ H J over ``index`` of the data, for flat vectors of the parameter space.

    At most ``batch`` examples go at a time, fewer where their signals are large. A stack of vectors (k, P) shares the
    linearisation of each batch. Inside ``processes.across`` each process multiplies by its shard. One product costs
    about one forward-mode and one reverse-mode pass over the examples, or less where ``SignalProducts`` pays.
    ``products`` counts vectors.

    Args:
        memory: bytes of the examples' signals that may be held between products.

    Raises:
        ValueError: a kind other than exact and empirical (sampled labels would have to be kept between products).
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
        memory: int = 2**30,
    ) -> None:
        if kind not in ("exact", "empirical"):
            raise ValueError(f"products are of kind exact or empirical, got {kind!r}")
        self._task, self._space, self._batch, self.kind = task, space, batch, kind
        self._data = task.train if data is None else data
        self.n = len(self._data) if index is None else len(index)
        self._team = current() if current().shares(self.n) else ALONE
        self._index = index = index if self._team is ALONE else self._team.shard(self.n, index)
        self._at = {n: p.detach() for n, p in space.parameters(task.model).items()}
        self._signals = SignalProducts(task, space, self._data, index, kind, memory)
        self.products = 0
        self._widest = 0

    @property
    def size(self) -> int:
        """P."""
        return self._space.size

    def __call__(self, v: Tensor) -> Tensor:
        """F v for one flat v (P,) or a stack (k, P), in float64; summed in the model's dtype within a batch only."""
        stack = v.reshape(-1, self.size)
        with evaluating(self._task.model):  # also to find out whether it pays: one example goes through the network
            if self._signals.pays(len(stack)):
                self.products += len(stack)
                return (self._team.add(self._signals(stack)) / self.n).reshape(v.shape)
        total = torch.zeros(stack.shape, dtype=torch.float64, device=self._task.device)
        self.products += len(stack)
        batch, at_once = self._shape(len(stack))
        with torch.no_grad(), evaluating(self._task.model):
            for s in range(0, len(stack), at_once):
                tangents = self._unpack(stack[s : s + at_once])
                for part in self._data.batches(batch, self._index):
                    total[s : s + at_once] += self._one(part, tangents)
        return (self._team.add(total) / self.n).reshape(v.shape)

    def _shape(self, count: int) -> tuple[int, int]:
        """(examples, vectors) at a time: one layer's signals for all of them stay within WIDE numbers."""
        if not self._widest:
            self._widest = widest_signal(self._task, self._data, self._index)
        rows = max(1, WIDE // self._widest)
        at_once = min(count, rows, VECTORS)
        return max(1, min(self._batch, rows // at_once)), at_once

    def at_once(self, count: int) -> int:
        """Vectors of a stack that go through the network in one piece."""
        return self._shape(count)[1]

    def _unpack(self, stack: Tensor) -> dict[str, Tensor]:
        return self._space.unpack(stack.to(self._task.dtype))

    def directional(self, v: Tensor) -> dict[str, Tensor]:
        """J v per example: columns ``f`` and ``moved`` (n, ..., C), ``y`` the labels."""
        tangent = self._unpack(v)
        columns: dict[str, list[Tensor]] = {"f": [], "moved": [], "y": []}
        with evaluating(self._task.model):
            for part in self._data.batches(self._batch, self._index):
                f = function_of_parameters(self._task, move(part.x, self._task.device, self._task.dtype))
                outputs, moved = differential(f, self._at, tangent)
                columns["f"].append(outputs.detach())
                columns["moved"].append(moved.detach())
                columns["y"].append(move(part.y, self._task.device))
        return self._team.concatenated({k: torch.cat(c) for k, c in columns.items()})

    def _one(self, part: Batch, tangents: dict[str, Tensor]) -> Tensor:
        task = self._task
        at = _Linearised(function_of_parameters(task, move(part.x, task.device, task.dtype)), self._at)
        y = move(part.y, task.device)
        f, moved = at.push(tangents)
        pulled = at.pull(output_curvature(task.likelihood, self.kind, f, y, moved))
        return torch.stack([self._space.pack({n: p[i] for n, p in pulled.items()}) for i in range(len(moved))]).double()
