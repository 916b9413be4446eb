"""Grouped convolutions: gradients are formed, since every group has other input channels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from memspace.passes.forms.form import Form
from memspace.passes.forms.formed import DENSE_LIMIT
from memspace.passes.forms.group import GroupForm
from memspace.passes.layers.block import Block
from memspace.passes.layers.formed import FormedRule
from memspace.passes.layers.read import PulledCall
from memspace.passes.layers.rule import LayerRule, Part
from memspace.passes.layers.windows import CONVOLUTIONS, Convolution, patches

__all__ = ["Grouped", "Split"]


class Grouped(FormedRule):
    """Matrix (1, numel), or one a group where that is too large for a dense second moment."""

    name: ClassVar[str] = "grouped"
    types: ClassVar[tuple[type[nn.Module], ...]] = CONVOLUTIONS

    def knows(self, module: nn.Module) -> bool:
        """See :class:`LayerRule`."""
        return super().knows(module) and getattr(module, "groups", 1) > 1

    def parts(self, module: nn.Module, own: Sequence[str], outside: Collection[str]) -> Sequence[Part] | None:
        """See :class:`LayerRule`."""
        parts = super().parts(module, own, outside)
        if parts is None or sum(p.numel() for p in module._parameters.values() if p is not None) <= DENSE_LIMIT:
            return parts
        assert isinstance(module, Convolution)
        return [Part(Split(module.groups), part.names) for part in parts]

    def gradient(self, block: Block, call: PulledCall) -> Tensor:
        """See :class:`FormedRule`: all weights, then all biases."""
        return torch.cat([part.flatten(1) for part in _by_channel(call)], -1)


class Split(FormedRule):
    """Matrix (out, fan-in of a group [+1]): the groups' matrices stacked, with separate bases.

    Args:
        groups: number of groups.
    """

    name: ClassVar[str] = "groups"

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def shape(self, parameters: Sequence[Tensor]) -> tuple[int, int]:
        """See :class:`LayerRule`."""
        return LayerRule.shape(self, parameters)

    def gradient(self, block: Block, call: PulledCall) -> Tensor:
        """See :class:`FormedRule`: every output channel's weights are followed by its bias."""
        return torch.cat(_by_channel(call), -1).flatten(1)

    def whole_form(self, block: Block, gradients: Tensor) -> Form:
        """See :class:`LayerRule`."""
        return GroupForm(gradients.reshape(*gradients.shape[:-1], *block.shape), groups=self.groups)

    def diagonal(self, block: Block) -> bool:
        """See :class:`LayerRule`."""
        return False

    def sides(self, block: Block) -> tuple[int, ...]:
        """See :class:`LayerRule`."""
        return (block.shape[1], block.shape[0] // self.groups) * self.groups


def _by_channel(call: PulledCall) -> list[Tensor]:
    """Per-example gradients of a grouped convolution's weight (B, out, fan-in of a group) and bias (B, out, 1)."""
    conv, a, g = call.module, call.inputs[0], call.cotangent
    assert isinstance(conv, Convolution)
    windows = patches(conv, a).transpose(1, 2)  # (B, in·kernel, T): channels of a group are neighbours
    windows = windows.reshape(len(g), conv.groups, -1, windows.shape[-1])
    split = g.flatten(2).reshape(len(g), conv.groups, -1, windows.shape[-1])
    parts = [torch.matmul(split, windows.transpose(-1, -2)).flatten(1, 2)]
    if conv.bias is not None:
        parts.append(g.flatten(2).sum(2, keepdim=True))
    return parts
