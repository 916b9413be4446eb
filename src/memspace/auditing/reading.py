"""What all chapters stand on, read once: outputs, metric, leverage, leave-one-out, influence, damping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from memspace.auditing.settings import AuditSettings
from memspace.measurement import Unmeasured
from memspace.measures.damping import DampingChoice
from memspace.measures.values import (
    Budget,
    Curvature,
    HeldOut,
    LeaveOneOutLosses,
    LeaveOneOutOutputs,
    Leverage,
    QueryInfluence,
    SelfInfluence,
    StoredBits,
    TestOutputs,
    TrainingOutputs,
)
from memspace.measures.workspace import Workspace
from memspace.metric.metric import Fidelity, FisherMetric, SpectralFunction
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.value import Absent

__all__ = ["HeldOut", "Reading", "workspace_of"]


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
        held_out: refits, or None.
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


def workspace_of(r: Reading, settings: AuditSettings, progress: Progress) -> Workspace:
    """Return the values that measures need, as read.

    Args:
        r: the network, read.
        settings: of the audit.
        progress: where long work reports.

    Returns:
        a workspace in which all other values are made when they are first needed.
    """
    no_test = Absent("no test data were given", "pass test data to see the estimate checked")
    sequence = "leverage matrices of sequences are out of reach here"
    no_leverage = Absent(sequence, "use the self-influence of the chapter on what is stored")
    unknown = Absent(
        "the bits of random labels this architecture can store are not measured in an audit",
        "run `memspace capacity TASK` and pass its bits with --capacity",
    )
    tested = r.test_f is not None and r.test_y is not None
    given: dict[Any, object] = {
        Task: r.task,
        ParameterSpace: r.space,
        Budget: Budget(settings.seed, settings.memory, progress),
        TrainingOutputs: TrainingOutputs(r.f, r.y, r.loss, r.weight),
        TestOutputs: TestOutputs(r.test_f, r.test_y) if tested else no_test,  # type: ignore[arg-type]
        Curvature: Curvature(r.metric, r.diagonal, r.layer_trace, r.trace, r.mean_trace, r.fidelity, r.estimator, r.n),
        DampingChoice: r.damping,
        SelfInfluence: SelfInfluence(r.parts),
        Leverage: no_leverage if r.leverage is None else Leverage(r.leverage),
        LeaveOneOutLosses: LeaveOneOutLosses(r.loo_loss),
        LeaveOneOutOutputs: no_leverage if r.loo_f is None else LeaveOneOutOutputs(r.loo_f),
        HeldOut: Absent("no network was trained without some examples", "pass a way to train again, Task(refit=...)")
        if r.held_out is None
        else r.held_out,
        QueryInfluence: QueryInfluence(r.queries, r.influence),
        StoredBits: unknown if settings.capacity is None else StoredBits(settings.capacity),
    }
    return Workspace(given)
