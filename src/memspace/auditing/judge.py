"""Every training label judged, by one rule for the audit, ``memspace labels`` and Python."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace.measurement import Measurement
from memspace.measures.bystander import forest_opinion
from memspace.measures.labels import LabelModel, fit_label_model
from memspace.measures.values import HeldOut
from memspace.task.data import first_tensor
from memspace.task.law import Likelihood
from memspace.task.task import Task
from memspace.training.refit import whole

__all__ = ["Judged", "covering", "judge", "judge_classes", "log_probabilities_of", "noise_measurement"]


@dataclass(frozen=True)
class Judged:
    """What is thought of each label.

    Args:
        model: the noise model; p: (n,) probability that the label is wrong; truth: (n, C) of each class to be the true
            one; suggested: (n,) the likeliest other class.
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


def covering(refits: HeldOut | None, n: int) -> Tensor | None:
    """The refits' log-probabilities in the order of the examples, where they cover all of them."""
    if refits is None or len(refits.index) < n:
        return None
    table = torch.empty(n, refits.f.shape[1], dtype=torch.float64, device=refits.f.device)
    table[refits.index.to(refits.f.device)] = torch.log_softmax(refits.f.double(), -1)
    return table


def log_probabilities_of(law: Likelihood, refits: HeldOut | None) -> HeldOut | None:
    """Put log-probabilities of the classes in place of the refits' outputs, for a law that has classes."""
    if refits is None:
        return None
    log_p = law.log_probabilities(refits.f.double())
    assert log_p is not None
    return replace(refits, f=log_p)


def judge(
    task: Task,
    f: Tensor,
    y: Tensor,
    *,
    refits: HeldOut | None,
    loo: Tensor | None,
    matched: bool,
    trajectory: Tensor | None = None,
    seed: int = 0,
) -> Judged | None:
    """Judge every label by outputs of the task's law; see :func:`judge_classes`.

    Args:
        task: whose law and inputs are used.
        f: (n, C) outputs.
        y: (n,) labels.
        refits: outputs of networks that did not see the examples.
        loo: (n, C) leave-one-out outputs.
        matched: whether the damping of ``loo`` was met by refits.
        trajectory: (n, C) mean outputs of the recorded training.
        seed: random seed.

    Returns:
        None where a label is not one class for each example.
    """
    law = task.likelihood
    if y.is_floating_point() or y.dim() > 1 or f.dim() > 2 or not law.has_classes:
        return None
    seen, left_out, mean = (None if t is None else law.log_probabilities(t.double()) for t in (f, loo, trajectory))
    assert seen is not None
    refits = log_probabilities_of(law, refits)
    return judge_classes(task, seen, y, refits=refits, loo=left_out, matched=matched, trajectory=mean, seed=seed)


def judge_classes(
    task: Task,
    f: Tensor,
    y: Tensor,
    *,
    refits: HeldOut | None,
    loo: Tensor | None,
    matched: bool,
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
        task: whose inputs a forest is asked about.
        f: (n, K) log-probabilities of the classes.
        y: (n,) labels.
        refits: held-out ones.
        loo: (n, K) leave-one-out ones.
        matched: whether the damping of ``loo`` was met by refits.
        trajectory: (n, K) those of the mean outputs of the recorded training.
        seed: random seed.
        ask_forest: False leaves the forest out.
    """
    opinions, names = [], []
    held_out = covering(refits, len(y))
    if held_out is not None:
        opinions.append(held_out.to(y.device))
        names.append("refits that did not see the example")
    elif matched and loo is not None:
        opinions.append(torch.log_softmax(loo, -1))
        names.append("leave-one-out")
    forest = _forest(task, y, f.shape[1], seed) if ask_forest else None
    if forest is not None:
        opinions.append(forest.to(y.device))
        names.append("a forest on the inputs, out of bag")
    blind = bool(opinions)
    if not blind:
        opinions, names = [torch.log_softmax(f.double() if loo is None else loo, -1)], ["leave-one-out, not calibrated"]
    model = fit_label_model(opinions, y, seed)
    if not blind:
        model = replace(
            model,
            reliable=False,
            statement="labels are judged without any network that did not see them: hand over a way to refit",
        )
    truth, laws = model.posterior(opinions, y), model.laws(opinions, y)
    if held_out is None:
        seen = f if trajectory is None else trajectory
        names.append("the trained network's order" if trajectory is None else "the training's mean output for order")
        own = torch.softmax(seen.double(), -1).gather(1, y.unsqueeze(1)).squeeze(1)
        truth = _dealt(truth, y, laws[1].gather(1, y.unsqueeze(1)).squeeze(1) + own)
    p = 1 - truth.gather(1, y.unsqueeze(1)).squeeze(1)
    suggested = truth.scatter(1, y.unsqueeze(1), -1.0).argmax(1)
    return Judged(model, p, truth, suggested, laws, tuple(opinions), " and ".join(names))


def _dealt(truth: Tensor, y: Tensor, belief: Tensor) -> Tensor:
    """The same probabilities of being wrong, dealt out so that the least believed label gets the largest."""
    own = truth.gather(1, y.unsqueeze(1)).squeeze(1)
    fresh = torch.empty_like(own)
    fresh[belief.argsort(stable=True)] = own.sort().values
    left = torch.where(own < 1, (1 - fresh) / (1 - own).clamp_min(1e-12), torch.zeros_like(own))
    others = truth.scatter(1, y.unsqueeze(1), 0.0) * left.unsqueeze(1)
    return others.scatter(1, y.unsqueeze(1), fresh.unsqueeze(1))


def _forest(task: Task, y: Tensor, classes: int, seed: int) -> Tensor | None:
    """The opinion of a forest, where the inputs are one tensor of real numbers."""
    probe = task.train.batch(range(1)).x
    if not isinstance(probe, Tensor) or not (probe.is_floating_point() or probe.dtype == torch.uint8):
        return None
    if len(y) * probe.numel() > 2**28:
        return None
    return forest_opinion(first_tensor(whole(task)[0]), y, classes, seed)


def noise_measurement(model: LabelModel, estimator: str) -> Measurement:
    """The share of wrong labels, with its interval and what it is worth."""
    return Measurement(
        "labels.noise",
        model.noise,
        "1",
        f"share of wrong labels, {model.pattern} noise; judged by {estimator}",
        model.n,
        model.interval,
        "natarajan2013",
        model.reliable,
        model.statement,
    )
