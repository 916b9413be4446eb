"""The damping of an influence estimate, chosen by what a few retrained networks do.

Group agreement: some networks are trained on random halves of the training data. At every γ of a grid the engine
predicts how each half's outcomes differ from the others'; γ is where prediction and outcome correlate most. It costs a
few trainings on half the data and asks directly for what an influence is read for. The halves come in complementary
pairs: what is even in the change (curvature of the outcome in the data's weights) then cancels in their difference.

Without a way to train, γ is the training's own: stopped after learning-rate time τ, gradient descent resolves
eigenvalues above about 1/τ (after SOURCE, Bae et al. 2024), so γ = decay + 1/τ; where neither is recorded, the maximum
of the Laplace evidence. Both are uncalibrated and say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.attribution.target import Target
from memspace.measures.damping import DampingChoice, first_choice
from memspace.metric.metric import FisherMetric
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.task.data import Data, move
from memspace.task.task import Task
from memspace.training.many import train_many

__all__ = ["Halves", "agreement", "choose_by_agreement", "grid_of", "retrain_halves", "uncalibrated"]

STEPS, BELOW, ABOVE = 4, 3, 1  # per decade; decades below and above the mean eigenvalue that the grid spans


@dataclass(frozen=True)
class Halves:
    """Networks trained on halves of the training data.

    Args:
        kept: (S, N) True where an example was trained on; rows 2k and 2k+1 are complementary (of an odd number of
            examples one is in neither).
        outcomes: (S, m) of the probes under each.
    """

    kept: Tensor
    outcomes: Tensor


def grid_of(metric: FisherMetric) -> tuple[float, ...]:
    """List the dampings to try: four a decade about the mean of the eigenvalues that carry the trace, tr F² / tr F.

    Args:
        metric: F.

    Returns:
        γ, ascending.
    """
    values = metric.eigenvalues().double()
    typical = float(values.square().sum() / values.sum().clamp_min(1e-300))
    middle = round(STEPS * math.log10(max(typical, 1e-12)))
    return tuple(10 ** (k / STEPS) for k in range(middle - STEPS * BELOW, middle + STEPS * ABOVE + 1))


def retrain_halves(
    task: Task, target: Target, data: Data, probes: Tensor, count: int, seed: int, progress: Progress
) -> Halves | None:
    """Train networks on random halves of the training data and on their complements.

    Args:
        task: with a way to train.
        target: the outcome.
        data: examples that the outcome is asked of.
        probes: positions of some of them (m,).
        count: number of networks; of an odd number the last is left out.
        seed: of the halves and of the trainings.
        progress: told of the trainings.

    Returns:
        the halves with the probes' outcomes; None where the task cannot train or fewer than two networks are asked for.
    """
    if (task.refit is None and task.training is None) or count < 2:
        return None
    generator = torch.Generator().manual_seed(seed + 77)
    n, half = len(task.train), len(task.train) // 2
    rows: list[Tensor] = []
    for _ in range(count // 2):
        order = torch.randperm(n, generator=generator)
        rows += [order[:half].sort().values, order[half : 2 * half].sort().values]
    index, seeds = torch.stack(rows), [seed + 5000 + k for k in range(len(rows))]
    outcomes = []
    for model in _trained(task, index, seeds, progress):
        other = Task(model=model, train=task.train, likelihood=task.likelihood)
        f, y = outputs(other, data, index=probes)
        outcomes.append(target.value(task.likelihood, f.double(), y).detach().cpu())
    trained_on = torch.zeros(len(rows), n, dtype=torch.bool).scatter_(1, index, True)
    return Halves(trained_on, torch.stack(outcomes))


def _trained(task: Task, index: Tensor, seeds: list[int], progress: Progress) -> Iterator[nn.Module]:
    """Networks trained on those examples each: together where memspace can train, else one by one."""
    if task.training is not None:
        whole = task.train.batch(range(len(task.train)))
        networks = train_many(
            task.training,
            move(whole.x, task.device, task.dtype),
            move(whole.y, task.device),
            task.likelihood,
            seeds=seeds,
            index=index,
            progress=progress,
        )
        yield from (networks.model(m) for m in range(len(networks)))
        return
    assert task.refit is not None
    for rows, seed in progress.track(zip(index, seeds, strict=True), "networks on halves of the data", len(seeds)):
        yield task.refit(rows, seed)


def agreement(scores: Tensor, halves: Halves) -> Tensor:
    """Compare predicted and real differences between complementary halves, by their correlation.

    Args:
        scores: (m, N) influence on the probes' outcomes.
        halves: networks trained on halves of the data.

    Returns:
        a correlation per probe, (m,).
    """
    sign = halves.kept[::2].to(scores) - halves.kept[1::2].to(scores)  # (S/2, N): a half minus its complement
    predicted = sign @ scores.t()  # (S/2, m)
    real = (halves.outcomes[::2] - halves.outcomes[1::2]).to(scores)
    # Halves are exchangeable with their complements, so the expected difference is zero: nothing is centred.
    norm = predicted.norm(dim=0) * real.norm(dim=0)
    correlation: Tensor = (predicted * real).sum(0) / norm.clamp_min(1e-300)
    return correlation


def choose_by_agreement(scores_at: Callable[[float], Tensor], grid: Sequence[float], halves: Halves) -> DampingChoice:
    """Choose γ of greatest mean agreement over probes.

    Args:
        scores_at: γ ↦ influence (m, N) on the probes' outcomes.
        grid: γ values, ascending.
        halves: networks trained on halves of the data.

    Returns:
        the choice; its ``target_error`` is the standard error over pairs of halves.
    """
    every = torch.stack([agreement(scores_at(g).double().cpu(), halves) for g in grid])
    curve = every.mean(1)
    error = _jackknife(scores_at(grid[int(curve.argmax())]).double().cpu(), halves)
    return DampingChoice.agreement(curve, grid, error, len(halves.kept) // 2 * 2, halves.outcomes.shape[1])


def _jackknife(scores: Tensor, halves: Halves) -> float:
    """Standard error of the mean agreement over pairs of halves (Efron & Stein 1981)."""
    pairs = len(halves.kept) // 2
    if pairs < 3:
        return math.inf
    means = []
    for left in range(pairs):
        rows = torch.tensor([r for p in range(pairs) if p != left for r in (2 * p, 2 * p + 1)])
        means.append(float(agreement(scores, Halves(halves.kept[rows], halves.outcomes[rows])).mean()))
    mean = math.fsum(means) / pairs
    return math.sqrt((pairs - 1) / pairs * math.fsum((m - mean) ** 2 for m in means))


def uncalibrated(task: Task, space: ParameterSpace, metric: FisherMetric) -> DampingChoice:
    """Choose γ where no network can be retrained: by the training's time, else by the evidence.

    Args:
        task: with its training, where that is recorded.
        space: the parameters.
        metric: F of the training data.

    Returns:
        the choice; never reliable.
    """

    def by_time() -> DampingChoice | None:
        time = None if task.training is None else task.training.recipe.time(len(task.train))
        return None if time is None else DampingChoice.training_time(time, task.decay or 0.0, calibrated=False)

    return first_choice(
        None, by_time, otherwise=lambda: DampingChoice.evidence(metric, space.flat(task.model), len(task.train))
    )
