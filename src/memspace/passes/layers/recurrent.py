"""Recurrent layers: the projections of inputs and of hidden states of every layer and direction, step by step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from memspace.passes.layers.composite import CompositeRule
from memspace.passes.layers.rule import Part
from memspace.passes.replay import Replay, UnknownCallError

__all__ = ["Recurrent"]


class Recurrent(CompositeRule):
    """Matrix (gates·hidden, in [+1]) for every projection of inputs, hidden states, and of an LSTM's state."""

    name: ClassVar[str] = "recurrent"
    types: ClassVar[tuple[type[nn.Module], ...]] = (nn.RNN, nn.LSTM, nn.GRU)

    def knows(self, module: nn.Module) -> bool:
        """Accept exact classes only."""
        return type(module) in self.types

    def parts(self, module: nn.Module, own: Sequence[str], outside: Collection[str]) -> Sequence[Part] | None:
        """See :class:`LayerRule`."""
        assert isinstance(module, nn.RNNBase)
        parts = []
        for layer in range(module.num_layers):
            for direction in ("", "_reverse")[: 2 if module.bidirectional else 1]:
                at = f"l{layer}{direction}"
                parts.append(Part(self, (f"weight_ih_{at}", f"bias_ih_{at}"), f"ih_{at}"))
                parts.append(Part(self, (f"weight_hh_{at}", f"bias_hh_{at}"), f"hh_{at}"))
                if module.proj_size:
                    parts.append(Part(self, (f"weight_hr_{at}",), f"hr_{at}"))
        known = {n for part in parts for n in part.names}
        return parts if known.issuperset(own) else None

    def replay(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int) -> Replay:
        """See :class:`CompositeRule`."""
        assert isinstance(module, nn.RNNBase)
        with torch.enable_grad():
            return _recurrent(module, args, kwargs, batch)


def _recurrent(module: nn.RNNBase, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int) -> Replay:
    x = args[0]
    state = args[1] if len(args) > 1 else kwargs.get("hx")
    lengths: Tensor | None = None
    if isinstance(x, PackedSequence):
        x, lengths = pad_packed_sequence(x, batch_first=True)
        lengths = lengths.to(x.device)
    else:
        if x.dim() != 3:
            raise UnknownCallError("was called without a batch axis")
        x = x if module.batch_first else x.transpose(0, 1)
    if len(x) != batch:
        raise UnknownCallError("was called on another number of sequences than there are examples")
    x = x.detach()
    cell = _CELLS[type(module)]
    inputs: dict[str, Tensor] = {}
    products: dict[str, tuple[Tensor, ...]] = {}
    lasts: list[tuple[Tensor, ...]] = []
    for layer in range(module.num_layers):
        sides = []
        for d, direction in enumerate(("", "_reverse")[: 2 if module.bidirectional else 1]):
            at = f"l{layer}{direction}"
            begin = _initial(module, state, layer * (2 if module.bidirectional else 1) + d, x)
            run = _direction(_Side(module, cell, at, inputs, products), x, begin, lengths)
            sides.append(run[0])
            lasts.append(run[1])
        x = torch.cat(sides, -1) if len(sides) > 1 else sides[0]
    last = tuple(torch.stack([s[i] for s in lasts]) for i in range(len(lasts[0])))
    y = x if module.batch_first or lengths is not None else x.transpose(0, 1)
    alive = None
    if lengths is not None:
        within = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
        # A reverse direction runs through the steps in reverse order.
        alive = {p: within.flip(1) if p.endswith("_reverse") and p[:2] != "ih" else within for p in inputs}
    return Replay((y, *last), inputs, products, alive)


def _initial(module: nn.RNNBase, state: Any, index: int, x: Tensor) -> tuple[Tensor, ...]:
    hidden = module.proj_size or module.hidden_size
    if state is None:
        sizes = (hidden, module.hidden_size) if isinstance(module, nn.LSTM) else (hidden,)
        return tuple(x.new_zeros(len(x), s) for s in sizes)
    states = state if isinstance(state, tuple) else (state,)
    return tuple(s[index].detach() for s in states)


@dataclass(frozen=True)
class _Side:
    """One layer in one direction, with the inputs and outputs of its projections, to be filled in."""

    module: nn.RNNBase
    cell: Callable[..., tuple[Tensor, ...]]
    at: str  # suffix of its parameters' names
    inputs: dict[str, Tensor]
    products: dict[str, tuple[Tensor, ...]]

    def weight(self, what: str) -> Tensor | None:
        tensor = getattr(self.module, f"{what}_{self.at}", None)
        return tensor if isinstance(tensor, Tensor) else None

    def linear(self, a: Tensor, w: str, b: str) -> Tensor:
        matrix = self.weight(w)
        assert matrix is not None
        z = nn.functional.linear(a, matrix, self.weight(b))
        return z if z.requires_grad else z.requires_grad_()


def _direction(
    side: _Side, x: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run one layer in one direction: outputs (B, T, hidden) and the last state; fills inputs and products."""
    module, at, inputs, products = side.module, side.at, side.inputs, side.products
    whole = side.linear(x, "weight_ih", "bias_ih")
    inputs[f"ih_{at}"], products[f"ih_{at}"] = x.detach(), (whole,)
    steps = list(range(x.shape[1]))
    before, hidden, raw, projected = [], [], [], []
    ys: dict[int, Tensor] = {}
    for t in reversed(steps) if at.endswith("_reverse") else steps:
        before.append(state[0].detach())
        z = side.linear(state[0], "weight_hh", "bias_hh")
        hidden.append(z)
        fresh = side.cell(module, whole[:, t], z, state)
        if module.proj_size:
            raw.append(fresh[0].detach())
            h = side.linear(fresh[0], "weight_hr", "bias_hr")
            projected.append(h)
            fresh = (h, *fresh[1:])
        if lengths is not None:  # past its end a sequence keeps its state and returns zeros
            alive = (lengths > t).unsqueeze(1)
            fresh = tuple(torch.where(alive, new, old) for new, old in zip(fresh, state, strict=True))
            ys[t] = torch.where(alive, fresh[0], torch.zeros_like(fresh[0]))
        else:
            ys[t] = fresh[0]
        state = fresh
    inputs[f"hh_{at}"], products[f"hh_{at}"] = torch.stack(before, 1), tuple(hidden)
    if module.proj_size:
        inputs[f"hr_{at}"], products[f"hr_{at}"] = torch.stack(raw, 1), tuple(projected)
    return torch.stack([ys[t] for t in steps], 1), state


def _rnn_cell(module: nn.RNNBase, i: Tensor, h: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    assert isinstance(module, nn.RNN)
    return (torch.tanh(i + h) if module.nonlinearity == "tanh" else torch.relu(i + h),)


def _lstm_cell(module: nn.RNNBase, i: Tensor, h: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    take, forget, new, show = (i + h).chunk(4, -1)
    c = forget.sigmoid() * state[1] + take.sigmoid() * new.tanh()
    return show.sigmoid() * c.tanh(), c


def _gru_cell(module: nn.RNNBase, i: Tensor, h: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (ir, iz, inew), (hr, hz, hnew) = i.chunk(3, -1), h.chunk(3, -1)
    z = (iz + hz).sigmoid()
    new = (inew + (ir + hr).sigmoid() * hnew).tanh()
    return ((1 - z) * new + z * state[0],)


_CELLS: dict[type, Callable[..., tuple[Tensor, ...]]] = {nn.RNN: _rnn_cell, nn.LSTM: _lstm_cell, nn.GRU: _gru_cell}
