"""Layers whose projections lie inside one module: their forward pass again, opened up.

``nn.MultiheadAttention`` and the recurrent layers apply several weights within one call, where no hook reaches. Here
the call is repeated on the recorded inputs, and every projection's input and output are kept. The module's own output
cotangent, pulled back through the repetition, gives each projection's cotangent: their product form is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

__all__ = ["Replay", "UnknownCallError", "replay"]


@dataclass(frozen=True)
class Replay:
    """One call, opened up.

    Args:
        outputs: what the module returned, as differentiable tensors, in the order of its output's leaves.
        inputs: part → a (B, T, in); ``products``: part → the projections' outputs, whose cotangents, stacked along
            positions, are g: tensors (B, T, out), or T tensors (B, out).
        alive: part → (B, T) which of its positions lie within their sequence, where sequences were packed.
    """

    outputs: tuple[Tensor, ...]
    inputs: Mapping[str, Tensor]
    products: Mapping[str, tuple[Tensor, ...]]
    alive: Mapping[str, Tensor] | None = None

    def cotangents(self, given: Sequence[Tensor | None]) -> dict[str, Tensor]:
        """Part → (B, T, out), for cotangents of the outputs (None: unused)."""
        used = [(o, g) for o, g in zip(self.outputs, given, strict=True) if g is not None and o.requires_grad]
        flat = [z for zs in self.products.values() for z in zs]
        grads: Sequence[Tensor | None] = (None,) * len(flat)
        if used:
            grads = torch.autograd.grad(
                [o for o, _ in used], flat, [g for _, g in used], retain_graph=True, allow_unused=True
            )
        out, at = {}, 0
        for part, zs in self.products.items():
            found = [torch.zeros_like(z) if g is None else g for z, g in zip(zs, grads[at : at + len(zs)], strict=True)]
            at += len(zs)
            out[part] = torch.cat(found, 1) if found[0].dim() == 3 else torch.stack(found, 1)
        return out


def replay(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int) -> Replay:
    """Repeat one call of the module in eval mode.

    Raises:
        UnknownCallError: the call has a form that is not known here.
    """
    with torch.enable_grad():
        if isinstance(module, nn.MultiheadAttention):
            return _attention(module, args, kwargs, batch)
        assert isinstance(module, nn.RNNBase)
        return _recurrent(module, args, kwargs, batch)


class UnknownCallError(Exception):
    """A composite module was called in a way that cannot be opened up; its message says which."""


def _attention(module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int) -> Replay:
    names = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask", "average_attn_weights")
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    q_in, k_in, v_in = (given[n].detach() for n in names[:3])
    if q_in.dim() != 3:
        raise UnknownCallError("was called without a batch axis")
    self_attention = given["query"] is given["key"] is given["value"]
    if not module.batch_first:
        q_in, k_in, v_in = (x.transpose(0, 1) for x in (q_in, k_in, v_in))
    if len(q_in) != batch:
        raise UnknownCallError("was called on another number of sequences than there are examples")
    e = module.embed_dim
    weight, bias = module.in_proj_weight, module.in_proj_bias
    if self_attention:
        projected = nn.functional.linear(q_in, weight, bias)
        projected = projected if projected.requires_grad else projected.requires_grad_()
        q, k, v = torch.split(projected, e, -1)
        return _attend(module, given, (q, k, v), q_in, [projected])
    wide = []
    for n, x in enumerate((q_in, k_in, v_in)):
        s = slice(n * e, (n + 1) * e)
        z = nn.functional.linear(x, weight[s], None if bias is None else bias[s])
        # One of the three projections, seen as all three: the others' rows get a zero cotangent by themselves.
        wide.append(nn.functional.pad(z, (n * e, (2 - n) * e)).detach().requires_grad_())
    q, k, v = (w[..., n * e : (n + 1) * e] for n, w in enumerate(wide))
    return _attend(module, given, (q, k, v), torch.cat([q_in, k_in, v_in], 1), wide)


def _attend(
    module: nn.MultiheadAttention,
    given: Mapping[str, Any],
    qkv: tuple[Tensor, Tensor, Tensor],
    read: Tensor,
    projected: list[Tensor],
) -> Replay:
    """From the projections on; ``read``: what they read, ``projected``: what they gave."""
    heads = module.num_heads
    q, k, v = (torch.unflatten(x, -1, (heads, -1)).transpose(1, 2) for x in qkv)  # (B, heads, T, d)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    mask, padding = given.get("attn_mask"), given.get("key_padding_mask")
    if mask is not None:
        mask = mask.reshape(-1, heads, *mask.shape[1:]) if mask.dim() == 3 else mask
        scores = scores.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    if padding is not None:
        padding = padding[:, None, None, :]
        scores = scores.masked_fill(padding, -math.inf) if padding.dtype == torch.bool else scores + padding
    weights = scores.softmax(-1)
    attended = (weights @ v).transpose(1, 2).flatten(2)
    out = nn.functional.linear(attended, module.out_proj.weight, module.out_proj.bias)
    out = out if out.requires_grad else out.requires_grad_()
    shown = out if module.batch_first else out.transpose(0, 1)
    outputs: tuple[Tensor, ...] = (shown,)
    if given.get("need_weights", True):
        outputs = (shown, weights.mean(1) if given.get("average_attn_weights", True) else weights)
    return Replay(
        outputs,
        {"in_proj": read, "out_proj": attended.detach()},
        {"in_proj": tuple(projected), "out_proj": (out,)},
    )


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
            run = _direction(module, cell, at, x, begin, lengths, bool(direction), inputs, products)
            sides.append(run[0])
            lasts.append(run[1])
        x = torch.cat(sides, -1) if len(sides) > 1 else sides[0]
    last = tuple(torch.stack([s[i] for s in lasts]) for i in range(len(lasts[0])))
    y = x if module.batch_first or lengths is not None else x.transpose(0, 1)
    alive = None
    if lengths is not None:
        within = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
        # What a reverse direction meets step by step comes in its own order.
        alive = {p: within.flip(1) if p.endswith("_reverse") and p[:2] != "ih" else within for p in inputs}
    return Replay((y, *last), inputs, products, alive)


def _initial(module: nn.RNNBase, state: Any, index: int, x: Tensor) -> tuple[Tensor, ...]:
    hidden = module.proj_size or module.hidden_size
    if state is None:
        sizes = (hidden, module.hidden_size) if isinstance(module, nn.LSTM) else (hidden,)
        return tuple(x.new_zeros(len(x), s) for s in sizes)
    states = state if isinstance(state, tuple) else (state,)
    return tuple(s[index].detach() for s in states)


def _direction(
    module: nn.RNNBase,
    cell: Callable[..., tuple[Tensor, ...]],
    at: str,
    x: Tensor,
    state: tuple[Tensor, ...],
    lengths: Tensor | None,
    reverse: bool,
    inputs: dict[str, Tensor],
    products: dict[str, tuple[Tensor, ...]],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One layer in one direction: outputs (B, T, hidden) and the last state; fills inputs and products."""

    def weight(what: str) -> Tensor | None:
        found = getattr(module, f"{what}_{at}", None)
        return found if isinstance(found, Tensor) else None

    def linear(a: Tensor, w: str, b: str) -> Tensor:
        matrix = weight(w)
        assert matrix is not None
        z = nn.functional.linear(a, matrix, weight(b))
        return z if z.requires_grad else z.requires_grad_()

    whole = linear(x, "weight_ih", "bias_ih")
    inputs[f"ih_{at}"], products[f"ih_{at}"] = x.detach(), (whole,)
    steps = list(range(x.shape[1]))
    before, hidden, raw, projected = [], [], [], []
    ys: dict[int, Tensor] = {}
    for t in reversed(steps) if reverse else steps:
        before.append(state[0].detach())
        z = linear(state[0], "weight_hh", "bias_hh")
        hidden.append(z)
        fresh = cell(module, whole[:, t], z, state)
        if module.proj_size:
            raw.append(fresh[0].detach())
            h = linear(fresh[0], "weight_hr", "bias_hr")
            projected.append(h)
            fresh = (h, *fresh[1:])
        if lengths is not None:  # past its end a sequence keeps its state, and shows nothing
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
