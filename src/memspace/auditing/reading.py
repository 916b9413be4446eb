"""The values that a backend computes, and the workspace of an audit that passes them to measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memspace.auditing.settings import AuditSettings
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
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.value import Absent

__all__ = ["NO_LEVERAGE", "NO_REFITS", "NO_TEST_DATA", "Reading"]

NO_TEST_DATA = Absent("no test data were given", "pass test data to check the estimate")
NO_REFITS = Absent("no network was trained without some examples", "pass a way to train again, Task(refit=...)")
NO_LEVERAGE = Absent(
    "leverage matrices of sequences are too large", "use the self-influence of the chapter on what is stored"
)
NO_STORED_BITS = Absent(
    "the bits of random labels this architecture can store are not measured in an audit",
    "run `memspace capacity TASK` and pass its bits with --capacity",
)


@dataclass(frozen=True)
class Reading:
    """The values that a backend computes from a network, its training data and its test data.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        training: outputs on the training data.
        test: outputs on the test data.
        curvature: the metric and its fidelity.
        damping: γ and how it was chosen.
        influence: self-influence of the training examples.
        queries: influence of the training examples on single predictions.
        left_out_losses: losses without the example itself.
        left_out: outputs without the example itself.
        leverage: of the training examples.
        held_out: outputs of refits that did not see the examples.
    """

    task: Task
    space: ParameterSpace
    training: TrainingOutputs
    test: TestOutputs | Absent
    curvature: Curvature
    damping: DampingChoice
    influence: SelfInfluence
    queries: QueryInfluence
    left_out_losses: LeaveOneOutLosses
    left_out: LeaveOneOutOutputs | Absent
    leverage: Leverage | Absent
    held_out: HeldOut | Absent

    def workspace(self, settings: AuditSettings, progress: Progress) -> Workspace:
        """Return the values that measures need.

        Args:
            settings: of the audit.
            progress: where long work reports.

        Returns:
            a workspace in which all other values are made when they are first needed.
        """
        values: dict[Any, object] = {
            Task: self.task,
            ParameterSpace: self.space,
            Budget: Budget(settings.seed, settings.memory, progress),
            TrainingOutputs: self.training,
            TestOutputs: self.test,
            Curvature: self.curvature,
            DampingChoice: self.damping,
            SelfInfluence: self.influence,
            QueryInfluence: self.queries,
            LeaveOneOutLosses: self.left_out_losses,
            LeaveOneOutOutputs: self.left_out,
            Leverage: self.leverage,
            HeldOut: self.held_out,
            StoredBits: NO_STORED_BITS if settings.capacity is None else StoredBits(settings.capacity),
        }
        return Workspace(values)
