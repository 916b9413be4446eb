"""The methods that the training study compares: what each adds to the loss, or which optimiser it takes instead."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from memspace.action.depth_regulariser import DepthAction
from memspace.action.optimiser import NaturalGradient
from memspace.action.regularise import FisherProximal, FisherRaoNorm
from memspace.errors import TaskError
from memspace.experiments.action_network import BLOCKS
from memspace.task.likelihood import Categorical

__all__ = ["METHODS", "Method", "Trainer", "method"]

RATES = (5e-4, 1.5e-3, 4e-3)
SOLE = (
    1e-4,
    1.5e-4,
    2e-4,
    3e-4,
    5e-4,
    7e-4,
    1e-3,
    1.5e-3,
    2e-3,
    3e-3,
    5e-3,
    1e-2,
)  # as many where nothing else is chosen
LAW = Categorical()
LONGEST = 0.1  # nats^½: a step of natural gradient moves predictions by at most 0.005 nats of KL, to leading order


class Trainer(ABC):
    """One method at work on one network."""

    optimiser: torch.optim.Optimizer

    @abstractmethod
    def step(self, x: Tensor, y: Tensor) -> None:
        """Take one step on a batch.

        Args:
            x: inputs (b, D).
            y: labels (b,).
        """

    def epoch(self) -> None:  # noqa: B027
        """Begin an epoch."""

    def close(self) -> None:  # noqa: B027
        """Take off whatever is attached to the network, after the last step."""


class AdamTrainer(Trainer):
    """Adam on a loss.

    Args:
        model: the network, trained in place.
        rate: learning rate to begin with.
        decay: decoupled weight decay.
        loss: (x, y) ↦ scalar.
    """

    def __init__(self, model: nn.Module, rate: float, decay: float, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.optimiser: torch.optim.Optimizer = AdamW(model.parameters(), rate, weight_decay=decay, fused=True)
        self._loss = loss

    def gradient(self, x: Tensor, y: Tensor) -> None:
        """Put the loss's gradient where the optimiser looks for it.

        Args:
            x: inputs (b, D).
            y: labels (b,).
        """
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(self._loss(x, y))

    def step(self, x: Tensor, y: Tensor) -> None:
        """Gradient and update."""
        self.gradient(x, y)
        self.optimiser.step()


Make = Callable[[nn.Module, float, float], Trainer]


@dataclass(frozen=True)
class Method:
    """One way to train.

    Args:
        name: in tables and on the command line.
        strength: what the strengths are, for the table.
        strengths: those offered; strengths × rates are the settings among which validation chooses.
        make: (network, rate, strength) ↦ its trainer.
        rates: learning rates offered.
        dropout: whether the strength is the network's dropout.
    """

    name: str
    strength: str
    strengths: tuple[float, ...]
    make: Make
    rates: tuple[float, ...] = RATES
    dropout: bool = False

    @property
    def settings(self) -> tuple[tuple[float, float], ...]:
        """Every setting as (rate, strength)."""
        return tuple((r, s) for r in self.rates for s in self.strengths)


def _nll(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: LAW.nll(model(x), y).mean()


def _plain(model: nn.Module, rate: float, strength: float) -> Trainer:
    return AdamTrainer(model, rate, 0.0, _nll(model))


def _decay(model: nn.Module, rate: float, strength: float) -> Trainer:
    return AdamTrainer(model, rate, strength, _nll(model))


def _smoothing(model: nn.Module, rate: float, strength: float) -> Trainer:
    loss = nn.CrossEntropyLoss(label_smoothing=strength)
    return AdamTrainer(model, rate, 0.0, lambda x, y: loss(model(x), y))


class _Sharpness(Trainer):
    """Two gradients a step: at the weights, and at the worst weights within ρ (Foret et al. 2021)."""

    def __init__(self, model: nn.Module, rate: float, rho: float) -> None:
        try:
            from pytorch_optimizer import SAM
        except ImportError as error:
            raise TaskError(
                "pytorch_optimizer is not installed",
                where="method sam",
                remedy="pip install 'memspace[study]', or leave the method out",
            ) from error
        self.optimiser = SAM(list(model.parameters()), AdamW, rho=rho, lr=rate, weight_decay=0.0)
        self._loss = _nll(model)

    def step(self, x: Tensor, y: Tensor) -> None:
        """Gradient, climb, gradient, update."""

        def gradient() -> float:
            self.optimiser.zero_grad()
            loss = self._loss(x, y)
            torch.autograd.backward(loss)
            return float(loss.detach())

        gradient()
        self.optimiser.step(gradient)


def _norm(model: nn.Module, rate: float, strength: float) -> Trainer:
    norm = FisherRaoNorm(model, LAW)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        f, penalty = norm(x)
        return LAW.nll(f, y).mean() + strength * penalty

    return AdamTrainer(model, rate, 0.0, loss)


class _Proximal(AdamTrainer):
    """The step away from the network at the start of the epoch costs its Fisher length (KL form)."""

    def __init__(self, model: nn.Module, rate: float, tau: float) -> None:
        self._proximal = FisherProximal(model, LAW, tau)
        super().__init__(model, rate, 0.0, self._penalised)

    def _penalised(self, x: Tensor, y: Tensor) -> Tensor:
        f, penalty = self._proximal(x)
        return LAW.nll(f, y).mean() + penalty

    def epoch(self) -> None:
        """A new proximal step begins."""
        self._proximal.renew()


class _Depth(AdamTrainer):
    """The kinetic energy of the hidden states along the residual blocks costs."""

    def __init__(self, model: nn.Module, rate: float, strength: float) -> None:
        self._penalty, nll = DepthAction(model, BLOCKS), _nll(model)
        super().__init__(model, rate, 0.0, lambda x, y: nll(x, y) + strength * self._penalty())

    def close(self) -> None:
        """Take the hooks off."""
        self._penalty.close()


class _Natural(AdamTrainer):
    """Natural gradient with EKFAC and momentum; the strength is the damping.

    A step is no longer than ``LONGEST`` in the metric: without it the first steps leave the region where F holds.
    """

    def __init__(self, model: nn.Module, rate: float, damping: float) -> None:
        super().__init__(model, rate, 0.0, _nll(model))
        self.optimiser = NaturalGradient(model, LAW, lr=rate, damping=damping, momentum=0.9, longest=LONGEST)


METHODS = (
    Method("plain", "none", (0.0,), _plain, SOLE),
    Method("weight decay", "decay (decoupled)", (0.3, 1.0, 3.0, 10.0), _decay),
    Method("dropout", "share dropped", (0.1, 0.25, 0.4, 0.6), _plain, dropout=True),
    Method("label smoothing", "share smoothed", (0.02, 0.05, 0.1, 0.2), _smoothing),
    Method("sam", "radius ρ", (0.025, 0.05, 0.1, 0.2), _Sharpness),
    Method("fisher-rao norm", "weight", (3e-3, 1e-2, 3e-2, 0.1), _norm),
    Method("fisher-proximal", "τ", (0.03, 0.1, 0.3, 1.0), _Proximal),
    Method("natural gradient", "damping", (0.1, 0.3, 1.0, 3.0), _Natural, rates=(0.01, 0.03, 0.1)),
    Method("depth action", "weight", (1e-3, 1e-2, 3e-2, 0.1), _Depth),
)


def method(name: str) -> Method:
    """Look a method up.

    Args:
        name: in tables and on the command line.

    Returns:
        The method of that name.

    Raises:
        TaskError: there is none.
    """
    for m in METHODS:
        if m.name == name:
            return m
    raise TaskError(
        f"there is no method {name!r}", where="training study", remedy=f"choose of {', '.join(m.name for m in METHODS)}"
    )
