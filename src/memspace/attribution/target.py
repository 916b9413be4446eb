"""What a query asks: an outcome of the network's outputs, larger meaning better, in a stated unit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from memspace.errors import NonFiniteError, TaskError
from memspace.task.likelihood import Likelihood

__all__ = ["TARGETS", "Outcome", "Target", "target_of"]

MIXED = 1e-3  # relative difference of an outcome alone and among others, far above rounding
Outcome = Callable[[Likelihood, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Target:
    """An outcome q(f, y) per query, differentiated in the outputs f.

    Args:
        name: for people and tables.
        outcome: (law, f (Q, ..., C), y) -> (Q, ...): one number per position, or (Q,) where it is about the whole
            sequence. Positions are summed unless each is asked for as a query of its own.
        unit: of the outcome.
    """

    name: str
    outcome: Outcome
    unit: str = "nats"

    def by_position(self, law: Likelihood, f: Tensor, y: Tensor) -> Tensor:
        """Compute the outcome at every position.

        Args:
            law: the output law.
            f: outputs (Q, ..., C).
            y: labels (Q, ...).

        Returns:
            (Q, ...), 0 at padded positions; (Q,) where it is about the whole sequence.

        Raises:
            TaskError: the outcome is not one number per query or position.
            NonFiniteError: it is NaN or infinite.
        """
        q = self.outcome(law, f, y)
        if not isinstance(q, Tensor) or q.shape not in (f.shape[:1], f.shape[:-1]):
            got = f"shape {tuple(q.shape)}" if isinstance(q, Tensor) else type(q).__name__
            raise TaskError(
                f"the target gives {got} for outputs of shape {tuple(f.shape)}",
                where=f"target {self.name}",
                remedy="return one number per query, or one per query and position",
            )
        if not bool(torch.isfinite(q).all()):
            bad = int((~torch.isfinite(q.flatten(1) if q.dim() > 1 else q[:, None]).all(1)).sum())
            raise NonFiniteError(
                f"the outcome is NaN or infinite for {bad} of {len(q)} queries",
                where=f"target {self.name}",
                remedy="check the queries' inputs and labels, or the target's own formula",
            )
        return q * law.weight(f, y) if q.dim() > 1 else q

    def value(self, law: Likelihood, f: Tensor, y: Tensor) -> Tensor:
        """Compute the outcome of every query, positions summed.

        Args:
            law: the output law.
            f: outputs (Q, ..., C).
            y: labels (Q, ...).

        Returns:
            (Q,), in the target's unit.
        """
        q = self.by_position(law, f, y)
        return q.flatten(1).sum(1) if q.dim() > 1 else q

    def _check_apart(self, law: Likelihood, f: Tensor, y: Tensor, q: Tensor) -> None:
        """Raise where a query's outcome depends on which queries are asked with it: its gradient would, too."""
        for k in {0, len(q) - 1} if len(q) > 1 else ():
            alone = float(self.value(law, f[k : k + 1], y[k : k + 1])[0])
            if not math.isclose(alone, float(q[k]), rel_tol=MIXED, abs_tol=MIXED * float(f.abs().max())):
                raise TaskError(
                    f"the outcome of a query is {float(q[k]):.4g} among {len(q)} queries and {alone:.4g} alone",
                    where=f"target {self.name}",
                    remedy="compute each query's number from its own row of f and y: no sum or mean over queries",
                )

    def cotangent(self, law: Likelihood, f: Tensor, y: Tensor) -> Tensor:
        """Differentiate each query's outcome in the outputs.

        Args:
            law: the output law.
            f: outputs (Q, ..., C).
            y: labels (Q, ...).

        Returns:
            ∂q/∂f, (Q, ..., C).

        Raises:
            TaskError: it depends on the other queries, or not on the outputs.
        """
        with torch.enable_grad():
            leaf = f.detach().requires_grad_()
            q = self.value(law, leaf, y)
            self._check_apart(law, leaf.detach(), y, q.detach())
            if not q.requires_grad:
                raise TaskError(
                    "the target does not depend on the outputs",
                    where=f"target {self.name}",
                    remedy="compute it from f with differentiable operations",
                )
            if self.outcome is _loss:  # the derivative of a sure prediction's loss by autograd is rounding
                return -law.residual(f.detach(), y)
            (u,) = torch.autograd.grad(q.sum(), leaf)
        return u


