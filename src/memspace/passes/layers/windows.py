"""Convolutions as products: the window of every position as a row."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as nnf
from torch import Tensor, nn

__all__ = ["CONVOLUTIONS", "Convolution", "patches", "unfolded"]

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def patches(conv: Convolution, a: Tensor) -> Tensor:
    """Cut out the receptive field of every output position.

    Args:
        conv: the layer, with any padding.
        a: (B, in, ...), its input.

    Returns:
        (B, T, in·kernel).
    """
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
    return unfolded(a, conv.kernel_size, conv.dilation, conv.stride, pad)


def unfolded(
    a: Tensor, kernel: Sequence[int], dilation: Sequence[int], stride: Sequence[int], pad: Sequence[int | str]
) -> Tensor:
    """Cut out every window of images of one, two or three dimensions.

    Args:
        a: (B, C, ...).
        kernel: sizes of the windows, one number an axis.
        dilation: steps within a window, one number an axis.
        stride: steps between windows, one number an axis.
        pad: zeros at either end, one number an axis.

    Returns:
        (B, windows, C·kernel).
    """
    a = nnf.pad(a, [int(x) for n in reversed(pad) for x in (n, n)])
    space = a.dim() - 2
    for axis in range(space):  # (B, C, D', ..., k, ...); a window spans (k − 1)·d + 1 and is thinned to k
        a = a.unfold(2 + axis, (kernel[axis] - 1) * dilation[axis] + 1, stride[axis])[..., :: dilation[axis]]
    # Positions stay innermost, in the image's order of memory, so that the copy is contiguous.
    order = (0, 1, *range(2 + space, 2 + 2 * space), *range(2, 2 + space))
    return a.permute(order).flatten(1 + space + 1).flatten(1, 1 + space).transpose(1, 2)
