"""What all chapters stand on, read once: outputs, metric, leverage, leave-one-out, influence, damping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from memspace.measurement import Unmeasured
from memspace.measures.damping import DampingChoice
from memspace.metric.metric import Fidelity, FisherMetric, SpectralFunction
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task

if TYPE_CHECKING:
    from memspace.auditing.judge import Judged

__all__ = ["HeldOut", "Reading"]


@dataclass(frozen=True)
class HeldOut:
    """Outputs of networks that did not see these training examples, with what they cost."""

    index: Tensor
    f: Tensor
    folds: int
    seconds: float


@dataclass(frozen=True)
class Reading:
    """A network, read. Per-example tensors are in the order of the training data.

    Args:
        f, y, loss: outputs, labels, losses (nats per example: summed over positions); ``weight``: positions counted.
        test_f, test_y: the same of the test data, or None.
        metric: the Fisher metric of the training data; ``fidelity``: measured against exact products (None if
            exact, and the reason where that failed).
        layer_trace: fn → per block tr_block fn(F); blocks sum to the whole.
        trace: tr F of each example (n,), or None where only the mean is known; ``mean_trace`` (value, standard error).
        leverage: V (n, C, C) or None for sequences and outputs too many.
        parts: self-influence by block (n, L); ``self_influence`` its sum.
        loo_f, loo_loss: leave-one-out outputs (None where leverage is) and losses.
        held_out: refits, or None; labels: every label judged, or None.
        queries: test examples explained; ``influence`` (Q, n): how much each training example lowers the
            loss of what is predicted there (see ``common.explained``).
    """

    task: Task
    space: ParameterSpace
    f: Tensor
    y: Tensor
    loss: Tensor
    weight: Tensor
    test_f: Tensor | None
    test_y: Tensor | None
    metric: FisherMetric
    diagonal: Tensor
    fidelity: Fidelity | Unmeasured | None
    layer_trace: Callable[[SpectralFunction], Tensor]
    trace: Tensor | None
    mean_trace: tuple[float, float]
    damping: DampingChoice
    leverage: Tensor | None
    parts: Tensor
    loo_f: Tensor | None
    loo_loss: Tensor
    held_out: HeldOut | None
    labels: Judged | None
    queries: Tensor
    influence: Tensor
    estimator: str

    @property
    def n(self) -> int:
        """Training examples."""
        return len(self.f)

    @property
    def self_influence(self) -> Tensor:
        """(n,) nats."""
        return self.parts.sum(1)

    @property
    def units(self) -> float:
        """Predictions made on the training data (positions for sequences, else examples)."""
        return float(self.weight.sum())

    @property
    def sequence(self) -> bool:
        """True where an example holds several positions."""
        return self.f.dim() > 2