def _loss(law: Likelihood, f: Tensor, y: Tensor) -> Tensor:
    return -law.nll(f, y)


def _margin(law: Likelihood, f: Tensor, y: Tensor) -> Tensor:
    """The log-odds of the label (Park et al. 2023, TRAK)."""
    return _log_odds(law, f, y.clamp_min(0))


def _log_odds(law: Likelihood, f: Tensor, k: Tensor) -> Tensor:
    odds = law.log_odds(f, k)
    if odds is None:
        raise _without_classes("margin", law)
    return odds


TARGETS = {"loss": Target("loss", _loss), "margin": Target("margin", _margin)}


def logit_difference(a: int, b: int) -> Target:
    """Make the outcome f_a − f_b: what speaks for class a rather than b, whatever the label.

    Args:
        a: class it speaks for.
        b: class it speaks against.

    Returns:
        the target.
    """
    return Target(f"logit {a} - {b}", lambda law, f, y: f[..., a] - f[..., b])


def log_probability(k: int) -> Target:
    """Make the log-probability of a class the outcome, whatever the label.

    Args:
        k: the class.

    Returns:
        the target, nats.
    """

    def outcome(law: Likelihood, f: Tensor, y: Tensor) -> Tensor:
        return nn.functional.logsigmoid(_log_odds(law, f, torch.full(f.shape[:-1], k, device=f.device)))

    return Target(f"log-probability {k}", outcome)


def target_of(
    target: str | Target | Callable[[Tensor, Tensor], Tensor], law: Likelihood, outputs: int | None = None
) -> Target:
    """Make a target from what a user gives: a name, a function of (f, y), or a target.

    Names: ``loss`` (the outcome is −loss), ``margin``, ``logit:A-B``, ``logp:K``.

    Args:
        target: as given.
        law: the output law.
        outputs: C, where known: class numbers are checked against it.

    Returns:
        the target.

    Raises:
        TaskError: an unknown name, a class that is not there, or a target that the output law has no meaning for.
    """
    if isinstance(target, Target):
        return target
    if callable(target):
        return Target(getattr(target, "__name__", "custom"), partial(_called, target), unit="1")
    if target == "loss":
        return TARGETS[target]
    kind, _, rest = target.partition(":")
    if kind not in ("margin", "logit", "logp"):
        raise _unknown(target)
    if kind != "logit" and not law.has_classes:
        raise _without_classes(kind, law)
    if target == "margin":
        return TARGETS[target]
    try:
        classes = [int(p) for p in rest.split("-")]
    except ValueError:
        raise _unknown(target) from None
    if len(classes) != (2 if kind == "logit" else 1):
        raise _unknown(target)
    if outputs is not None and max(classes) >= outputs:
        raise TaskError(
            f"there is no output {max(classes)}: the network has {outputs}, from 0",
            where=f"target {target}",
            remedy="name classes that are there",
        )
    return logit_difference(*classes) if kind == "logit" else log_probability(*classes)


def _without_classes(kind: str, law: Likelihood) -> TaskError:
    return TaskError(
        f"the target {kind} is defined for class probabilities, and the output law is {law.name}",
        where="target",
        remedy="use loss, or a function of (f, y)",
    )


def _called(function: Callable[[Tensor, Tensor], Tensor], law: Likelihood, f: Tensor, y: Tensor) -> Tensor:
    """What a user's function makes of outputs and labels; one that cannot be called with them is refused."""
    try:
        return function(f, y)
    except TypeError as error:
        what = f"the target cannot be called with outputs and labels: {' '.join(str(error).split())[:200]}"
        raise TaskError(what, where="target", remedy="give a function (f, y) -> one number per query") from error


def _unknown(target: str) -> TaskError:
    return TaskError(
        f"there is no target {target!r}",
        where="target",
        remedy="use loss, margin, logit:A-B (two classes), logp:K (one class), or a function of (f, y)",
    )
