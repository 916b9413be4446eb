"""``nn.MultiheadAttention``: its input projections and its output projection, applied within one call."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from memspace.passes.layers.composite import CompositeRule
from memspace.passes.layers.local import Loose
from memspace.passes.layers.rule import Part
from memspace.passes.replay import Replay, UnknownCallError

__all__ = ["Attention"]


class Attention(CompositeRule):
    """(3·dim, dim [+1]) for the input projections, (dim, dim [+1]) for the output projection."""

    name: ClassVar[str] = "attention"
    types: ClassVar[tuple[type[nn.Module], ...]] = (nn.MultiheadAttention,)
    # It never calls its output projection, but uses its weights.
    borrowed: ClassVar[tuple[str, ...]] = ("out_proj.weight", "out_proj.bias")

    def knows(self, module: nn.Module) -> bool:
        """Accept every subclass; one that computes something else fails verification."""
        return True

    def parts(self, module: nn.Module, own: Sequence[str], outside: Collection[str]) -> Sequence[Part] | None:
        """See :class:`LayerRule`; loose where keys have another width, or biases."""
        assert isinstance(module, nn.MultiheadAttention)
        if not module._qkv_same_embed_dim or module.bias_k is not None or module.add_zero_attn:
            return [Part(Loose(), (n,), n) for n in (*own, *self.borrowed)]
        return [Part(self, ("in_proj_weight", "in_proj_bias"), "in_proj"), Part(self, self.borrowed, "out_proj")]

    def replay(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int) -> Replay:
        """See :class:`CompositeRule`."""
        assert isinstance(module, nn.MultiheadAttention)
        with torch.enable_grad():
            return _attention(module, args, kwargs, batch)


def _attention(module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int) -> Replay:
    names = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask", "average_attn_weights")
    arguments = dict(zip(names, args, strict=False)) | dict(kwargs)
    q_in, k_in, v_in = (arguments[n].detach() for n in names[:3])
    if q_in.dim() != 3:
        raise UnknownCallError("was called without a batch axis")
    self_attention = arguments["query"] is arguments["key"] is arguments["value"]
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
        return _attend(module, arguments, (q, k, v), q_in, [projected])
    wide = []
    for n, x in enumerate((q_in, k_in, v_in)):
        s = slice(n * e, (n + 1) * e)
        z = nn.functional.linear(x, weight[s], None if bias is None else bias[s])
        # One of the three projections, padded to all three: the others' rows get a zero cotangent.
        wide.append(nn.functional.pad(z, (n * e, (2 - n) * e)).detach().requires_grad_())
    q, k, v = (w[..., n * e : (n + 1) * e] for n, w in enumerate(wide))
    return _attend(module, arguments, (q, k, v), torch.cat([q_in, k_in, v_in], 1), wide)


def _attend(
    module: nn.MultiheadAttention,
    arguments: Mapping[str, Any],
    qkv: tuple[Tensor, Tensor, Tensor],
    read: Tensor,
    projected: list[Tensor],
) -> Replay:
    """Attention after the projections; ``read``: their inputs, ``projected``: their outputs."""
    heads = module.num_heads
    q, k, v = (torch.unflatten(x, -1, (heads, -1)).transpose(1, 2) for x in qkv)  # (B, heads, T, d)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    mask, padding = arguments.get("attn_mask"), arguments.get("key_padding_mask")
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
    if arguments.get("need_weights", True):
        outputs = (shown, weights.mean(1) if arguments.get("average_attn_weights", True) else weights)
    return Replay(
        outputs,
        {"in_proj": read, "out_proj": attended.detach()},
        {"in_proj": tuple(projected), "out_proj": (out,)},
    )
