"""The four counts of one trained network on its training set, with their errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.func import vmap

from memspace.measures.predictors.learning_coefficient import Coefficient, learning_coefficient
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import checked_space
from memspace.task.functional import functional_call
from memspace.task.task import Task
from memspace.value import Absent
from memspace.zoo.counts.curvature import LabelCurvature, label_curvature
from memspace.zoo.counts.settings import CountSettings
from memspace.zoo.counts.stored import StoredLabels, stored_labels

__all__ = ["Counted", "NetworkCounts", "PriorCounts", "count_memory"]

AGREE, ENOUGH = 1.2, 10.0  # R̂ up to which chains agree, independent draws from which their error is known


@dataclass(frozen=True)
class Counted:
    """A count.

    Args:
        bits: of it.
        error: its standard error.
        doubt: why neither should be trusted; empty where nothing speaks against them.
    """

    bits: float
    error: float
    doubt: str = ""


@dataclass(frozen=True)
class PriorCounts:
    """Counts from the Fisher spectrum under a prior N(θ*, I/α).

    Args:
        precision: α.
        information: ½ Σ log2(1 + Nλ/α): bits that the labels put into the weights; error over examples.
        volume: −log2 of the prior mass of {θ : KL(θ*‖θ) ≤ ε}, to second order in θ − θ*; error over examples.
    """

    precision: float
    information: Counted
    volume: Counted


@dataclass(frozen=True)
class NetworkCounts:
    """What one network holds of its training labels, counted in four ways.

    Args:
        parameters: P.
        stored: bits of the labels themselves.
        given: counts of the spectrum under the prior that is the same for all networks, α = Nγ.
        coefficient: λ̂ log2 N: leading term of the bits that a code with these weights pays for them (Watanabe), of the
            training loss itself, held near the weights by that prior; error of the chains.
        evidence: those under the prior of greatest Laplace evidence; absent where that has no maximum.
    """

    parameters: int
    stored: StoredLabels
    given: PriorCounts
    coefficient: Counted | Absent
    evidence: PriorCounts | Absent


def count_memory(task: Task, settings: CountSettings | None = None) -> NetworkCounts:
    """Count in four ways what a network holds of its training labels.

    All counts are of the same weights and the same N labels, and the three geometric ones share a prior. They are
    the same number only where the paper's picture holds. In a regular model of d determined directions the information
    is ½ Σ log2(Nλ/α); the volume at ε = d/2N is about d/2 ln 2 bits less; the coefficient counts d/2·log2 N alone.

    Args:
        task: the network and its training data; its law is categorical.
        settings: prior, ε and chains; None: the defaults.

    Returns:
        The counts.

    Raises:
        MemspaceError: the task cannot be read.
    """
    settings = settings or CountSettings()
    space = checked_space(task)
    f, y = outputs(task, task.train)
    curvature = label_curvature(task, space, settings.rows)
    gamma = curvature.evidence()
    evidence: PriorCounts | Absent = Absent("the evidence has no maximum in reach", "give a prior")
    if gamma is not None:
        evidence = _under(gamma, curvature, settings)
    return NetworkCounts(
        space.size,
        stored_labels(f, y),
        _under(settings.damping, curvature, settings),
        _coefficient(task, space, curvature, settings),
        evidence,
    )


def _under(damping: float, curvature: LabelCurvature, settings: CountSettings) -> PriorCounts:
    information, volume = curvature.information(damping), curvature.volume(damping, settings.epsilon)
    return PriorCounts(curvature.labels * damping, Counted(*information), Counted(*volume))


def _coefficient(
    task: Task, space: ParameterSpace, curvature: LabelCurvature, settings: CountSettings
) -> Counted | Absent:
    sampled = learning_coefficient(
        _loss_of(task, space),
        space.flat(task.model).double(),
        curvature.labels,
        settings.sampling(curvature.labels * settings.damping),
        hessian=curvature.product,  # where directions are stiff F is close to the Hessian, and draws are exact anyway
        seed=settings.seed,
    )
    if isinstance(sampled, Absent):
        return sampled
    if sampled.value + 2 * sampled.error < 0:
        return Absent("the loss falls around the weights: they are no minimum", "train longer")
    size = math.log2(curvature.labels)
    return Counted(sampled.value * size, sampled.error * size, _doubt(sampled))


def _doubt(sampled: Coefficient) -> str:
    if not sampled.rhat <= AGREE:
        return f"the chains do not agree (R̂ = {sampled.rhat:.2f})"
    return f"{sampled.size:.0f} independent draws" if sampled.size < ENOUGH else ""


def _loss_of(task: Task, space: ParameterSpace) -> Callable[[Tensor], Tensor]:
    """(K, P) ↦ (K,), the mean loss per label, nats."""
    batch = task.train.batch(list(range(len(task.train))))
    kind = next(task.model.parameters()).dtype

    def mean_loss(weights: Tensor) -> Tensor:
        f: Tensor = functional_call(task.model, space.unpack(weights), (batch.x,))
        return nn.functional.cross_entropy(f.flatten(0, -2), batch.y.flatten())

    def loss(points: Tensor) -> Tensor:
        values: Tensor = vmap(mean_loss)(points.to(kind))
        return values.double()

    return loss
