"""How a network is trained: a recipe that can be repeated, with everything that decides its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from memspace.arguments import check_fields
from memspace.errors import SettingsError
from memspace.limits import COUNT, SHARE, SIZE, WHOLE

__all__ = ["Recipe", "Training"]


@dataclass(frozen=True)
class Recipe:
    """One training of a network by mini-batches of a shuffled training set.

    Args:
        epochs: over the data.
        batch: examples per step; None: all at once.
        rate: the learning rate at the start, cosine-annealed to zero over all steps.
        decay: γ of γ/2·‖θ‖² added to the mean loss (coupled, also for Adam).
        checkpoints: how many states a recording keeps, denser early.
        threads: of torch while training (None: as it is set). For small steps one is faster: on a busy machine
            threads wait for each other longer than they work.
        optimiser: ``"adam"`` (Kingma & Ba 2015; β = 0.9, 0.999, ε = 1e-8) or ``"sgd"``.
        momentum: of SGD.

    Raises:
        SettingsError: a number is out of its range, or the optimiser is another.
    """

    epochs: Annotated[int, WHOLE]
    batch: Annotated[int | None, COUNT]
    rate: Annotated[float, SIZE]
    decay: Annotated[float, SIZE]
    checkpoints: Annotated[int, WHOLE] = 24
    threads: Annotated[int | None, COUNT] = None
    optimiser: str = "adam"
    momentum: Annotated[float, SHARE] = 0.9

    def __post_init__(self) -> None:
        check_fields(self)
        if self.optimiser not in ("adam", "sgd"):
            raise SettingsError(
                f"optimiser is adam or sgd, got {self.optimiser!r}", where="recipe", remedy="give one of these"
            )

    @property
    def named(self) -> str:
        """The optimiser as :class:`memspace.Run` names it."""
        if self.optimiser == "adam":
            return "Adam"
        return f"SGD with momentum {self.momentum:g}" if self.momentum else "SGD"

    def steps(self, n: int) -> int:
        """Count the optimiser steps of a training.

        Args:
            n: number of training examples.

        Returns:
            ``epochs`` times the batches of an epoch.
        """
        return self.epochs * -(-n // self.size(n))

    def size(self, n: int) -> int:
        """Count the examples of a step.

        Args:
            n: number of training examples.

        Returns:
            ``batch``, or ``n`` where that is less.
        """
        return n if self.batch is None else min(self.batch, n)

    def rate_at(self, step: int, total: int) -> float:
        """Compute the learning rate of a step, η_t = η_0 (1 + cos(π t/T))/2.

        Args:
            step: 0 ≤ t < T.
            total: T, the steps of the training.

        Returns:
            η_t.
        """
        return self.rate * (1 + math.cos(math.pi * step / total)) / 2

    def time(self, n: int) -> float | None:
        """Sum Σ η_t/(1 − momentum) over a training.

        Args:
            n: number of training examples.

        Returns:
            The learning-rate time; None for Adam, whose steps are not along gradients.
        """
        if self.optimiser != "sgd":
            return None
        total = self.steps(n)
        return math.fsum(self.rate_at(k, total) for k in range(total)) / (1 - self.momentum)

    def descent(self, parameters: Iterable[Tensor], *, fused: bool | None = None) -> torch.optim.Optimizer:
        """Make the optimiser, at the rate of the start.

        Args:
            parameters: to be trained.
            fused: as torch has it.

        Returns:
            An Adam or SGD optimiser.
        """
        trained = list(parameters)
        if self.optimiser == "sgd":
            return torch.optim.SGD(trained, self.rate, self.momentum, weight_decay=self.decay, fused=fused)
        return torch.optim.Adam(trained, lr=self.rate, weight_decay=self.decay, fused=fused)


@dataclass(frozen=True)
class Training:
    """A training that can be repeated on other examples: many networks at once, or with a gradient through it.

    Args:
        make: makes a fresh network; all its randomness is from torch's generator, none is in its forward pass.
        recipe: how it is trained. The loss is the mean over examples of the output law's negative log-likelihood (of
            a sequence, the mean over its positions) plus the decay.
    """

    make: Callable[[], nn.Module]
    recipe: Recipe

    def __post_init__(self) -> None:
        check_fields(self)
