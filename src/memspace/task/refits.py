"""A user's own ways to make networks, guarded: ``refit`` gives a network or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memspace.errors import NonFiniteError, ShapeError, TaskError
from memspace.task.adapted import copied, logits_of, part_of
from memspace.task.checks import untouched
from memspace.task.data import Inputs, call_model
from memspace.task.metadata import reason_of

__all__ = ["Refit", "guarded_refit"]


@dataclass(frozen=True)
class Refit:
    """A user's ``refit(indices, seed)`` that gives a network or one sentence.

    Args:
        train: as the user gave it.
        example: inputs of one example.
        shape: of the audited network's outputs there; None where it is not known.
    """

    train: Callable[[Tensor, int], Any]
    example: Inputs
    shape: tuple[int, ...] | None

    def __call__(self, index: Tensor, seed: int) -> nn.Module:
        """Train a network on the examples at ``index``.

        Raises:
            TaskError: it raises, or returns no network.
            NonFiniteError: the network's weights are not finite.
            ShapeError: the network's outputs differ in shape from the audited one's.
        """
        call = f"refit({len(index):,} examples, seed {seed})"
        try:
            network = self.train(index, seed)
        except Exception as error:  # a user's own code
            raise TaskError(
                f"refit fails ({reason_of(error)})", where=call, remedy="repair it, or audit without refit"
            ) from error
        if not isinstance(network, nn.Module):
            raise TaskError(
                f"refit returns {type(network).__name__}, not a network",
                where=call,
                remedy="let it return the nn.Module",
            )
        bad = [n for n, p in network.named_parameters() if p.is_floating_point() and not bool(torch.isfinite(p).all())]
        if bad:
            raise NonFiniteError(
                f"refit returns a network whose weights are NaN or infinite, first {bad[0]}",
                where=call,
                remedy="let the training of refit converge: a smaller learning rate, no empty batches",
            )
        self._check_outputs(network, call)
        return network

    def _check_outputs(self, network: nn.Module, call: str) -> None:
        if self.shape is None:
            return
        try:
            with untouched(network), torch.no_grad():
                returned = call_model(network, copied(self.example))
        except Exception:  # the pass that reads it says what is wrong
            return
        pick = logits_of(returned, 1)
        f = returned if pick is None else part_of(returned, pick)
        if isinstance(f, Tensor) and tuple(f.shape[1:]) != self.shape[1:]:
            raise ShapeError(
                f"refit returns a network with outputs of shape {tuple(f.shape[1:])} an example, "
                f"the audited network has {self.shape[1:]}",
                where=call,
                remedy="let it build the same architecture",
            )


def guarded_refit(refit: Any, example: Inputs, shape: tuple[int, ...] | None) -> Any:
    """Make a user's refit one that states its faults in one sentence.

    Args:
        refit: a function of indices and seed, None, or one that is guarded already.
        example: inputs of one example.
        shape: of the audited network's outputs there.

    Returns:
        A :class:`Refit`; None and guarded functions as they are.
    """
    return refit if refit is None or isinstance(refit, Refit) else Refit(refit, example, shape)
