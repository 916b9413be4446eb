"""Every training label judged, by one rule for the audit, ``memspace labels`` and Python."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace.measures.bystander import forest_opinion, forest_seconds
from memspace.measures.cost import Facts, Stage
from memspace.measures.damping import DampingChoice
from memspace.measures.declaration import provides
from memspace.measures.labels import LabelModel, fit_label_model
from memspace.measures.values import Budget, HeldOut, LeaveOneOutOutputs, TrainingOutputs
from memspace.task.data import first_tensor
from memspace.task.law import Likelihood
from memspace.task.task import Task
from memspace.training.refit import whole
from memspace.value import Absent

__all__ = ["Judged", "Unseen", "covering", "judge", "judge_classes"]

FOREST_NUMBERS = 2**28  # numbers in all inputs beyond which no forest is fitted


@dataclass(frozen=True)
class Unseen:
    """Outputs of predictors that did not see the labels.

    Args:
        refits: of networks trained without the examples, or None.
        loo: (n, C) leave-one-out outputs, or None where they are out of reach.
        matched: whether their damping was met by refits.
    """

    refits: HeldOut | None
    loo: Tensor | None
    matched: bool

    def in_classes(self, law: Likelihood) -> Unseen | None:
        """Return log-probabilities of the classes in place of outputs.

        Args:
            law: output law.

        Returns:
            the same predictors; None where the law has no classes.
        """
        if not law.has_classes:
            return None
        refits, loo = self.refits, None if self.loo is None else law.log_probabilities(self.loo.double())
        if refits is not None:
            log_p = law.log_probabilities(refits.f.double())
            refits = None if log_p is None else replace(refits, f=log_p)
        return Unseen(refits, loo, self.matched)


@provides()
def unseen_outputs(damping: DampingChoice, refits: HeldOut | None, loo: LeaveOneOutOutputs | None) -> Unseen:
    """Collect the predictions made without the example's label."""
    return Unseen(refits, None if loo is None else loo.f, damping.reliable and refits is not None)


@dataclass(frozen=True)
class Judged:
    """What is thought of each label.

    Args:
        model: the noise model.
        p: (n,) probability that the label is wrong.
        truth: (n, C) probability of each class to be the true one.
        suggested: (n,) the likeliest other class.
        laws: (n, C) of the true and of the observed label, given the input alone.
        opinions: what the model was fitted to, (n, C) each.
        estimator: by whom, for people.
    """

    model: LabelModel
    p: Tensor
    truth: Tensor
    suggested: Tensor
    laws: tuple[Tensor, Tensor]
    opinions: tuple[Tensor, ...]
    estimator: str


def _forest_costs(facts: Facts) -> Stage | None:
    """Of all forests that judge labels, one for each output where an example has several labels."""
    if not facts.forest:
        return None
    what = "a forest on the inputs, which judges labels" if facts.forests == 1 else "forests that judge labels"
    seconds = facts.forests * forest_seconds(facts.n, facts.forest)
    return Stage("second opinion", facts.n, 0, 0, 0, what, seconds=seconds)


@provides(cost=_forest_costs)
def judged_labels(task: Task, outputs: TrainingOutputs, unseen: Unseen, budget: Budget) -> Judged | Absent:
    """Judge the label of every training example."""
    judged = judge(task, outputs.f, outputs.y, unseen, seed=budget.seed)
    if judged is not None:
        return judged
    what = "labels of sequences or without classes are not judged one by one"
    return Absent(what, "audit a classifier with one label per example")


def covering(refits: HeldOut | None, n: int) -> Tensor | None:
    """Return the log-probabilities of refits in the order of the examples.

    Args:
        refits: log-probabilities (m, K) of networks that did not see the examples.
        n: training examples.

    Returns:
        (n, K) float64; None where the refits do not cover all examples.
    """
    if refits is None or len(refits.index) < n:
        return None
    table = torch.empty(n, refits.f.shape[1], dtype=torch.float64, device=refits.f.device)
    table[refits.index.to(refits.f.device)] = torch.log_softmax(refits.f.double(), -1)
    return table


def judge(
    task: Task, f: Tensor, y: Tensor, unseen: Unseen, *, trajectory: Tensor | None = None, seed: int = 0
) -> Judged | None:
    """Judge every label by outputs of the task's law; see :func:`judge_classes`.

    Args:
        task: whose law and inputs are used.
        f: (n, C) outputs.
        y: (n,) labels.
        unseen: outputs of predictors that did not see the labels.
        trajectory: (n, C) mean outputs of the recorded training.
        seed: random seed.

    Returns:
        what is thought of each label; None where a label is not one class for each example.
    """
    law = task.likelihood
    if y.is_floating_point() or y.dim() > 1 or f.dim() > 2:
        return None
    seen, blind = law.log_probabilities(f.double()), unseen.in_classes(law)
    if seen is None or blind is None:
        return None
    mean = None if trajectory is None else law.log_probabilities(trajectory.double())
    return judge_classes(task, seen, y, blind, trajectory=mean, seed=seed)


