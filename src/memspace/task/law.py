"""Output laws p(y | f): everything that follows from the definition of one, by calculation.

The definition, with shapes and units, is in ``memspace.task.laws.definition``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Self

import torch
from torch import Tensor

from memspace.errors import LabelError
from memspace.task.laws import defaults
from memspace.task.laws.definition import LawDefinition

__all__ = ["IGNORE", "Likelihood", "not_negative", "wrong_kind"]

IGNORE = -100  # the label of a padded position of a sequence, as in torch.nn.functional.cross_entropy


class Likelihood(LawDefinition):
    """An output law p(y | f).

    A new law defines the five abstract methods of its base and its ``name``. ``memspace.testing.check_law`` checks it
    against its own definition; ``memspace.register_law`` lets stored runs name it. Everything else has a default.
    """

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        """Compute the gradient of ``nll`` in f, by automatic differentiation unless a law has a formula.

        Args:
            f: outputs (..., C).
            y: labels.

        Returns:
            (..., C), nats per unit of the outputs.
        """
        gradient: Tensor = torch.func.grad(lambda at: self.nll(at, y).sum())(f)
        return gradient

    def fisher_matvec(self, f: Tensor, u: Tensor) -> Tensor:
        """Compute H u.

        Args:
            f: outputs (..., C).
            u: vectors (..., C).

        Returns:
            (..., C).
        """
        root = self.fisher_root(f)
        return (root @ (root.mT @ u.unsqueeze(-1))).squeeze(-1)

    def merged_root(self, f: Tensor, share: float) -> Tensor:
        """Compute a root of H' ≤ H with tr H' ≥ (1 − share) tr H at every position; by default H' = H.

        Args:
            f: outputs (..., C).
            share: of tr H that may be lost.

        Returns:
            (..., C, K), nats^½.
        """
        return self.fisher_root(f)

    def merged_columns(self, f: Tensor, share: float) -> int:
        """Count the columns of :meth:`merged_root` without making it.

        Args:
            f: outputs (..., C).
            share: of tr H that may be lost.

        Returns:
            K.
        """
        return self.fisher_root(f.reshape(-1, f.shape[-1])[:1]).shape[-1]

    def drawn(self, f: Tensor) -> tuple[int, ...]:
        """Give the shape of the uniform numbers that a draw takes.

        Args:
            f: outputs (..., C).

        Returns:
            The shape of u, by default that of f.
        """
        return tuple(f.shape)

    def sample(self, f: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one label per position from p(y | f).

        Args:
            f: outputs (..., C).
            generator: of the uniform numbers.

        Returns:
            Labels.
        """
        u = torch.rand(self.drawn(f), generator=generator, dtype=torch.float64, device=generator.device)
        return self.quantile(f, u.clamp_min(2.0**-54).to(f.device))

    def distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """Compute the Fisher–Rao distance between p(·|f) and p(·|f2) per position.

        In closed form where the law has ``coordinates``; else along the shortest polygon of 32 sides that a search
        finds (see ``memspace.task.laws.defaults.squared_shortest``).

        Args:
            f: outputs (..., C).
            f2: outputs (..., C).

        Returns:
            (...), nats^½.
        """
        at, at2 = self.coordinates(f), self.coordinates(f2)
        if at is None or at2 is None:
            return defaults.squared_shortest(self, f, f2).sqrt()
        chord: Tensor = torch.linalg.vector_norm(at - at2, dim=-1)
        if math.isinf(self.radius):
            return chord
        return 2 * self.radius * torch.asin((chord / (2 * self.radius)).clamp(max=1.0))

    def squared_distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """Compute the square of :meth:`distance`, with derivatives of any order, also at f = f2.

        Without ``coordinates``, derivatives beyond the first are exact at f = f2 only.

        Args:
            f: outputs (..., C).
            f2: outputs (..., C).

        Returns:
            (...), nats.
        """
        at, at2 = self.coordinates(f), self.coordinates(f2)
        if at is None or at2 is None:
            return defaults.squared_shortest(self, f, f2)
        return self.squared_arc((at - at2).square().sum(-1))

    def squared_arc(self, chord: Tensor) -> Tensor:
        """Compute d² of two points of ``coordinates`` from their squared straight distance.

        Args:
            chord: squared lengths of straight lines, any shape.

        Returns:
            Squared lengths along the sphere, of the same shape; in flat space the same numbers.
        """
        return defaults.squared_arc(chord, self.radius)

    def null_output(self, y: Tensor, outputs: int) -> Tensor:
        """Find the constant output of the best predictor that sees no input: the prior over y.

        Args:
            y: labels of any number of examples.
            outputs: C.

        Returns:
            (C,).
        """
        return defaults.best_constant(self, y, outputs)

    def check(self, f: Tensor, y: Tensor, where: str) -> None:
        """Check that labels are valid for outputs: by default finite, and of the shape of f.

        Args:
            f: outputs (..., C).
            y: labels.
            where: the place that the error names.

        Raises:
            LabelError: they are not.
        """
        if y.shape != f.shape:
            raise wrong_kind(self.name, y, f, where, f"numbers of shape {tuple(f.shape)}")
        bad = ~torch.isfinite(y) | ~torch.isfinite(self.nll(f.double(), y)).unsqueeze(-1)
        if bool(bad.any()):
            raise LabelError(
                f"{int(bad.sum())} labels are NaN or infinite, or impossible under the {self.name} law",
                where=where,
                remedy="drop or repair those examples, or change the output law (likelihood=...)",
            )

    def predict(self, f: Tensor) -> Tensor:
        """Give the point prediction: the class where there are classes, else the mean.

        Args:
            f: outputs (..., C).

        Returns:
            (...) classes, or of the shape of f.
        """
        return self.mean(f)

    def hits(self, f: Tensor, y: Tensor) -> Tensor:
        """Tell whether each decision agrees with its label.

        Against a distribution over classes it is the probability that the label is the predicted class.

        Args:
            f: outputs (..., C).
            y: labels.

        Returns:
            0 or 1, of the shape of :meth:`predict`; 0 where padded.
        """
        return (self.predict(f) == y).to(f.dtype)

    def weight(self, f: Tensor, y: Tensor) -> Tensor:
        """Give each position the weight 1, and padded ones (label -100) the weight 0.

        Args:
            f: outputs (..., C).
            y: labels.

        Returns:
            (...).
        """
        return torch.ones(f.shape[:-1], dtype=f.dtype, device=f.device)

    def floor(self, outputs: int) -> float:
        """Give the number that ``nll`` is never below at a position.

        Args:
            outputs: C.

        Returns:
            Nats: 0 of probabilities, −∞ of a density where no better bound is known.
        """
        return -math.inf if self.continuous else 0.0

    def excess(self, f: Tensor, y: Tensor) -> Tensor:
        """Compute ``nll`` above :meth:`floor` where that is finite: not negative, and free of y's unit.

        Args:
            f: outputs (..., C).
            y: labels.

        Returns:
            (...), nats.
        """
        floor = self.floor(f.shape[-1])
        return self.nll(f, y) - floor if floor > -math.inf and floor != 0 else self.nll(f, y)

    def straightened(self, loss: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
        """Compute a growing function of the loss that is nearly linear in the outputs, and its slope.

        For decisions log(e^ℓ − 1), the log-odds against the label; else the loss itself.

        Args:
            loss: ℓ, nats, any shape.
            outputs: C.

        Returns:
            The function and its derivative in ℓ, of the shape of ``loss``.
        """
        if not self.classifies:
            return loss, torch.ones_like(loss)
        positive = loss.clamp_min(1e-12)
        return positive + torch.log(-torch.expm1(-positive)), 1 / -torch.expm1(-positive)

    # What a law leaves open until it is fitted.

    def fitted_to(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> Likelihood | None:
        """Fit what the law leaves open to outputs and labels.

        Args:
            pairs: (f, y) of the training data in batches; read only where something is to be fitted.

        Returns:
            The fitted law; None where nothing is left open, or no fit is possible.
        """
        return None

    @property
    def fitted_facts(self) -> dict[str, str]:
        """A sentence on each parameter that was fitted, by name."""
        return {}

    @property
    def trained_with(self) -> Likelihood:
        """The law whose negative log-likelihood a training minimises; this one, unless part of it was fitted later."""
        return self

    @property
    def gain_over_training(self) -> float:
        """By how much this law's losses weigh more than those of :attr:`trained_with`, on average over outputs."""
        return 1.0

    @property
    def unfitted(self) -> Likelihood:
        """The law without what was fitted to the network and its data, whose last digits depend on the machine."""
        return self

    # How it is stored.

    def arguments(self) -> dict[str, Any]:
        """Give the arguments that :meth:`from_arguments` makes the law from: its dataclass fields, or its attributes.

        Returns:
            Plain JSON types by name.
        """
        names = [f.name for f in fields(self) if f.init] if is_dataclass(self) else list(vars(self))
        values = {name: getattr(self, name) for name in names}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Self:
        """Make the law of given arguments; lists are read as tuples.

        Args:
            arguments: as :meth:`arguments` gives them.

        Returns:
            The law.
        """
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in arguments.items()})


def not_negative(t: Tensor) -> Tensor:
    """Set to 0 what rounding made negative and keep its derivative, which a clamp would set to 0 as well.

    Args:
        t: numbers that are not negative but for rounding.

    Returns:
        Numbers of the same shape.
    """
    return torch.where(t < 0, t - t.detach(), t)


def wrong_kind(law: str, y: Tensor, f: Tensor, where: str, want: str) -> LabelError:
    """Make the error for labels whose dtype or shape the law cannot read.

    Args:
        law: its name.
        y: the labels.
        f: the outputs.
        where: the place that the error names.
        want: which labels the law reads.

    Returns:
        The error, to be raised.
    """
    return LabelError(
        f"{law} labels must be {want}, found {str(y.dtype).removeprefix('torch.')} of shape {tuple(y.shape)} "
        f"for outputs of shape {tuple(f.shape)}",
        where=where,
        remedy="change the labels or the output law (likelihood=...)",
    )
