"""The hidden states of a chain of blocks: reading them, putting others in their place, what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memspace.action.calls import with_state
from memspace.action.chain import Chain, check_axis
from memspace.task.checks import evaluating
from memspace.task.data import Data, Inputs, call_model, move, take
from memspace.task.observed import state_of
from memspace.task.task import Task

__all__ = ["HiddenStates", "Tail", "replacing", "states"]

Swap = Callable[[int, Tensor], Tensor]  # (l, h_l) ↦ what goes on in its place


@contextmanager
def replacing(model: nn.Module, chain: Chain, swap: Swap) -> Iterator[None]:
    """Have a swap's result go on in the place of every hidden state h_l of the model, while the context lasts.

    Args:
        model: the network.
        chain: the blocks that make its depth.
        swap: (l, h_l) ↦ what goes on; l = 0 before the first block.

    Yields:
        Nothing.
    """
    turns: dict[int, int] = {}
    layer = {(id(b.module), b.turn): k for k, b in enumerate(chain.blocks)}
    first = chain.blocks[0]

    def begin(*_: object) -> None:
        turns.clear()

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if turns.get(id(module), 0) != first.turn:
            return None
        h = state_of(args)
        if h is not None:
            return with_state(args, swap(0, h)), kwargs
        h = state_of(kwargs)
        assert h is not None
        return args, with_state(kwargs, swap(0, h))

    def leave(module: nn.Module, _args: Any, output: Any) -> Any:
        turn = turns.get(id(module), 0)
        turns[id(module)] = turn + 1
        k = layer.get((id(module), turn))
        h = state_of(output)
        if k is None or h is None:
            return None
        return with_state(output, swap(k + 1, h))

    handles: list[Any] = [model.register_forward_pre_hook(begin)]
    handles.append(first.module.register_forward_pre_hook(enter, with_kwargs=True))
    modules = {id(b.module): b.module for b in chain.blocks}
    handles += [m.register_forward_hook(leave) for m in modules.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class HiddenStates:
    """Hidden states of some examples.

    Args:
        h: h_0 … h_L, each (n, *shape).
        f: outputs (n, ..., C).
        y: labels.
        weight: 0 at padded positions.
    """

    h: tuple[Tensor, ...]
    f: Tensor
    y: Tensor
    weight: Tensor


def states(task: Task, chain: Chain, data: Data, index: Tensor, batch: int = 128) -> HiddenStates:
    """Read hidden states in one forward pass; no gradients.

    Args:
        task: the model and its law.
        chain: the blocks that make its depth.
        data: where the examples are.
        index: their places, (n,).
        batch: examples at a time.

    Returns:
        Hidden states, outputs and labels.
    """
    hs: list[list[Tensor]] = [[] for _ in range(len(chain) + 1)]
    fs, ys = [], []

    def keep(k: int, h: Tensor) -> Tensor:
        hs[k].append(h)
        return h

    with torch.no_grad(), evaluating(task.model), replacing(task.model, chain, keep):
        for part in data.batches(batch, index):
            fs.append(call_model(task.model, move(part.x, task.device, task.dtype)))
            check_axis(hs[0][-1], len(part))
            ys.append(move(part.y, task.device))
    f, y = torch.cat(fs), torch.cat(ys)
    return HiddenStates(tuple(torch.cat(h) for h in hs), f, y, task.likelihood.weight(f, y))


@dataclass(frozen=True)
class Tail:
    """What follows from a hidden state: h_l ↦ f, the rest of the network as it stands.

    Layers before l run as well and are thrown away; with ``short`` they run on the first example only. That is right
    where the rest depends on the inputs through h_l alone, which :meth:`shortened` tests.

    Args:
        task: the model and its law.
        chain: the blocks that make its depth.
        x: inputs of n examples.
        short: run the layers before on the first example only.
    """

    task: Task
    chain: Chain
    x: Inputs
    short: bool = False

    def __call__(self, layer: int, h: Tensor) -> Tensor:
        """The outputs (n, ..., C) that hidden states h (n, *shape) at a layer lead to."""
        x = take(self.x, slice(0, 1)) if self.short else self.x
        with replacing(self.task.model, self.chain, lambda k, old: h if k == layer else old):
            f = call_model(self.task.model, x)
        assert isinstance(f, Tensor)
        return f

    def shortened(self, layer: int, h: Tensor, f: Tensor) -> Tail:
        """Take a prefix of one example, if that gives the outputs known.

        Args:
            layer: l.
            h: hidden states (n, *shape) there.
            f: the outputs they lead to, (n, ..., C).

        Returns:
            The short tail, or this one.
        """
        short = Tail(self.task, self.chain, self.x, True)
        try:
            with torch.no_grad(), evaluating(self.task.model):
                outputs = short(layer, h)
        except (RuntimeError, ValueError, IndexError, TypeError):
            return self
        close = outputs.shape == f.shape and torch.allclose(outputs, f, rtol=1e-3, atol=1e-4 * float(f.abs().max()))
        return short if close else self
