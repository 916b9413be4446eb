"""Norms: a scale and a shift of normalised inputs."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from memspace.passes.layers.block import Block
from memspace.passes.layers.formed import FormedRule
from memspace.passes.layers.read import PulledCall

__all__ = ["Norm"]

_BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


class Norm(FormedRule):
    """Matrix (1, 2·channels): the scale, then the shift."""

    name: ClassVar[str] = "norm"
    types: ClassVar[tuple[type[nn.Module], ...]] = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, *_BATCH, *_INSTANCE)

    def knows(self, module: nn.Module) -> bool:
        """Accept exact classes only; batch norm without running statistics mixes examples."""
        tracks = isinstance(module, _NormBase) and module.running_mean is not None
        return type(module) in self.types and (tracks or not isinstance(module, _BATCH))

    def positional(self, module: nn.Module) -> bool:
        """See :class:`LayerRule`."""
        return isinstance(module, nn.LayerNorm | nn.RMSNorm)

    def gradient(self, block: Block, call: PulledCall) -> Tensor:
        """See :class:`FormedRule`."""
        module, a, g = call.module, call.inputs[0], call.cotangent
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):
            return _of_last_axes(module, a, g)
        normed = _normed(module, a)
        weight, bias = g * normed, g
        if a.dim() > 2:
            weight, bias = weight.flatten(2).sum(2), g.flatten(2).sum(2)
        return torch.cat([weight, bias], -1)


def _of_last_axes(module: nn.LayerNorm | nn.RMSNorm, a: Tensor, g: Tensor) -> Tensor:
    """(B, p) for norms over the last axes; axes between those and the first run over positions."""
    shape, axes = tuple(module.normalized_shape), len(module.normalized_shape)

    def summed(x: Tensor) -> Tensor:
        flat = x.flatten(-axes)
        return flat.flatten(1, -2).sum(1) if flat.dim() > 2 else flat

    if isinstance(module, nn.RMSNorm):
        return summed(g * nnf.rms_norm(a, shape, eps=module.eps))
    parts = [summed(g * nnf.layer_norm(a, shape, eps=module.eps))]
    return torch.cat([*parts, summed(g)] if module.bias is not None else parts, -1)


def _normed(module: nn.Module, a: Tensor) -> Tensor:
    """The normalised inputs, which the scale of a norm over channels multiplies."""
    if isinstance(module, nn.GroupNorm):
        return nnf.group_norm(a, module.num_groups, eps=module.eps)
    assert isinstance(module, _NormBase)
    if module.running_mean is None or module.running_var is None:
        return nnf.instance_norm(a, eps=module.eps)
    shape = (1, -1) + (1,) * (a.dim() - 2)
    scale = torch.rsqrt(module.running_var + module.eps).view(shape)
    return (a - module.running_mean.view(shape)) * scale
