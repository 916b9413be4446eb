"""What measures need: a value is present as a whole, or absent as a whole with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from memspace.measurement import Unmeasured
from memspace.metric.metric import Fidelity, FisherMetric, SpectralFunction
from memspace.progress import Progress

__all__ = [
    "Budget",
    "Curvature",
    "HeldOut",
    "LeaveOneOutLosses",
    "LeaveOneOutOutputs",
    "Leverage",
    "QueryInfluence",
    "SelfInfluence",
    "StoredBits",
    "TestOutputs",
    "TrainingOutputs",
]


@dataclass(frozen=True)
class Budget:
    """What a measure may use, and whom it tells how far it is.

    Args:
        seed: random seed; each measure adds an offset of its own.
        memory: bytes, excluding model and data.
        progress: where long work reports.
    """

    seed: int
    memory: int
    progress: Progress


@dataclass(frozen=True)
class TrainingOutputs:
    """The network on its training data, in their order.

    Args:
        f: (n, C) or (n, positions, C) outputs.
        y: labels.
        loss: (n,) nats per example, summed over positions.
        weight: (n,) or (n, positions), 1 where a prediction counts.
    """

    f: Tensor
    y: Tensor
    loss: Tensor
    weight: Tensor

    @property
    def n(self) -> int:
        """Training examples."""
        return len(self.f)

    @property
    def count(self) -> float:
        """Predictions that count: positions of sequences, else examples."""
        return float(self.weight.sum())

    @property
    def sequence(self) -> bool:
        """True where an example holds several positions."""
        return self.f.dim() > 2

    @property
    def per(self) -> str:
        """What losses are counted per, beyond the example: ``"position"`` for sequences, else nothing."""
        return "position" if self.sequence else ""

    @property
    def nats(self) -> str:
        """The unit of losses per prediction."""
        return f"nats per {self.per}" if self.per else "nats"

    @property
    def classes(self) -> bool:
        """True where every example has one label that is a class."""
        return self.y.dim() == 1 and not self.y.is_floating_point()


@dataclass(frozen=True)
class TestOutputs:
    """The network on its test data.

    Args:
        f: (n, C) or (n, positions, C) outputs.
        y: labels.
    """

    __test__ = False  # not a test case, though pytest would collect it by its name

    f: Tensor
    y: Tensor


@dataclass(frozen=True)
class Curvature:
    """The Fisher metric of the training data, as read by one of the backends.

    Args:
        metric: F at the trained weights.
        read_diagonal: returns ``diagonal``; called when it is first asked for.
        layer_trace: fn → (L,) tr fn(F) by block; the blocks sum to the whole.
        trace: (n,) tr F of each example, or None where only the mean is known.
        mean_trace: mean of tr F over the examples, with its standard error.
        fidelity: distance from exact Fisher products; None: the metric is exact; or why it was not measured.
        estimator: how the metric was read, for people.
        n: training examples.
    """

    metric: FisherMetric
    read_diagonal: Callable[[], Tensor]
    layer_trace: Callable[[SpectralFunction], Tensor]
    trace: Tensor | None
    mean_trace: tuple[float, float]
    fidelity: Fidelity | Unmeasured | None
    estimator: str
    n: int

    @cached_property
    def diagonal(self) -> Tensor:
        """(P,) diagonal of F, nats."""
        return self.read_diagonal()


@dataclass(frozen=True)
class SelfInfluence:
    """Self-influence gᵀM⁻¹g of every training example.

    Args:
        parts: (n, L) by block, nats.
    """

    parts: Tensor

    @property
    def total(self) -> Tensor:
        """(n,) nats."""
        return self.parts.sum(1)


@dataclass(frozen=True)
class Leverage:
    """Leverage matrices V of the training examples' outputs.

    Args:
        matrices: (n, C, C).
    """

    matrices: Tensor


@dataclass(frozen=True)
class LeaveOneOutLosses:
    """Loss of each training example without itself.

    Args:
        loss: (n,) nats, summed over positions.
    """

    loss: Tensor


@dataclass(frozen=True)
class LeaveOneOutOutputs:
    """Outputs of each training example without itself.

    Args:
        f: (n, C).
    """

    f: Tensor


@dataclass(frozen=True)
class HeldOut:
    """Outputs of networks that did not see these training examples.

    Args:
        index: (m,) positions in the training data.
        f: (m, C) outputs.
        folds: how many networks were trained.
        seconds: what they cost.
    """

    index: Tensor
    f: Tensor
    folds: int
    seconds: float


@dataclass(frozen=True)
class QueryInfluence:
    """How much each training example lowers the loss of what is predicted for some queries.

    Args:
        queries: (Q,) positions in the test data (without test data: in the training data).
        scores: (Q, n) nats.
    """

    queries: Tensor
    scores: Tensor


@dataclass(frozen=True)
class StoredBits:
    """Bits of random labels that the architecture stores, as ``memspace capacity`` measures them.

    Args:
        bits: stored.
    """

    bits: float
