"""How one module's input and output cotangent become the factors of its per-example gradients.

For an example with positions t (pixels of a convolution, tokens of a sequence, or the one position of a plain layer)
the gradient of block W (out × in, bias as last column) is Σ_t g_t a_tᵀ. ``rows`` gives a as (B, T, in), ``cols`` gives
g as (B, T, out). A norm layer has no such product form: ``gradient`` forms it directly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from memspace.errors import UnsupportedLayerError
from memspace.task.space import Block

__all__ = ["cols", "norm_gradient", "rows"]


def _with_bias(a: Tensor, bias: bool) -> Tensor:
    return torch.cat([a, a.new_ones(*a.shape[:-1], 1)], -1) if bias else a


def _width(block: Block) -> int:
    return block.shape[1]


def rows(block: Block, module: nn.Module, a: Tensor) -> Tensor:
    """The module's input as (B, T, in), with a column of ones where the block holds a bias.

    Raises:
        UnsupportedLayerError: the block has no product form.
    """
    if isinstance(module, nn.Linear):
        flat = a.reshape(a.shape[0], -1, a.shape[-1])
        return (
            _with_bias(flat, block.shape[1] > module.in_features)
            if _owns_weight(block)
            else flat.new_ones(*flat.shape[:2], 1)
        )
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        patches = _patches(module, a) if _owns_weight(block) else None
        if patches is None:
            return a.new_ones(a.shape[0], 1, 1)
        return _with_bias(patches, _width(block) > patches.shape[-1])
    if isinstance(module, nn.Embedding):
        index = a.reshape(a.shape[0], -1)
        return nnf.one_hot(index, module.num_embeddings).to(module.weight.dtype)
    raise UnsupportedLayerError(
        f"{type(module).__name__} has no product form", where=block.name, remedy="use the generic path for it"
    )


def cols(block: Block, module: nn.Module, g: Tensor) -> Tensor:
    """The cotangent of the module's output as (B, T, out)."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        flat = g.flatten(2).transpose(1, 2)
        return flat if _owns_weight(block) else flat.sum(1, keepdim=True)
    return g.reshape(g.shape[0], -1, g.shape[-1])


def _owns_weight(block: Block) -> bool:
    return block.names[0].endswith("weight")


def _patches(conv: nn.Conv1d | nn.Conv2d, a: Tensor) -> Tensor:
    """The receptive field of every output position, (B, T, in·kernel)."""
    flat = isinstance(conv, nn.Conv1d)
    padding = conv._reversed_padding_repeated_twice if conv.padding_mode != "zeros" else None
    pad: tuple[int, ...]
    if padding is not None:
        a = nnf.pad(a, padding, mode=conv.padding_mode)
        pad = (0,) * (1 if flat else 2)
    elif isinstance(conv.padding, str):
        if conv.padding == "same":
            a = nnf.pad(a, conv._reversed_padding_repeated_twice)
        pad = (0,) * (1 if flat else 2)
    else:
        pad = tuple(conv.padding)
    kernel, dilation, stride = tuple(conv.kernel_size), tuple(conv.dilation), tuple(conv.stride)
    if flat:
        a, kernel, dilation, stride, pad = (
            a.unsqueeze(2),
            (1, *kernel),
            (1, *dilation),
            (1, *stride),
            (0, *pad),
        )
    return nnf.unfold(a, kernel, dilation=dilation, padding=pad, stride=stride).transpose(1, 2)


def norm_gradient(module: nn.Module, a: Tensor, g: Tensor) -> Tensor:
    """Per-example gradient of a norm layer's (weight ++ bias), (K, B, p) for cotangents ``g`` (K, B, ...)."""
    if isinstance(module, nn.LayerNorm):
        axes = tuple(range(-len(module.normalized_shape), 0))
        normed = nnf.layer_norm(a, module.normalized_shape, eps=module.eps)
        weight = g * normed
        inner = weight.flatten(-len(axes)).flatten(2, -2) if a.dim() > len(axes) + 1 else weight.flatten(2).unsqueeze(2)
        bias = g.flatten(-len(axes)).flatten(2, -2) if a.dim() > len(axes) + 1 else g.flatten(2).unsqueeze(2)
        parts = [inner.sum(2)]
        if module.bias is not None:
            parts.append(bias.sum(2))
        return torch.cat(parts, -1)
    if isinstance(module, nn.GroupNorm):
        normed = nnf.group_norm(a, module.num_groups, eps=module.eps)
    else:
        assert isinstance(module, nn.modules.batchnorm._BatchNorm)
        assert module.running_mean is not None
        assert module.running_var is not None
        shape = (1, -1) + (1,) * (a.dim() - 2)
        scale = torch.rsqrt(module.running_var + module.eps).view(shape)
        normed = (a - module.running_mean.view(shape)) * scale
    weight, bias = g * normed, g
    if a.dim() > 2:
        weight, bias = weight.flatten(3).sum(3), g.flatten(3).sum(3)
    return torch.cat([weight, bias], -1)
