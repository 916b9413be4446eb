"""How one module's input and output cotangent become the factors of its per-example gradients.

For an example with positions t (pixels of a convolution, tokens of a sequence, or the one position of a plain layer)
the gradient of block W (out × in, bias as last column) is Σ_t g_t a_tᵀ. ``rows`` gives a as (B, T, in), ``cols`` gives
g as (B, T, out). Layers without such a product form have their gradient formed by ``norm_gradient`` or
``grouped_gradient``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from memspace.errors import UnsupportedLayerError
from memspace.passes.blocks import Block

__all__ = ["cols", "grouped_gradient", "norm_gradient", "only_bias", "rows", "with_bias"]

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def with_bias(block: Block, a: Tensor) -> Tensor:
    """Inputs (..., in) completed by the column of ones of a bias."""
    return torch.cat([a, a.new_ones(*a.shape[:-1], 1)], -1) if block.shape[1] > a.shape[-1] else a


def only_bias(block: Block) -> bool:
    """The weight is frozen: the block is the bias alone, whose input is a column of ones."""
    return not block.names[0].rsplit(".", 1)[-1].startswith(("weight", "in_proj_weight"))


def rows(block: Block, module: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    """The module's input as (B, T, in), without the column of ones of a bias beside a weight.

    Raises:
        UnsupportedLayerError: the block has no product form.
    """
    a = inputs[0]
    if block.kind == "bias":
        return torch.ones(len(a), 1, 1, dtype=a.dtype, device=a.device)
    if block.kind in ("linear", "turned", "tied"):
        return _ones(_positions(a)) if only_bias(block) else _positions(a)
    if block.kind == "bilinear":
        pairs = _positions(a).unsqueeze(-1) * _positions(inputs[1]).unsqueeze(-2)
        return _ones(pairs) if only_bias(block) else pairs.flatten(2)
    if isinstance(module, Convolution) and block.kind == "conv":
        if not block.names[0].endswith("weight"):
            return a.new_ones(a.shape[0], 1, 1)
        return patches(module, a)
    if block.kind == "transposed":
        return a.flatten(2).transpose(1, 2)
    raise UnsupportedLayerError(
        f"{type(module).__name__} has no product form", where=block.name, remedy="use the generic path for it"
    )


def cols(block: Block, module: nn.Module, g: Tensor) -> Tensor:
    """The cotangent of the module's output as (B, T, out)."""
    if block.kind == "bias":
        return g.flatten(2).sum(2).unsqueeze(1)
    if block.kind == "transposed" and isinstance(module, Transposed):
        return _unfolded(g, module.kernel_size, module.dilation, module.stride, module.padding)
    if block.kind == "conv":
        flat = g.flatten(2).transpose(1, 2)
        return flat if block.names[0].endswith("weight") else flat.sum(1, keepdim=True)
    return _positions(g)


def _ones(a: Tensor) -> Tensor:
    return a.new_ones(*a.shape[:2], 1)


def _positions(a: Tensor) -> Tensor:
    """(B, ..., d) → (B, T, d)."""
    return a.reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])


def patches(conv: Convolution, a: Tensor) -> Tensor:
    """The receptive field of every output position, (B, T, in·kernel)."""
    pad: Sequence[int]
    if conv.padding_mode != "zeros":
        a = nnf.pad(a, conv._reversed_padding_repeated_twice, mode=conv.padding_mode)
        pad = (0,) * len(conv.kernel_size)
    elif isinstance(conv.padding, str):
        if conv.padding == "same":
            a = nnf.pad(a, conv._reversed_padding_repeated_twice)
        pad = (0,) * len(conv.kernel_size)
    else:
        pad = conv.padding
    return _unfolded(a, conv.kernel_size, conv.dilation, conv.stride, pad)


def _unfolded(
    a: Tensor, kernel: Sequence[int], dilation: Sequence[int], stride: Sequence[int], pad: Sequence[int | str]
) -> Tensor:
    """Every window of (B, C, ...), as (B, windows, C·kernel); in one, two or three dimensions."""
    a = nnf.pad(a, [int(x) for n in reversed(pad) for x in (n, n)])
    space = a.dim() - 2
    for axis in range(space):  # (B, C, D', ..., k, ...); a window spans (k − 1)·d + 1 and is thinned to k
        a = a.unfold(2 + axis, (kernel[axis] - 1) * dilation[axis] + 1, stride[axis])[..., :: dilation[axis]]
    # Positions stay innermost, as they lie in the image: the copy is then made of long runs.
    order = (0, 1, *range(2 + space, 2 + 2 * space), *range(2, 2 + space))
    return a.permute(order).flatten(1 + space + 1).flatten(1, 1 + space).transpose(1, 2)


def norm_gradient(module: nn.Module, a: Tensor, g: Tensor) -> Tensor:
    """Per-example gradient of a norm layer's (weight ++ bias), (K, B, p) for cotangents ``g`` (K, B, ...)."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        shape, axes = tuple(module.normalized_shape), len(module.normalized_shape)
        if isinstance(module, nn.LayerNorm):
            normed, bias = nnf.layer_norm(a, shape, eps=module.eps), module.bias
        else:
            normed, bias = nnf.rms_norm(a, shape, eps=module.eps), None

        def summed(x: Tensor) -> Tensor:
            flat = x.flatten(-axes)
            return flat.flatten(2, -2).sum(2) if flat.dim() > 3 else flat

        parts = [summed(g * normed)]
        if bias is not None:
            parts.append(summed(g))
        return torch.cat(parts, -1)
    if isinstance(module, nn.GroupNorm):
        normed = nnf.group_norm(a, module.num_groups, eps=module.eps)
    elif isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
        assert module.running_var is not None
        shape = (1, -1) + (1,) * (a.dim() - 2)
        scale = torch.rsqrt(module.running_var + module.eps).view(shape)
        normed = (a - module.running_mean.view(shape)) * scale
    else:
        assert isinstance(module, nn.modules.batchnorm._NormBase)
        normed = nnf.instance_norm(a, eps=module.eps)
    weight, bias_part = g * normed, g
    if a.dim() > 2:
        weight, bias_part = weight.flatten(3).sum(3), g.flatten(3).sum(3)
    return torch.cat([weight, bias_part], -1)


def grouped_gradient(conv: Convolution, a: Tensor, g: Tensor, *, rows: bool = False) -> Tensor:
    """Per-example gradient of a grouped convolution's (weight ++ bias), (K, B, p).

    Args:
        rows: every output channel's weights are followed by its bias.
    """
    count, b = g.shape[:2]
    windows = patches(conv, a).transpose(1, 2)  # (B, in·kernel, T): channels of a group are neighbours
    windows = windows.reshape(b, conv.groups, -1, windows.shape[-1])
    split = g.flatten(3).reshape(count, b, conv.groups, -1, windows.shape[-1])
    parts = [torch.matmul(split, windows.transpose(-1, -2)).flatten(2, 3)]
    if conv.bias is not None:
        parts.append(g.flatten(3).sum(3, keepdim=True))
    return torch.cat(parts, -1).flatten(2) if rows else torch.cat([p.flatten(2) for p in parts], -1)
