"""What every output law p(y | f) offers: five things it must say, what follows from them, what only some laws have.

Shapes: ``f`` is ``(..., C)``, outputs of the network; labels ``y`` are of the shape of f, or ``(...)`` whole numbers
where they are classes. Leading axes are examples and, for sequences, positions; every method is elementwise over them.
Unit: nats. ``H`` is the Fisher information of the law in f, a (C, C) matrix per position.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Self

import torch
from torch import Tensor

from memspace.errors import LabelError
from memspace.task.laws import defaults
from memspace.task.laws.boundary import Boundary

__all__ = ["IGNORE", "Likelihood", "not_negative", "wrong_kind"]

IGNORE = -100  # the label of a padded position of a sequence, as in torch.nn.functional.cross_entropy


class Likelihood(ABC):
    """An output law p(y | f).

    A law of one's own says the five abstract methods and its ``name``; ``memspace.testing.check_law`` holds it against
    its own definition, ``memspace.register_law`` lets stored runs name it. Everything else has a default: what follows
    from the five by calculation, and abilities that are None, empty or False where a law does not have them.

    Attributes:
        name: for people.
        continuous: labels are real numbers with a density, so that the loss moves with their unit.
        independent: label c follows a law of output c alone, so that H is diagonal and H_cc is a function of f_c.
        classifies: :meth:`predict` gives decisions, so that accuracy means something.
        gain_free: predictions stay as they are when the outputs are multiplied by a positive number.
        shift_free: one number added to all outputs of a position changes nothing.
        least_outputs: the fewest outputs C that the law makes sense for.
        class_axis: the axis of the model's outputs that becomes the last one, 1 or -1; None: told from the labels.
        link: what outputs may be instead, told by looking at them (see ``memspace.task.reading.LINKS``); "" for none.
        radius: of the sphere that :meth:`coordinates` lie on; infinite: of flat space.
        boundary: where decisions change, None where that has no closed form.
    """

    name: str
    continuous: bool = False
    independent: bool = False
    classifies: bool = False
    gain_free: bool = False
    shift_free: bool = False
    least_outputs: int = 1
    class_axis: int | None = -1
    link: str = ""
    radius: float = math.inf
    boundary: Boundary | None = None

    # What a law must say.

    @abstractmethod
    def nll(self, f: Tensor, y: Tensor) -> Tensor:
        """-log p(y | f) per position, shape ``f.shape[:-1]``, nats."""

    @abstractmethod
    def fisher_root(self, f: Tensor) -> Tensor:
        """A root S with S Sᵀ = H, shape ``(..., C, K)``; each of the K columns costs a backward pass."""

    @abstractmethod
    def quantile(self, f: Tensor, u: Tensor) -> Tensor:
        """The label whose cumulative probability first reaches u in (0, 1), of shape :meth:`drawn`.

        At uniform u it is a draw from p(y | f).
        """

    @abstractmethod
    def kl(self, f: Tensor, f2: Tensor) -> Tensor:
        """KL(p(.|f) ‖ p(.|f2)) per position, nats."""

    @abstractmethod
    def mean(self, f: Tensor) -> Tensor:
        """E[y | f], shape of f; of classes their probabilities, (..., K)."""

    # What follows from it.

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        """The gradient of :meth:`nll` in f, shape of f; by automatic differentiation."""
        gradient: Tensor = torch.func.grad(lambda at: self.nll(at, y).sum())(f)
        return gradient

    def fisher_matvec(self, f: Tensor, u: Tensor) -> Tensor:
        """H u for ``u`` of the shape of f."""
        root = self.fisher_root(f)
        return (root @ (root.mT @ u.unsqueeze(-1))).squeeze(-1)

    def merged_root(self, f: Tensor, share: float) -> Tensor:
        """A root of H' ≤ H with tr H' ≥ (1 − share) tr H at every position; by default H' = H."""
        return self.fisher_root(f)

    def merged_columns(self, f: Tensor, share: float) -> int:
        """How many columns :meth:`merged_root` has, without making it."""
        return self.fisher_root(f.reshape(-1, f.shape[-1])[:1]).shape[-1]

    def drawn(self, f: Tensor) -> tuple[int, ...]:
        """How many uniform numbers a draw takes: the shape of u, here that of f."""
        return tuple(f.shape)

    def sample(self, f: Tensor, generator: torch.Generator) -> Tensor:
        """One label per position drawn from p(y | f)."""
        u = torch.rand(self.drawn(f), generator=generator, dtype=torch.float64, device=generator.device)
        return self.quantile(f, u.clamp_min(2.0**-54).to(f.device))

    def distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """Fisher–Rao distance between p(.|f) and p(.|f2) per position, nats^½.

        In closed form where the law has :meth:`coordinates`; else along the shortest polygon of 32 sides that a search
        finds (see ``memspace.task.laws.defaults.squared_shortest``).
        """
        at, at2 = self.coordinates(f), self.coordinates(f2)
        if at is None or at2 is None:
            return defaults.squared_shortest(self, f, f2).sqrt()
        chord: Tensor = torch.linalg.vector_norm(at - at2, dim=-1)
        if math.isinf(self.radius):
            return chord
        return 2 * self.radius * torch.asin((chord / (2 * self.radius)).clamp(max=1.0))

    def squared_distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """The square of :meth:`distance`, nats, with derivatives of any order, also at f = f2.

        Without :meth:`coordinates`, derivatives beyond the first are exact at f = f2 only.
        """
        at, at2 = self.coordinates(f), self.coordinates(f2)
        if at is None or at2 is None:
            return defaults.squared_shortest(self, f, f2)
        return self.squared_arc((at - at2).square().sum(-1))

    def squared_arc(self, chord: Tensor) -> Tensor:
        """d² of two points of :meth:`coordinates` from the square of the straight line between them."""
        return defaults.squared_arc(chord, self.radius)

    def null_output(self, y: Tensor, outputs: int) -> Tensor:
        """The constant output (C,), C = ``outputs``, of the best predictor that sees no input: the prior over ``y``."""
        return defaults.best_constant(self, y, outputs)

    def check(self, f: Tensor, y: Tensor, where: str) -> None:
        """Raise LabelError unless ``y`` are valid labels for outputs ``f``: by default finite, of the shape of f."""
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
        """The point prediction: the class where there are classes, else the mean."""
        return self.mean(f)

    def hits(self, f: Tensor, y: Tensor) -> Tensor:
        """Whether each decision agrees with its label, 0 or 1, of the shape of :meth:`predict`; 0 where padded.

        Against a distribution over classes it is the probability that the label is the predicted class.
        """
        return (self.predict(f) == y).to(f.dtype)

    def weight(self, f: Tensor, y: Tensor) -> Tensor:
        """1 per position that counts, 0 for padded positions (label -100); shape ``f.shape[:-1]``."""
        return torch.ones(f.shape[:-1], dtype=f.dtype, device=f.device)

    def floor(self, outputs: int) -> float:
        """What :meth:`nll` is never below at a position, nats: 0 of probabilities, −∞ of a density not told better."""
        return -math.inf if self.continuous else 0.0

    def excess(self, f: Tensor, y: Tensor) -> Tensor:
        """:meth:`nll` above :meth:`floor` where that is finite: not negative, and it does not move with y's unit."""
        floor = self.floor(f.shape[-1])
        return self.nll(f, y) - floor if floor > -math.inf and floor != 0 else self.nll(f, y)

    def straightened(self, loss: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
        """A growing function of the loss that is nearly linear in the outputs, and its slope.

        For decisions log(e^ℓ − 1), the log-odds against the label; else the loss itself.
        """
        if not self.classifies:
            return loss, torch.ones_like(loss)
        held = loss.clamp_min(1e-12)
        return held + torch.log(-torch.expm1(-held)), 1 / -torch.expm1(-held)

    # What only some laws have.

    def classes(self, outputs: int) -> int | None:
        """How many classes a label is one of, given the number C of outputs; None where a label is no class."""
        return None

    @property
    def has_classes(self) -> bool:
        """Whether a label is one class."""
        return self.classes(self.least_outputs) is not None

    def log_probabilities(self, f: Tensor) -> Tensor | None:
        """Log p of every class, (..., K); None where a label is no class."""
        return None

    def log_odds(self, f: Tensor, k: Tensor) -> Tensor | None:
        """Log p_k − log(1 − p_k) of a class per position, of the shape of ``k``; None where a label is no class."""
        log_p = self.log_probabilities(f)
        if log_p is None:
            return None
        k = k.unsqueeze(-1)
        return log_p.gather(-1, k).squeeze(-1) - torch.logsumexp(log_p.scatter(-1, k, -torch.inf), -1)

    def decisions(self, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """The D separate choices a label consists of; None where labels are no choices.

        Returns:
            log-probabilities (n, D, K) of the K values of each choice, and the values chosen (n, D), whole numbers.
        """
        return None

    def coordinates(self, f: Tensor) -> Tensor | None:
        """φ(f), (..., M), with ‖dφ‖² = dfᵀ H df, in flat space or on a sphere of ``radius``; None if unknown.

        Outputs that are independent, or one alone, have flat coordinates ∫√H_cc df_c, here integrated numerically.
        """
        return defaults.flat_coordinates(self, f) if self.independent or f.shape[-1] == 1 else None

    def tails(self, y: Tensor, f: Tensor) -> tuple[Tensor, Tensor] | None:
        """P(Y < y) and P(Y ≤ y) of every number of a label, shape of f; None where labels are no numbers.

        Here found by halving intervals of :meth:`quantile`.
        """
        numbers = self.independent and not self.classifies
        return defaults.bisected_tails(self, y, f) if numbers else None

    def standardised(self, y: Tensor, f: Tensor, spread: Tensor, u: Tensor) -> Tensor | None:
        """Residuals (..., n, C) that are standard normal where the law is right; None where labels are no numbers.

        By default Φ⁻¹(P(Y < y) + u P(Y = y)), averaged over normal outputs (randomised quantile residuals, Dunn &
        Smyth 1996), cut at eight standard deviations.

        Args:
            y: (n, C) targets; f: (n, C) outputs that did not see them; spread: (n, C, C) covariance of these outputs.
            u: (..., n, C) in (0, 1), the place within the step of a discrete law.
        """
        return defaults.quantile_residuals(self, y, f, spread, u)

    def scale(self, f: Tensor) -> Tensor | None:
        """σ of normal noise, a tensor that multiplies outputs ``f``; None for laws with other noise or none."""
        return None

    def fitted_to(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> Likelihood | None:
        """The law with what it leaves open fitted to outputs and labels; None where nothing is left open, or no fit is.

        Args:
            pairs: (f, y) of the training data in batches; read only where something is to be fitted.
        """
        return None

    @property
    def told(self) -> dict[str, str]:
        """What to say of parameters that were fitted, by name."""
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
        """What :meth:`from_arguments` makes the law from: its dataclass fields, or its attributes; plain JSON types."""
        names = [f.name for f in fields(self) if f.init] if is_dataclass(self) else list(vars(self))
        values = {name: getattr(self, name) for name in names}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Self:
        """The law of these arguments; lists are read as tuples."""
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in arguments.items()})


def not_negative(t: Tensor) -> Tensor:
    """Put what rounding made negative to 0 and keep its derivative, which a clamp would put to 0 as well."""
    return torch.where(t < 0, t - t.detach(), t)


def wrong_kind(law: str, y: Tensor, f: Tensor, where: str, want: str) -> LabelError:
    """The error for labels whose dtype or shape the law cannot read; ``want`` says what it reads."""
    return LabelError(
        f"{law} labels must be {want}, found {str(y.dtype).removeprefix('torch.')} of shape {tuple(y.shape)} "
        f"for outputs of shape {tuple(f.shape)}",
        where=where,
        remedy="change the labels or the output law (likelihood=...)",
    )