def judge_classes(
    task: Task,
    f: Tensor,
    y: Tensor,
    unseen: Unseen,
    *,
    trajectory: Tensor | None = None,
    seed: int = 0,
    ask_forest: bool = True,
) -> Judged:
    """Judge every label by all predictors that did not see it.

    The noise model is fitted to refits that cover every example and to a forest on the inputs, either where it is to
    be had; to leave-one-out where there are no such refits and its damping met others. Where no refits cover the
    examples, predictors that saw the labels (the trained network, the mean of its recorded training) help to *order*
    them: the probabilities stay those of the model, dealt out in the better order.

    Args:
        task: whose inputs a forest is fitted on.
        f: (n, K) log-probabilities of the classes.
        y: (n,) labels.
        unseen: log-probabilities by predictors that did not see the labels.
        trajectory: (n, K) those of the mean outputs of the recorded training.
        seed: of the forest and of the noise model's draws.
        ask_forest: False leaves the forest out.

    Returns:
        what is thought of each label.
    """
    refits = covering(unseen.refits, len(y))
    opinions = _opinions(task, f, y, unseen, refits, seed if ask_forest else None)
    blind = bool(opinions)
    if not blind:
        last = torch.log_softmax(f.double() if unseen.loo is None else unseen.loo, -1)
        opinions = {"leave-one-out, not calibrated": last}
    tensors, names = list(opinions.values()), list(opinions)
    model = fit_label_model(tensors, y, seed)
    if not blind:
        statement = "labels are judged without any network that did not see them: pass a way to refit"
        model = replace(model, reliable=False, statement=statement)
    truth, laws = model.posterior(tensors, y), model.laws(tensors, y)
    if refits is None:
        seen = f if trajectory is None else trajectory
        names.append("the trained network's order" if trajectory is None else "the training's mean output for order")
        truth = _dealt(truth, y, _of_label(laws[1], y) + _of_label(torch.softmax(seen.double(), -1), y))
    suggested = truth.scatter(1, y.unsqueeze(1), -1.0).argmax(1)
    return Judged(model, 1 - _of_label(truth, y), truth, suggested, laws, tuple(tensors), " and ".join(names))


def _opinions(
    task: Task, f: Tensor, y: Tensor, unseen: Unseen, refits: Tensor | None, seed: int | None
) -> dict[str, Tensor]:
    """Log-probabilities (n, C) by predictors that did not see the labels, by name; without a seed no forest."""
    opinions: dict[str, Tensor] = {}
    if refits is not None:
        opinions["refits that did not see the example"] = refits.to(y.device)
    elif unseen.matched and unseen.loo is not None:
        opinions["leave-one-out"] = torch.log_softmax(unseen.loo, -1)
    forest = None if seed is None else _forest(task, y, f.shape[1], seed)
    if forest is not None:
        opinions["a forest on the inputs, out of bag"] = forest.to(y.device)
    return opinions


def _of_label(table: Tensor, y: Tensor) -> Tensor:
    """The entry of each example's own label, (n,)."""
    return table.gather(1, y.unsqueeze(1)).squeeze(1)


def _dealt(truth: Tensor, y: Tensor, belief: Tensor) -> Tensor:
    """The same probabilities of being wrong, reassigned so that the least believed label gets the largest."""
    right = _of_label(truth, y)
    dealt = torch.empty_like(right)
    dealt[belief.argsort(stable=True)] = right.sort().values
    left = torch.where(right < 1, (1 - dealt) / (1 - right).clamp_min(1e-12), torch.zeros_like(right))
    others = truth.scatter(1, y.unsqueeze(1), 0.0) * left.unsqueeze(1)
    return others.scatter(1, y.unsqueeze(1), dealt.unsqueeze(1))


def _forest(task: Task, y: Tensor, classes: int, seed: int) -> Tensor | None:
    """The opinion of a forest, where the inputs are one tensor of real numbers."""
    probe = task.train.batch(range(1)).x
    if not isinstance(probe, Tensor) or not (probe.is_floating_point() or probe.dtype == torch.uint8):
        return None
    if len(y) * probe.numel() > FOREST_NUMBERS:
        return None
    return forest_opinion(first_tensor(whole(task)[0]), y, classes, seed)
