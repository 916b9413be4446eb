"""Lottery tickets: iterative magnitude pruning with rewinding, and the controls that give it meaning.

Frankle & Carbin 2019: train, remove a fifth of the remaining weights by magnitude (globally), put the rest back to
their initial values (or those of an early step: Frankle et al. 2020), train again. Controls at each sparsity:
*random ticket*: a random mask with the same count in every layer, same initial values; *new start*: the ticket's mask,
initial values drawn again. All trainings follow the task's recipe with the same batches; masked weights are zero
throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.errors import TaskError
from memspace.measures.correct import accuracy
from memspace.passes.outputs import outputs
from memspace.progress import Progress, Silent
from memspace.task.data import call_model, move
from memspace.task.recipe import Training
from memspace.task.task import Task
from memspace.training.draws import draw

__all__ = ["ARMS", "Lottery", "Ticket", "lottery", "random_mask", "train_masked"]

ARMS = ("ticket", "random", "new start")
Masks = dict[str, Tensor]


@dataclass(frozen=True)
class Lottery:
    """How tickets are drawn.

    Args:
        rounds: of pruning.
        cut: share of the remaining weights removed per round.
        rewind: step whose weights the survivors go back to (0: the initialisation).
        controls: rounds (1, 2, ...) after which the controls are trained too; None: all.
        seed: of initialisation and batches; controls use seeds derived from it.

    Raises:
        ValueError: a number is out of its range.
    """

    rounds: int = 10
    cut: float = 0.2
    rewind: int = 0
    controls: tuple[int, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.cut < 1 and self.rounds >= 1 and self.rewind >= 0):
            raise ValueError("a lottery has cut in (0, 1), at least one round and rewind of at least 0")


@dataclass(frozen=True)
class Ticket:
    """One trained masked network.

    Args:
        arm: ``ticket``, ``random`` or ``new start``.
        share: of the prunable weights that is left.
        accuracy: on n test examples.
        loss: on them, nats.
        n: number of test examples.
        masks: 1 where a weight is left.
        state: the trained state dict.
    """

    arm: str
    share: float
    accuracy: float
    loss: float
    n: int
    masks: Masks
    state: dict[str, Tensor]


def train_masked(
    training: Training,
    task: Task,
    masks: Mapping[str, Tensor],
    *,
    seed: int,
    start: Mapping[str, Tensor] | None = None,
    first: int = 0,
    snapshot: int | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Train with weights held at zero where their mask is 0; with no zeros this is the training that made the network.

    Args:
        training: the network and the recipe.
        task: law and data.
        masks: 0 or 1 per weight, by parameter.
        seed: of initialisation and batches.
        start: weights to begin with (default: the seed's initialisation), masked.
        first: the step to begin at.
        snapshot: step before which the weights are kept too.

    Returns:
        The trained state dict, and the weights before step ``snapshot``.
    """
    n = len(task.train)
    draws = draw(training, n, seed)
    model = draws.model.to(task.device)
    if start is not None:
        model.load_state_dict(dict(start))
    model.train()
    alive = {k: m.to(task.device) for k, m in masks.items()}
    early = _masked(model, alive)
    optimiser = training.recipe.descent(model.parameters())
    for step in range(first, len(draws.batches)):
        if step == snapshot:
            early = {k: v.detach().clone() for k, v in model.state_dict().items()}
        part = task.train.batch(draws.batches[step])
        f = call_model(model, move(part.x, task.device, task.dtype))
        y = move(part.y, task.device)
        loss = task.likelihood.nll(f, y).reshape(len(y), -1).mean()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        for group in optimiser.param_groups:
            group["lr"] = draws.rates[step]
        for name, p in model.named_parameters():
            if name in alive and p.grad is not None:
                p.grad.mul_(alive[name])
        optimiser.step()
    return {k: v.detach().clone() for k, v in model.state_dict().items()}, early


def _masked(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in masks:
                p.mul_(masks[name])
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def random_mask(masks: Mapping[str, Tensor], seed: int) -> Masks:
    """Draw random masks with as many ones in every layer.

    Args:
        masks: those to match.
        seed: of the draw.

    Returns:
        New masks.
    """
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, m in masks.items():
        order = torch.randperm(m.numel(), generator=generator)
        out[name] = m.flatten().cpu()[order].reshape(m.shape)
    return out


def _pruned(state: Mapping[str, Tensor], masks: Masks, cut: float) -> Masks:
    """The masks less ``cut`` of what they keep, least magnitude first over all layers."""
    size = torch.cat([torch.where(m > 0, state[k].abs().cpu(), torch.inf).flatten() for k, m in masks.items()])
    alive = int(sum(m.sum() for m in masks.values()))
    gone = torch.zeros_like(size)
    gone[size.argsort()[: max(1, round(cut * alive))]] = 1
    parts = torch.split(gone, [m.numel() for m in masks.values()])
    return {k: m * (1 - g.reshape(m.shape)) for (k, m), g in zip(masks.items(), parts, strict=True)}


def lottery(task: Task, how: Lottery | None = None, progress: Progress | None = None) -> list[Ticket]:
    """Train the dense network and, per round, the ticket and its controls, each in full.

    Args:
        task: with a training that can be repeated.
        how: rounds, cut and rewinding.
        progress: told of every round.

    Returns:
        One entry a trained network, the dense one first.

    Raises:
        TaskError: the task says no training that can be repeated.
    """
    how, progress = how or Lottery(), progress or Silent()
    if task.training is None:
        raise TaskError(
            "lottery tickets need a training that can be repeated",
            where="Task(training=...)",
            remedy="give memspace.Training(make, recipe)",
        )
    training = task.training
    first = draw(training, len(task.train), how.seed).model
    masks: Masks = {k: torch.ones(p.shape) for k, p in first.named_parameters() if p.dim() > 1}
    total = sum(m.numel() for m in masks.values())

    def ticket(arm: str, state: dict[str, Tensor], own: Masks) -> Ticket:
        return _scored(task, arm, state, own, total)

    dense, early = train_masked(training, task, masks, seed=how.seed, snapshot=how.rewind)
    tickets, state = [ticket("ticket", dense, masks)], dense
    for number in progress.track(range(1, how.rounds + 1), "lottery tickets", how.rounds):
        masks = _pruned(state, masks, how.cut)
        state, _ = train_masked(training, task, masks, seed=how.seed, start=early, first=how.rewind)
        tickets.append(ticket("ticket", state, masks))
        if how.controls is None or number in how.controls:
            scattered = random_mask(masks, how.seed + 1000 + number)
            random, _ = train_masked(training, task, scattered, seed=how.seed, start=early, first=how.rewind)
            tickets.append(ticket("random", random, scattered))
            restarted, _ = train_masked(training, task, masks, seed=how.seed + 2000 + number)
            tickets.append(ticket("new start", restarted, masks))
    return tickets


def _scored(task: Task, arm: str, state: dict[str, Tensor], masks: Masks, total: int) -> Ticket:
    data = task.test if task.test is not None else task.train
    f, y = outputs(task, data, state=state)
    right = accuracy(task.likelihood, f, y) if task.likelihood.classifies else float("nan")
    loss = float(task.likelihood.nll(f.double(), y).sum() / task.likelihood.weight(f, y).double().sum())
    share = float(sum(m.sum() for m in masks.values())) / total
    return Ticket(arm, share, right, loss, len(f), masks, state)
