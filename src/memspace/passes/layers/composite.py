"""Layers that apply several weights within one call, which is replayed to show the input of every weight."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from memspace.passes.forms.form import Form
from memspace.passes.forms.product import ProductForm
from memspace.passes.layers.block import Block
from memspace.passes.layers.product import ProductRule, ones
from memspace.passes.layers.read import BlockRead, CallRead, PulledCall
from memspace.passes.replay import Replay

__all__ = ["CompositeRule"]


class CompositeRule(ProductRule):
    """A rule whose blocks are the projections inside a module; a block's ``part`` names its projection."""

    @abstractmethod
    def replay(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int) -> Replay:
        """Repeat one call of the module in eval mode.

        Args:
            module: one that the rule reads.
            args: positional arguments of the call.
            kwargs: keyword arguments of the call.
            batch: number of examples.

        Returns:
            Inputs and outputs of every projection inside.

        Raises:
            UnknownCallError: the call cannot be replayed.
        """

    def axis(self, module: nn.Module, shapes: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> int | None:
        """See :class:`LayerRule`; such modules have an attribute for it, which :meth:`replay` reads."""
        return 0

    def only_bias(self, block: Block) -> bool:
        """See :class:`ProductRule`."""
        return not block.names[0].rsplit(".", 1)[-1].startswith(("weight", "in_proj_weight"))

    def inputs(self, block: Block, call: CallRead) -> Tensor:
        """See :class:`ProductRule`."""
        inside = call.opened(self.replay).inputs[block.part]
        return ones(inside) if self.only_bias(block) else inside

    def cotangents(self, block: Block, call: PulledCall) -> Tensor:
        """See :class:`ProductRule`."""
        return call.inside(self.replay)[block.part]

    def form(self, read: BlockRead, pulled: Tensor) -> Form:
        """See :class:`LayerRule`; positions beyond the end of a packed sequence are left out."""
        alive = self._alive(read)
        if alive is None:
            return super().form(read, pulled)
        return ProductForm(read.rows * alive.unsqueeze(-1), pulled, counted=int(alive.sum()))

    def _alive(self, read: BlockRead) -> Tensor | None:
        """(B, T) bool, positions within their packed sequence; None where nothing was packed."""
        parts, packed = [], False
        for call in read.calls:
            replayed = call.opened(self.replay)
            packed = packed or replayed.alive is not None
            whole = torch.ones_like(replayed.inputs[read.block.part][..., 0])
            parts.append(whole if replayed.alive is None else replayed.alive[read.block.part].to(whole))
        return torch.cat(parts, 1) if packed else None
