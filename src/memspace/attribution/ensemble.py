"""Any influence engine averaged over several networks: other seeds, a user's own, or checkpoints of one training.

A single network's scores hold what its seed did; what is asked is usually what the data do. The mean over M networks
has the seed's share of the variance divided by M, and the spread over networks says how much is left.

Where the question is about subsets that leave out a share s of the data, the networks can be trained on such subsets:
each tells how the outcome goes where the question is, and the mean over them is an expansion about the subsets' own
mean instead of the network that has seen everything.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from memspace.attribution.left_out import checked_share, kept_parts
from memspace.attribution.result import Influence
from memspace.errors import TaskError
from memspace.measurement import Measurement, Unmeasured
from memspace.progress import Progress, Silent
from memspace.task.task import Task
from memspace.training.refit import refit_many

__all__ = ["MOST", "Base", "checkpoints", "ensemble", "other_seeds"]

MOST = 10  # networks: more cost more than they add
Base = Callable[[Task, int], Influence]  # (task with a network of its own, the seed it was trained with) -> scores
Network = nn.Module | Mapping[str, Tensor]


def ensemble(
    task: Task,
    base: Base,
    *,
    seeds: Sequence[int] | None = None,
    networks: Sequence[Network] | None = None,
    left_out: float = 0.0,
    progress: Progress | None = None,
) -> Influence:
    """Average the base engine's scores over networks, with their standard error over networks.

    Args:
        task: the network and its data.
        base: (task, seed) -> Influence, for example ``lambda t, s: unrolled(t, data, queries, "loss", Unrolled(s))``;
            the same queries each time.
        seeds: of networks trained for this by the task's own recipe.
        networks: the user's own instead: modules or state dicts; the base is called with their place as seed.
        left_out: share s of the examples that each of these is trained without, every example equally often
            (:func:`memspace.attribution.left_out.kept_parts`); all examples are scored by every network. 0: trained
            on all data.
        progress: told of every network.

    Returns:
        scores and outcomes are means; ``error`` is s/√M with s the standard deviation over networks (None for one
        network). ``reliable`` is False where a member's is.

    Raises:
        TaskError: neither seeds nor networks, more than ``MOST``, a task that cannot be trained again, or a share that
            cannot be left out.
    """
    begun = time.perf_counter()
    count = _checked_count(seeds, networks, left_out)
    progress = progress or Silent()
    members: Iterator[tuple[Task, int]]
    if networks is not None:
        members = ((_holding(task, net), m) for m, net in enumerate(networks))
    else:
        members = other_seeds(task, list(seeds or ()), progress, left_out=left_out)
    first: Influence | None = None
    mean = spread = outcome = torch.empty(0)
    notes: list[str] = []
    for m, (member, seed) in enumerate(progress.track(members, "networks of the ensemble", count)):
        one = base(member, seed)
        if first is None:
            first, mean, outcome = one, one.scores.double(), one.outcome.double()
            spread = torch.zeros_like(mean)
        else:
            _same_question(first, one)
            step = one.scores - mean  # Welford's running mean and sum of squares
            mean = mean + step / (m + 1)
            spread = spread + step * (one.scores - mean)
            outcome = outcome + (one.outcome - outcome) / (m + 1)
        notes += [f"network {m}: {one.note or 'not reliable'}"] if not one.reliable else []
    assert first is not None
    error = (spread / (count - 1) / count).sqrt() if count > 1 else None
    return replace(
        first,
        scores=mean.to(first.scores),
        engine=f"ensemble of {count}, {first.engine}" + (f", each trained without {left_out:.0%}" if left_out else ""),
        outcome=outcome.to(first.outcome),
        reliable=not notes,
        note="; ".join(notes),
        diagnostics=(*first.diagnostics, _seed_noise(mean, error, count)),
        parts=None,
        tokens=None,
        seconds=time.perf_counter() - begun,
        error=None if error is None else error.to(first.scores),
    )


def _checked_count(seeds: Sequence[int] | None, networks: Sequence[Network] | None, left_out: float) -> int:
    """How many networks there are, where seeds or networks are given, and not too many."""
    checked_share(left_out)
    count = len(seeds or ()) + len(networks or ())
    if (seeds is None) == (networks is None) or not 1 <= count <= MOST:
        raise TaskError(
            f"an ensemble needs 1 to {MOST} seeds, or as many networks, not {count} of both",
            where="ensemble",
            remedy=f"give seeds or networks, {MOST} at most",
        )
    if networks is not None and left_out:
        raise TaskError(
            "networks of one's own cannot be trained without a share of the examples",
            where="ensemble",
            remedy="give seeds for networks trained on parts, or leave left_out at 0",
        )
    return count


def other_seeds(
    task: Task, seeds: Sequence[int], progress: Progress | None = None, *, left_out: float = 0.0
) -> Iterator[tuple[Task, int]]:
    """Train the task's network again, once per seed: on all its data, or each without a share of them.

    Args:
        task: with a way to train.
        seeds: one per network.
        progress: told of the trainings.
        left_out: share of the examples that each is trained without.

    Returns:
        (task with that network, seed), one after the other.

    Raises:
        TaskError: the task has neither ``training`` nor ``refit``.
    """
    if task.training is None and task.refit is None:
        raise TaskError(
            "the task cannot be trained again",
            where=f"task {task.name}",
            remedy="give the Task training= or refit=, or pass networks of your own",
        )
    index = kept_parts(len(task.train), left_out, len(seeds), seeds[0])
    models = refit_many(task, index, seeds, progress)
    return ((replace(task, model=m.to(task.device), run=None), s) for m, s in zip(models, seeds, strict=True))


def checkpoints(task: Task, count: int = MOST) -> list[Mapping[str, Tensor]]:
    """List the last states of the task's recorded training.

    Args:
        task: with its ``run``.
        count: states at most.

    Returns:
        state dicts.

    Raises:
        TaskError: no training was recorded.
    """
    if task.run is None:
        raise TaskError(
            "no checkpoints of the training were recorded",
            where=f"task {task.name}",
            remedy="give the Task run=Run(states, ...)",
        )
    return list(task.run.states[-count:])


def _holding(task: Task, network: Network) -> Task:
    """The task with another network; its own model stays as it is."""
    if isinstance(network, nn.Module):
        return replace(task, model=network, run=None)
    model = copy.deepcopy(task.model)
    model.load_state_dict(dict(network))
    return replace(task, model=model, run=None)


def _same_question(a: Influence, b: Influence) -> None:
    if a.scores.shape != b.scores.shape or a.target != b.target or not torch.equal(a.queries, b.queries):
        raise TaskError(
            "the networks of an ensemble were asked different questions",
            where="ensemble",
            remedy="let the base engine use the same queries and target for every network",
        )


def _seed_noise(mean: Tensor, error: Tensor | None, count: int) -> Measurement | Unmeasured:
    """Share of the mean scores' variance (over examples) that is seed noise: mean of error² over the variance."""
    name = "ensemble.seed_noise"
    if error is None:
        return Unmeasured(name, "one network shows no spread over seeds", "ask several networks")
    spread = float(mean.var(1, correction=0).mean())
    if spread == 0:
        return Unmeasured(name, "the mean scores are the same for all examples", "ask about another outcome")
    noise = float((error**2).mean()) / spread
    return Measurement(name, noise, "1", "mean squared standard error over the scores' variance", count)
