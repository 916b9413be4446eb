"""What a rule gets to see of one forward pass: the calls of a block's modules, with examples first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from memspace.passes.calls import Call
from memspace.passes.layers.block import Block
from memspace.passes.replay import Replay, ReplayFunction

__all__ = ["BlockRead", "CallRead", "PulledCall", "joined"]


class CallRead:
    """One call of one module.

    Args:
        module: the module.
        call: what the hook kept.
        axis: of the module's input that runs over examples, or ``BROADCAST``.
        batch: number of examples B.
    """

    def __init__(self, module: nn.Module, call: Call, axis: int, batch: int) -> None:
        self.module, self.call, self.axis, self.batch = module, call, axis, batch

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors that the module was given, (B, ...) each, detached."""
        return self.call.inputs(self.axis, self.batch)

    def opened(self, replay: ReplayFunction) -> Replay:
        """Repeat the call so that what happens inside shows, once for all who ask.

        Args:
            replay: repeats a call of such a module.

        Returns:
            Inputs and outputs of the projections inside.

        Raises:
            UnsupportedLayerError: the call has a form that ``replay`` does not know.
        """
        return self.call.opened(self.module, self.batch, replay)


class PulledCall(CallRead):
    """One call with the cotangents of what it returned.

    Args:
        of: the call.
        given: a cotangent for each tensor it returned that has a gradient; None where nothing depends on it.
    """

    def __init__(self, of: CallRead, given: Sequence[Tensor | None]) -> None:
        super().__init__(of.module, of.call, of.axis, of.batch)
        self._given = given
        self._inside: dict[str, Tensor] | None = None

    @cached_property
    def cotangent(self) -> Tensor:
        """Of the module's only output, (B, ...); zeros where nothing depends on it.

        Raises:
            UnsupportedLayerError: the output does not have as many rows as there are examples.
        """
        return self.call.cotangent(self._given[0], self.axis, self.batch)

    @cached_property
    def by_example(self) -> Mapping[str, Tensor]:
        """Parameter → (B, numel), by the module's own forward pass differentiated one example at a time.

        Raises:
            UnsupportedLayerError: the module cannot be run on one example alone.
        """
        return self.call.differentiated(self.module, self.cotangent, self.batch)

    def inside(self, replay: ReplayFunction) -> Mapping[str, Tensor]:
        """Pull the cotangents back to the projections inside, once for all who ask.

        Args:
            replay: repeats a call of such a module.

        Returns:
            Part → (B, T, out).

        Raises:
            UnsupportedLayerError: the call has a form that ``replay`` does not know.
        """
        if self._inside is None:
            self._inside = self.call.pulled_inside(self.module, self._given, self.batch, replay)
        return self._inside


class BlockRead:
    """One block in one forward pass.

    Args:
        block: the block.
        calls: of all its modules, in order.
        outputs: (B, ..., C), the network's.
    """

    def __init__(self, block: Block, calls: Sequence[CallRead], outputs: Tensor) -> None:
        self.block, self.calls, self.outputs = block, calls, outputs

    def __len__(self) -> int:
        return len(self.outputs)

    def of(self, *types: type[nn.Module]) -> list[CallRead]:
        """The calls of modules of the given types, in order."""
        return [c for c in self.calls if isinstance(c.module, types)]

    @cached_property
    def inputs(self) -> Tensor:
        """The block's inputs without the column of ones of a bias, (B, T, in); calls one after another."""
        return self.block.rule.gathered(self)

    @property
    def rows(self) -> Tensor:
        """:attr:`inputs` with the column of ones."""
        a = self.inputs
        return torch.cat([a, a.new_ones(*a.shape[:-1], 1)], -1) if self.block.shape[1] > a.shape[-1] else a


def joined(parts: Sequence[Tensor], empty: tuple[int, ...], like: Tensor) -> Tensor:
    """Put the positions of several calls one after another.

    Args:
        parts: (B, T, d) of each call.
        empty: the shape where the module was not called.
        like: a tensor of the dtype and device.

    Returns:
        (B, Σ T, d); zeros of shape ``empty`` without a call.
    """
    if not parts:
        return like.new_zeros(empty)
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)
