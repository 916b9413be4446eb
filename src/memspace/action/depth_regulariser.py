"""Training that pays for action along depth: a penalty on the hidden states of the last forward pass."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memspace.action.calls import CallRecorder, ModuleCall
from memspace.action.chain import candidates, linked
from memspace.arguments import typed
from memspace.errors import TaskError
from memspace.task.selection import split_patterns

__all__ = ["DepthAction"]


class DepthAction:
    """The kinetic energy of hidden states h_0 … h_L, differentiable: mean over examples of (L/2) Σ ‖h_{l+1} − h_l‖².

    Hooks keep the hidden states of the model's last forward pass; parameters, buffers and state dict are untouched::

        with DepthAction(model, blocks="layers.*") as penalty:
            for x, y in loader:
                loss = criterion(model(x), y) + strength * penalty()

    Under autocast the hidden states come in half precision; their differences are summed in float32.

    Args:
        model: the network trained.
        blocks: shell patterns over module names (``!`` excludes), None: the longest chain of same-shape modules of one
            class, found in the first forward pass.
        excess: penalise what exceeds the least action ½‖h_L − h_0‖² instead: bends and uneven steps, not distance.

    Raises:
        TaskError: at the first penalty, where the blocks make no chain (see ``memspace.action.chain``).
        ShapeError: at the first penalty, where the shape changes along the blocks.
        UnsupportedLayerError: at the first penalty, where a block works in place or is not fed by the one before.
    """

    @typed
    def __init__(self, model: nn.Module, blocks: str | Sequence[str] | None = None, *, excess: bool = False) -> None:
        self.excess = excess
        self._model = model
        self._named = bool(split_patterns(blocks or ())[0])
        self._settled = False
        self._record = CallRecorder(model, candidates(model, blocks or ()))

    def __enter__(self) -> DepthAction:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the hooks off and let the hidden states go."""
        self._record.close()

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks of the last forward pass, in order."""
        return tuple(c.name for c in self._chain())

    def __call__(self) -> Tensor:
        """The penalty of the last forward pass, a scalar tensor.

        Raises:
            TaskError: the model has not run since the hooks were set.
        """
        calls = self._chain()
        states = [calls[0].input, *(c.output for c in calls)]
        states = [h.float() if h.dtype in (torch.float16, torch.bfloat16) else h for h in states]
        energy = sum((_squared(b - a) for a, b in itertools.pairwise(states)), torch.zeros((), device=states[0].device))
        action = len(calls) / 2 * energy
        return action - _squared(states[-1] - states[0]) / 2 if self.excess else action

    def _chain(self) -> list[ModuleCall]:
        if not self._record.calls:
            raise TaskError(
                "there are no hidden states to penalise",
                where="DepthAction",
                remedy="call the model before the penalty, and the penalty before close()",
            )
        calls = linked(self._record.calls, named=self._named or self._settled)
        if not self._settled:
            self._settle(calls)
        return calls

    def _settle(self, calls: list[ModuleCall]) -> None:
        """From now on only the chain's own modules are watched."""
        old, self._settled = self._record, True
        self._record = CallRecorder(self._model, {c.name: c.module for c in calls}, list(calls))
        old.close()


def _squared(step: Tensor) -> Tensor:
    """Mean over examples of ‖step‖²."""
    return step.square().sum() / len(step)
