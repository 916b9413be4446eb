"""Many networks of one architecture, their weights stacked along a first axis."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.task.checks import evaluating
from memspace.task.data import Inputs, first_tensor, move, take
from memspace.task.functional import functional_call

__all__ = ["Networks", "arguments"]


@dataclass(frozen=True)
class Networks:
    """M trained networks.

    Args:
        template: a network of the architecture, in eval mode; its own weights mean nothing.
        parameters: by name, (M, ...), trained or not.
        buffers: by name, (M, ...).
    """

    template: nn.Module
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return next(iter(self.parameters.values())).device

    def _tensors(self, m: int) -> dict[str, Tensor]:
        return {n: t[m] for n, t in (self.parameters | self.buffers).items()}

    def model(self, m: int) -> nn.Module:
        """Make network m a module of its own, in eval mode.

        Args:
            m: its place.

        Returns:
            A copy with its own weights.
        """
        fresh = copy.deepcopy(self.template)
        mine = self._tensors(m)
        with torch.no_grad():
            for n, t in (*fresh.named_parameters(), *fresh.named_buffers()):
                t.data = mine[n].clone()
        return fresh.eval()

    def state_dict(self, m: int) -> dict[str, Tensor]:
        """Copy the state dict of network m.

        Args:
            m: its place.

        Returns:
            Tensors by name.
        """
        return {n: t.detach() for n, t in self.model(m).state_dict().items()}

    @torch.no_grad()
    def outputs(self, x: Inputs, *, batch: int = 512) -> Tensor:
        """Compute the outputs of every network, in eval mode.

        Args:
            x: inputs (B, ...).
            batch: examples at a time.

        Returns:
            (M, B, ..., C).
        """
        count = len(first_tensor(x))
        dtype = next(iter(self.parameters.values())).dtype
        by_network = []
        with evaluating(self.template):
            for m in range(len(self)):  # one after another: a product with one network's weights fills the machine
                mine = self._tensors(m)
                parts = []
                for start in range(0, count, batch):
                    part = move(take(x, slice(start, start + batch)), self.device, dtype)
                    parts.append(functional_call(self.template, mine, *arguments(part)))
                by_network.append(torch.cat(parts))
        return torch.stack(by_network)

    def each(self, of: Callable[[nn.Module], Tensor]) -> Iterator[Tensor]:
        """Apply a function to each network in turn.

        Args:
            of: network ↦ tensor.

        Returns:
            An iterator over the results.
        """
        return (of(self.model(m)) for m in range(len(self)))

    @staticmethod
    def joined(parts: list[Networks]) -> Networks:
        """Put the networks of several groups one after another.

        Args:
            parts: groups of one architecture.

        Returns:
            All of them, in order.
        """

        def cat(of: Callable[[Networks], Mapping[str, Tensor]]) -> dict[str, Tensor]:
            return {n: torch.cat([of(p)[n] for p in parts]) for n in of(parts[0])}

        return Networks(parts[0].template, cat(lambda p: p.parameters), cat(lambda p: p.buffers))


def arguments(x: Inputs) -> tuple[tuple[Inputs, ...], dict[str, Inputs]]:
    """Split inputs into the arguments of a call.

    Args:
        x: a tensor, a tuple of tensors, or a dict.

    Returns:
        Positional and keyword arguments.
    """
    if isinstance(x, dict):
        return (), x
    return (x if isinstance(x, tuple) else (x,)), {}
