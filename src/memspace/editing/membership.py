"""Membership inference: can one tell by the loss which examples a network was trained on?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.editing.effects import losses
from memspace.intervals import of_difference, of_share
from memspace.measurement import Measurement
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["MembershipAttack", "class_weights", "loss_attack", "membership"]

SOURCE = "yeom2018 [adversary 2]"


@dataclass(frozen=True)
class MembershipAttack:
    """A loss-threshold attack on some examples.

    Args:
        auc: chance that a member's loss is below a non-member's (ties count half); 0.5 tells nothing.
        error: its standard error (Hanley & McNeil 1982).
        called: share of the members that have a loss below the threshold and so are called members.
        called_others: weighted share of the non-members that are.
        members: how many.
        others: how many.
        worth: as how many independent non-members their weights count.
    """

    auc: float
    error: float
    called: float
    called_others: float
    members: int
    others: int
    worth: float

    @property
    def advantage(self) -> float:
        """Share of members called members less share of non-members called members."""
        return self.called - self.called_others

    @property
    def ends(self) -> tuple[float, float] | None:
        """95% interval of ``auc``: that of a share of as many draws as its error tells of, never [1, 1]."""
        # At 0 and 1 the error is nought; the rarer kind then counts once each.
        fewest = min(float(self.members), self.worth)
        size = self.auc * (1 - self.auc) / self.error**2 if self.error > 0 else fewest
        return of_share(self.auc * size, size).ends


def class_weights(members: Tensor, others: Tensor) -> Tensor:
    """Weigh non-members so that classes occur as often as among the members.

    Args:
        members: labels (m,).
        others: labels (n,) of the non-members.

    Returns:
        (n,), sums to 1; where no class is shared, all weigh the same.
    """
    if members.dim() != 1 or members.is_floating_point():
        return torch.full((len(others),), 1 / len(others), dtype=torch.float64)
    count = int(max(members.max(), others.max())) + 1
    want, have = torch.bincount(members, minlength=count).double(), torch.bincount(others, minlength=count).double()
    weight = (want / have.clamp_min(1))[others]
    total = weight.sum()
    return weight / total if float(total) > 0 else torch.full_like(weight, 1 / len(weight))


def loss_attack(members: Tensor, others: Tensor, threshold: float, weights: Tensor | None = None) -> MembershipAttack:
    """Measure how well a threshold on the loss tells members from non-members.

    Args:
        members: losses (m,).
        others: losses (n,) of the non-members.
        threshold: loss below which an example is called a member.
        weights: of the non-members (n,), sum 1; None: all the same.

    Returns:
        the attack's success.
    """
    w = torch.full((len(others),), 1 / len(others), dtype=torch.float64) if weights is None else weights
    a, b = members.double(), others.double()
    below = (a[:, None] < b[None]).double() + 0.5 * (a[:, None] == b[None]).double()
    auc = float((below @ w).mean())
    m, n = len(a), 1 / float(w.square().sum())  # as many non-members as the weights are worth
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = (auc * (1 - auc) + (m - 1) * (q1 - auc * auc) + (n - 1) * (q2 - auc * auc)) / (m * n)
    called, others_called = float((a < threshold).double().mean()), float(((b < threshold).double() * w).sum())
    return MembershipAttack(auc, math.sqrt(max(variance, 0.0)), called, min(others_called, 1.0), m, len(b), n)


def membership(
    task: Task, index: Tensor, kept: Tensor, state: Mapping[str, Tensor] | None, name: str
) -> tuple[Measurement, Measurement] | None:
    """Attack training examples against unseen ones of the same classes.

    The threshold is the mean loss of the retained examples at the same weights.

    Args:
        task: the network, its law and data.
        index: positions of the training examples attacked.
        kept: positions of the retained ones.
        state: the weights; None: the model's own.
        name: first part of the measurements' names.

    Returns:
        AUC and advantage, pure numbers; None without test data.
    """
    if task.test is None:
        return None
    assert isinstance(task.test, Data)
    weights = class_weights(task.train.labels()[index].cpu(), task.test.labels().cpu())
    threshold = float(losses(task, task.train, kept, state).mean())
    attack = loss_attack(
        losses(task, task.train, index, state).cpu(), losses(task, task.test, None, state).cpu(), threshold, weights
    )
    how = f"loss threshold, {attack.members} examples against {attack.others} unseen, weighted to the same classes"
    auc = Measurement(f"{name}.auc", attack.auc, "1", how, attack.members, attack.ends, SOURCE)
    ends = of_difference(attack.called, attack.members, attack.called_others, attack.worth).ends
    return auc, Measurement(f"{name}.advantage", attack.advantage, "1", how, attack.members, ends, SOURCE)
