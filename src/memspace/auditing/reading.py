"""A network, read: the values that a backend makes, and the workspace of an audit in which measures find them."""

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

NO_TEST_DATA = Absent("no test data were given", "pass test data to see the estimate checked")
NO_REFITS = Absent("no network was trained without some examples", "pass a way to train again, Task(refit=...)")
NO_LEVERAGE = Absent(
    "leverage matrices of sequences are out of reach here", "use the self-influence of the chapter on what is stored"
)
NO_STORED_BITS = Absent(
    "the bits of random labels this architecture can store are not measured in an audit",
    "run `memspace capacity TASK` and pass its bits with --capacity",
)


@dataclass(frozen=True)
class Reading:
    """What a backend makes of a network, its training data and its test data."""

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
        given: dict[Any, object] = {
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
        return Workspace(given)
