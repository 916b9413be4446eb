"""The damping of an edit: how far the training that made the network would have followed the data.

A training of learning-rate time T by (stochastic) gradient descent answers a change of its data, in a direction of
curvature s, by (1 − e^{−T(s+λ)})/(s+λ) and a damped Newton step by 1/(s + γ). They agree at both ends for
γ = 1/T + λ, and never differ by more than a factor of 1.3 (Ali et al. 2019; Bae et al. 2024). So a
training by descent tells its own damping, and no retrained network is needed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from memspace.editing.effects import losses
from memspace.measures.damping import DampingChoice, first_choice
from memspace.metric.metric import FisherMetric
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["choose", "trial_set"]

GRID = tuple(10 ** (k / 2) for k in range(-8, 1))  # γ relative to ten mean eigenvalues
TRIAL = 200  # training examples put to the trial at most


def from_time(task: Task, positions: int) -> DampingChoice | None:
    """Choose γ = 1/T + λ for a training by SGD.

    Args:
        task: with its training.
        positions: of a sequence: γ is per position.

    Returns:
        the choice; None where the training is not of that kind.
    """
    if task.training is None:
        return None
    recipe = task.training.recipe
    time = recipe.time(len(task.train))
    if time is None or time <= 0:
        return None
    return DampingChoice.training_time(time, recipe.decay, calibrated=True, positions=positions)


def trial_set(n: int, avoid: Tensor, seed: int) -> Tensor:
    """Draw a twentieth of the training examples.

    Args:
        n: number of training examples.
        avoid: positions that are not drawn.
        seed: of the draw.

    Returns:
        positions, sorted.
    """
    free = torch.ones(n, dtype=torch.bool)
    free[avoid] = False
    rest = free.nonzero().flatten()
    count = max(1, min(TRIAL, n // 20, len(rest) // 2))
    return rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[:count]].sort().values


def from_trial(
    task: Task, space: ParameterSpace, trial: Tensor, scale: float, forget_trial: Callable[[float], Tensor], seed: int
) -> DampingChoice:
    """Choose the γ where forgetting *other* examples by an edit costs them what leaving them out of one refit does.

    Args:
        task: with a way to refit.
        space: the parameters.
        trial: positions of the other examples.
        scale: ten mean eigenvalues, the grid's unit.
        forget_trial: γ → flat weights with the trial set forgotten.
        seed: of the refit.

    Returns:
        the choice, 1/parameter².
    """
    assert task.refit is not None
    keep = torch.ones(len(task.train), dtype=torch.bool)
    keep[trial] = False
    refit = task.refit(keep.nonzero().flatten(), seed)

    def lost(state: dict[str, Tensor]) -> Tensor:
        return losses(task, task.train, trial, state)

    target = lost({k: v.detach().to(task.device) for k, v in refit.state_dict().items()})
    grid = tuple(g * scale for g in GRID)
    costs = torch.stack([lost({n: t.to(task.dtype) for n, t in space.unpack(forget_trial(g)).items()}) for g in grid])
    costs = torch.where(torch.isfinite(costs), costs, torch.full_like(costs, 1e3))
    return DampingChoice.matched(costs, grid, target, "a network refitted without them, forgetting other examples,")


def choose(
    task: Task,
    space: ParameterSpace,
    given: float | None,
    metric: Callable[[], FisherMetric],
    trial: Callable[[], DampingChoice],
    positions: int,
) -> DampingChoice:
    """Choose the given γ; else by the training's time; else by a trial with one refit; else by the evidence, flagged.

    Args:
        task: with its training or a way to refit, where there is one.
        space: the parameters.
        given: the user's own γ, or None.
        metric: makes F of the training data.
        trial: chooses by forgetting other examples, see ``from_trial``.
        positions: of a sequence.

    Returns:
        the choice.

    Raises:
        SettingsError: a damping given that is not a positive finite number.
    """
    if given is not None:
        FisherMetric._positive(given)
    return first_choice(
        given,
        lambda: from_time(task, positions),
        lambda: None if task.refit is None else trial(),
        otherwise=lambda: DampingChoice.evidence(metric(), space.flat(task.model), len(task.train)),
    )
