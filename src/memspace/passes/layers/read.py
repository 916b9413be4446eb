"""One forward pass as a rule reads it: the calls of a block's modules, with examples first."""

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
        call: the hook's record.
        axis: of the module's input that runs over examples, or ``BROADCAST``.
        batch: number of examples B.
    """

    def __init__(self, module: nn.Module, call: Call, axis: int, batch: int) -> None:
        self.module, self.call, self.axis, self.batch = module, call, axis, batch

    @property
    def inputs(self) -> list[Tensor]:
        """The input tensors (B, ...), detached."""
        return self.call.inputs(self.axis, self.batch)

    def opened(self, replay: ReplayFunction) -> Replay:
        """Repeat the call with the projections inside it exposed, once.

        Args:
            replay: repeats a call of such a module.

        Returns:
            Inputs and outputs of the projections inside.

        Raises:
            UnsupportedLayerError: the call cannot be replayed.
        """
        return self.call.opened(self.module, self.batch, replay)


class PulledCall(CallRead):
    """One call with the cotangents of its outputs.

    Args:
        of: the call.
        cotangents: of every output tensor that has a gradient edge; None where nothing depends on it.
    """

    def __init__(self, of: CallRead, cotangents: Sequence[Tensor | None]) -> None:
        super().__init__(of.module, of.call, of.axis, of.batch)
        self._cotangents = cotangents
        self._inside: dict[str, Tensor] | None = None

    @cached_property
    def cotangent(self) -> Tensor:
        """Cotangent of the module's only output, (B, ...); zeros where nothing depends on it.

        Raises:
            UnsupportedLayerError: the output does not have as many rows as there are examples.
        """
        return self.call.cotangent(self._cotangents[0], self.axis, self.batch)

    @cached_property
    def by_example(self) -> Mapping[str, Tensor]:
        """Parameter name to gradients (B, numel), by differentiating the module example by example.

        Raises:
            UnsupportedLayerError: the module cannot be run on one example alone.
        """
        return self.call.differentiated(self.module, self.cotangent, self.batch)

    def inside(self, replay: ReplayFunction) -> Mapping[str, Tensor]:
        """Pull the cotangents back to the projections inside, once.

        Args:
            replay: repeats a call of such a module.

        Returns:
            Name of the projection to (B, T, out).

        Raises:
            UnsupportedLayerError: the call cannot be replayed.
        """
        if self._inside is None:
            self._inside = self.call.pulled_inside(self.module, self._cotangents, self.batch, replay)
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
        """Return the calls of modules of some types.

        Args:
            *types: of modules.

        Returns:
            The calls, in order.
        """
        return [c for c in self.calls if isinstance(c.module, types)]

    @cached_property
    def inputs(self) -> Tensor:
        """The block's inputs (B, T, in) without the column of ones of a bias; positions of all calls, in order."""
        return self.block.rule.gathered(self)

    @property
    def rows(self) -> Tensor:
        """:attr:`inputs` with the column of ones."""
        a = self.inputs
        return torch.cat([a, a.new_ones(*a.shape[:-1], 1)], -1) if self.block.shape[1] > a.shape[-1] else a


def joined(parts: Sequence[Tensor], empty: tuple[int, ...], like: Tensor) -> Tensor:
    """Join the positions of several calls.

    Args:
        parts: (B, T, d) of every call.
        empty: the shape where the module was not called.
        like: a tensor of the dtype and device.

    Returns:
        (B, Σ T, d); zeros of shape ``empty`` without a call.
    """
    if not parts:
        return like.new_zeros(empty)
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)
