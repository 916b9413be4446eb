"""How a model's outputs become the output law's: one row of logits, means or log-rates per prediction, classes last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LINKS", "Link", "Making", "OutputReading", "read_so"]


@dataclass(frozen=True)
class Link:
    """What outputs may be in place of those that a law wants.

    Args:
        description: one clause for people.
        fits: whether outputs (B, ..., C) look like it.
        inverse: turns them into the law's outputs.
    """

    description: str
    fits: Callable[[Tensor], bool]
    inverse: Callable[[Tensor], Tensor]


def _distributions(f: Tensor) -> bool:
    return f.shape[-1] > 1 and _shares(f) and bool(((f.double().sum(-1) - 1).abs() < 1e-3).all())


def _shares(f: Tensor) -> bool:
    return bool(((f >= 0) & (f <= 1)).all())


def _rates(f: Tensor) -> bool:
    return bool((f > 0).all())


# What has rounded to 0 or 1 keeps a finite logit: beyond these bounds the law's gradient is rounding.
def _log_odds(f: Tensor) -> Tensor:
    return torch.logit(f, torch.finfo(f.dtype).eps / 2)


def _log(f: Tensor) -> Tensor:
    return torch.log(f.clamp_min(torch.finfo(f.dtype).tiny))


LINKS = {
    "softmax": Link(
        "the model's outputs are class probabilities (it ends in a softmax): their logarithm is read as logits",
        _distributions,
        _log,
    ),
    "sigmoid": Link(
        "the model's outputs are probabilities (it ends in a sigmoid): their log-odds are read as logits",
        _shares,
        _log_odds,
    ),
    "rate": Link(
        "the model's outputs are rates (they are never negative): their logarithm is read as log-rates", _rates, _log
    ),
}


@dataclass(frozen=True)
class OutputReading:
    """Turns outputs as the model gives them into outputs as the law wants them.

    Args:
        column: outputs of shape (B,) are one column, (B, 1).
        classes_first: the classes run along axis 1, as torch's losses have it, and are moved to the end.
        link: what the outputs are already: ``softmax`` or ``sigmoid`` probabilities, or a ``rate``; empty: as wanted.
    """

    column: bool = False
    classes_first: bool = False
    link: str = ""

    @property
    def changes(self) -> bool:
        """Whether anything is done to the outputs."""
        return self.column or self.classes_first or bool(self.link)

    @property
    def description(self) -> str:
        """One clause for people; empty where nothing is done."""
        parts = [LINKS[self.link].description] if self.link else []
        if self.classes_first:
            parts.append("classes run along axis 1 of the outputs")
        if self.column:
            parts.append("outputs of shape (B,) are read as one column")
        return "; ".join(parts)

    def of(self, f: Tensor) -> Tensor:
        """Turn the model's outputs into the law's.

        Args:
            f: outputs as the model gives them, (B,), (B, C), (B, C, ...) or (B, ..., C).

        Returns:
            (B, ..., C).
        """
        if self.column:
            f = f.unsqueeze(-1)
        if self.classes_first:
            f = f.movedim(1, -1)
        return LINKS[self.link].inverse(f) if self.link else f


def read_so(model: nn.Module, reading: OutputReading) -> nn.Module:
    """Return the model with its outputs read that way: a shallow copy of the top module around the same parts.

    The outputs are read outside the module's own call, so that hooks on it see the outputs before that. Outputs that
    are no tensor are left alone.

    Args:
        model: the network.
        reading: of its outputs.

    Returns:
        The copy; the model itself where nothing is to be done or it is read so already.
    """
    if not reading.changes or getattr(type(model), "_reading", None) == reading:
        return model
    kind = type(model)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = kind.__call__(self, *args, **kwargs)
        return reading.of(output) if isinstance(output, Tensor) else output

    names = {"__call__": call, "_reading": reading, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    made: Any = type(kind.__name__, (kind,), names)
    copy: nn.Module = made.__new__(made)
    copy.__dict__ = dict(vars(model))
    return copy


@dataclass(frozen=True)
class Making:
    """A way to make or refit networks, whose outputs are then read in a given way.

    Args:
        make: ``make()``, or ``refit(indices, seed)``.
        reading: of the networks' outputs.
        labelled: places of the labelled examples in the data as given, which the indices count; None: all of them.
    """

    make: Callable[..., Any]
    reading: OutputReading
    labelled: Tensor | None = None

    def __call__(self, *args: Any) -> Any:
        """Return what ``make`` gives, adapted where it is a module."""
        if self.labelled is not None and args:
            args = (self.labelled[args[0]], *args[1:])
        made = self.make(*args)
        return read_so(made, self.reading) if isinstance(made, nn.Module) else made
