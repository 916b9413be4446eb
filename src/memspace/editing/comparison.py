"""Edits held against networks really trained otherwise."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.editing.edit import Edit
from memspace.editing.effects import accuracy_of, divergence, groups_of
from memspace.editing.membership import membership
from memspace.editing.retrain import retrained, training_of
from memspace.editing.reweight import ExampleWeights, reweight, train_reweighted
from memspace.errors import DataError
from memspace.measurement import Measurement, Unmeasured, from_samples, from_share
from memspace.task.data import Data
from memspace.task.task import Task
from memspace.training.refit import rest_of

__all__ = ["account", "compared", "reweighted"]


def account(task: Task, edit: Edit, seed: int, *, retrain: bool = False) -> list[Measurement | Unmeasured]:
    """Measure what an edit did: its own measurements, and how recognisable the examples are before and after.

    Args:
        task: as it was before the edit.
        edit: examples forgotten.
        seed: random seed of the trainings.
        retrain: also train without the examples, and compare.

    Returns:
        The measurements, those of the edit first.

    Raises:
        TaskError: a comparison is asked for, and the task has no training that can be repeated.
    """
    rest = rest_of(len(task.train), edit.examples)
    measurements = list(edit.measurements)
    for when, state in (("before", None), ("after", edit.state)):
        measurements += membership(task, edit.examples, rest, state, f"membership.{when}") or ()
    return [*measurements, *compared(task, edit, seed)] if retrain else measurements


def compared(task: Task, edit: Edit, seed: int) -> list[Measurement | Unmeasured]:
    """Compare an edit with the network trained without the set, of the same seed and order.

    Measured are KL(trained without the set ‖ before, after the edit), its accuracy, and the attack on it.

    Args:
        task: as it was before the edit.
        edit: examples forgotten.
        seed: random seed of the trainings.

    Returns:
        the measurements, nats and pure numbers; those of another seed for scale.

    Raises:
        TaskError: the task has no training that can be repeated.
    """
    training_of(task, "the comparison")
    rest = rest_of(len(task.train), edit.examples)
    weights = torch.ones(len(task.train))
    weights[edit.examples] = 0
    truth = retrained(task, seed, weights)
    other = retrained(task, seed + 1000, weights)
    how = "KL(trained without the set ‖ these weights), same seed and order"
    out: list[Measurement | Unmeasured] = []
    for name, (data, where) in groups_of(task, edit.examples, rest).items():
        for when, state in (("before", None), ("after", edit.state), ("other_seed", other)):
            values = divergence(task, data, where, truth, state).tolist()
            out.append(from_samples(f"compare.kl_{when}.{name}", values, "nats", how, lower=0.0))
        right = accuracy_of(task, data, where, truth)
        if right is not None:
            out.append(from_share(f"compare.accuracy.{name}", right, "trained without the set"))
    return [*out, *(membership(task, edit.examples, rest, truth, "membership.retrained") or ())]


def reweighted(
    task: Task, clean: int, preconditioned: bool, damping: float | None, seed: int
) -> tuple[ExampleWeights, tuple[Measurement | Unmeasured, ...]]:
    """Weigh the training examples by some random test examples, and measure networks trained with them on the others.

    Args:
        task: with test data.
        clean: number of test examples that give the weights.
        preconditioned: see :func:`memspace.editing.reweight.reweight`.
        damping: see there.
        seed: random seed of the choice and of the trainings.

    Returns:
        the weights, and the accuracies of networks trained with and without them.

    Raises:
        DataError: there are not more test examples than that.
    """
    have = 0 if task.test is None else len(task.test)
    if task.test is None or clean >= have:
        raise DataError(
            f"{clean} clean examples are asked of {have} test examples",
            where="--clean",
            remedy="ask for fewer: the others measure the result",
        )
    assert isinstance(task.test, Data)
    order = torch.randperm(len(task.test), generator=torch.Generator().manual_seed(seed))
    part, rest = task.test.batch(order[:clean].sort().values), order[clean:].sort().values
    weighted = reweight(task, (part.x, part.y), preconditioned=preconditioned, damping=damping)
    if task.training is None:
        missing = Unmeasured(
            "reweight.accuracy", "the task has no training that can be repeated", "give the task a training"
        )
        return weighted, (missing,)
    states: dict[str, dict[str, Tensor] | None] = {
        "plain": None,
        "weights": retrained(task, seed, weighted.weights),
        "every_step": train_reweighted(task, (part.x, part.y), seed)[0],
    }
    if task.true_labels is not None:
        states["without_wrong"] = retrained(task, seed, (task.true_labels == task.train.labels()).double())
    out: list[Measurement | Unmeasured] = []
    for name, state in states.items():
        right = accuracy_of(task, task.test, rest, state)
        if right is not None:
            out.append(from_share(f"reweight.accuracy.{name}", right, "unseen data less the clean ones"))
    if task.true_labels is not None:
        wrong = task.true_labels != task.train.labels()
        for name, which in (("wrong", wrong), ("right", ~wrong)):
            if bool(which.any()):
                values = weighted.weights[which].tolist()
                out.append(from_samples(f"reweight.weight.{name}", values, "1", f"mean over {name} labels"))
    return weighted, tuple(out)
