"""Leave-one-out and leave-k-out truth: effects of leaving examples out, over seeds, with the test that beats noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import false_discovery_control, t
from torch import Tensor

from memspace.errors import DataError
from memspace.experiments.truth import Truth

__all__ = ["Effects", "effects"]


@dataclass(frozen=True)
class Effects:
    """Effects of G groups on Q queries, each (G, Q) float64.

    Args:
        mean: outcome without the group − outcome with all examples, mean over seeds.
        error: its standard error over seeds.
        p: two-sided p-value of Student's t test that the mean over seeds is 0.
        exceeds: True where the effect exceeds seed noise: the false-discovery rate among all that are marked is at
            most the level asked for.
        seeds: number of them.
    """

    mean: Tensor
    error: Tensor
    p: Tensor
    exceeds: Tensor
    seeds: int


def effects(truth: Truth, *, outcome: str = "loss", level: float = 0.05, each: bool = True) -> Effects:
    """Estimate effects from a truth whose first part keeps all examples (see ``designs.left_out``).

    With d_s the difference at seed s (paired: same seed with and without): mean d̄, error sd(d)/√S, t = d̄/error with
    S − 1 degrees of freedom; effects are marked by Benjamini & Hochberg 1995 (valid also though all groups of one query
    are compared with the same full trainings: the tests depend on each other positively).

    Args:
        truth: all examples, then all but each group.
        outcome: ``loss``, ``margin`` or ``correct``. Of a positive effect on the loss: the group supported the query.
        level: of the false-discovery rate.
        each: False: the mean over queries is the one outcome, (G, 1).

    Returns:
        Effects with their errors and marks.

    Raises:
        DataError: the first part leaves something out, there is one seed, or seeds differ between parts.
    """
    design = truth.design
    if (
        not bool(design.kept[0].all())
        or design.seeds.shape[1] < 2
        or not bool((design.seeds == design.seeds[:1]).all())
    ):
        raise DataError(
            "effects need all examples as the first part and the same two or more seeds in every part",
            where=design.name,
            remedy="make the design with designs.left_out",
        )
    truth.support(outcome)  # says so where it was not measured
    y = truth.outcomes[outcome]
    if not each:
        y = y.mean(2, keepdim=True)
    d = y[1:] - y[:1]
    return _tested(d, level)


def _tested(d: Tensor, level: float) -> Effects:
    """Of paired differences (G, S, Q)."""
    s = d.shape[1]
    mean, error = d.mean(1), d.std(1) / s**0.5
    ratio = torch.where(error > 0, mean / error.clamp_min(1e-300), torch.where(mean == 0, 0.0, torch.inf))
    p = torch.as_tensor(2 * t.sf(ratio.abs().numpy(), s - 1))
    adjusted = torch.as_tensor(false_discovery_control(p.numpy(), axis=None)).reshape(p.shape)
    return Effects(mean, error, p, adjusted <= level, s)
