"""Every label of examples with several labels judged: each output is a problem of two classes of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memspace.measures.declaration import provides, table
from memspace.measures.judge import Judged, Unseen, judge_classes
from memspace.measures.targets import Targets
from memspace.measures.values import Budget, HeldOut, TrainingOutputs
from memspace.task.law import Likelihood
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["FORESTS", "OutputsJudged", "judge_outputs", "label_columns"]

MOST = 200  # outputs judged: a noise model takes about a second each
FORESTS = 16  # outputs up to which a forest is fitted too


@dataclass(frozen=True)
class OutputsJudged:
    """What is thought of each label.

    Args:
        p: (n, D) probability that the label of this output is wrong.
        suggested: (n, D) the likeliest other value.
        y: (n, D) labels.
        loss: (n, D) nats.
        noise: share of wrong labels among all n·D.
        expected: how many they are.
        estimator: by whom, for people.
    """

    p: Tensor
    suggested: Tensor
    y: Tensor
    loss: Tensor
    noise: Value
    expected: Value
    estimator: str

    def columns(self) -> dict[str, list[Any]]:
        """Return columns by example, for the output whose label is likeliest wrong.

        Returns:
            column → values.
        """
        p, output = self.p.max(1)
        at = output.unsqueeze(1)
        tensors = {"label": self.y.gather(1, at), "suggested_label": self.suggested.gather(1, at)}
        columns = {name: v.squeeze(1).tolist() for name, v in tensors.items()}
        return {"output": output.tolist(), **columns, "p_wrong_label": p.tolist()}

    def pairs(self) -> dict[str, list[Any]]:
        """Return every label of every example, the likeliest wrong one first; ``row`` is the example.

        Returns:
            column → values.
        """
        order = self.p.flatten().argsort(descending=True, stable=True)
        outputs = self.p.shape[1]
        tensors = {"label": self.y, "suggested_label": self.suggested, "p_wrong_label": self.p, "train_loss": self.loss}
        rows = {"row": (order // outputs).tolist(), "output": (order % outputs).tolist()}
        return rows | {name: v.flatten()[order].tolist() for name, v in tensors.items()}


@provides()
def outputs_judged(
    task: Task,
    outputs: TrainingOutputs,
    unseen: Unseen,
    budget: Budget,
    labels: Judged | None,
    targets: Targets | None,
) -> OutputsJudged | Absent:
    """Judge each of several labels of an example, where they are neither one class nor numbers."""
    judged = None if labels is not None or targets is not None else judge_outputs(task, outputs, unseen, budget.seed)
    return Absent() if judged is None else judged


@table("examples")
def label_columns(judged: OutputsJudged) -> dict[str, list[Any]]:
    """Return each example's likeliest wrong label."""
    return judged.columns()


def judge_outputs(task: Task, outputs: TrainingOutputs, unseen: Unseen, seed: int = 0) -> OutputsJudged | None:
    """Judge each output by the noise model of ``measures.labels``.

    Args:
        task: whose law says which choices a label consists of.
        outputs: of the training data.
        unseen: outputs of predictors that did not see the labels.
        seed: of forests and noise models.

    Returns:
        what is thought of each label; None where labels are no choices, or too many.
    """
    law = task.likelihood
    decided = law.decisions(outputs.f.double(), outputs.y)
    if decided is None or decided[0].shape[1] > MOST:
        return None
    log_p, y = decided
    several = _by_output(law, outputs.y, unseen, y.shape[1])
    asked = y.shape[1] <= FORESTS
    judged = [
        judge_classes(task, log_p[:, d], y[:, d], single, seed=seed + d, ask_forest=asked)
        for d, single in enumerate(several)
    ]
    p = torch.stack([j.p for j in judged], 1)
    loss = -log_p.gather(2, y.unsqueeze(2)).squeeze(2)
    suggested = torch.stack([j.suggested for j in judged], 1)
    noise, expected = _together(judged, p)
    return OutputsJudged(p, suggested, y, loss, noise, expected, judged[0].estimator)


def _by_output(law: Likelihood, y: Tensor, unseen: Unseen, count: int) -> list[Unseen]:
    """Predictions made without the labels of each output."""
    refits = unseen.refits
    out = None if refits is None else _decided(law, y, refits.f, refits.index)
    loo = None if unseen.loo is None else _decided(law, y, unseen.loo, torch.arange(len(y)))
    several = []
    for d in range(count):
        single = None
        if refits is not None and out is not None:
            single = HeldOut(refits.index, out[:, d], refits.folds, refits.seconds)
        several.append(Unseen(single, None if loo is None else loo[:, d], unseen.matched and single is not None))
    return several


def _decided(law: Likelihood, y: Tensor, f: Tensor, index: Tensor) -> Tensor | None:
    """Log-probabilities (m, D, K) of outputs of some examples."""
    decided = law.decisions(f.double().to(y.device), y[index.to(y.device)])
    return None if decided is None else decided[0]


def _together(judged: list[Judged], p: Tensor) -> tuple[Value, Value]:
    """The mean over outputs; its interval reaches from the mean lower to the mean upper end."""
    count, many = p.numel(), len(judged)
    noise = sum(j.model.noise for j in judged) / many
    low, high = (sum(j.model.interval[k] for j in judged) / many for k in (0, 1))
    clear = sum(j.model.reliable for j in judged)
    over = f"over {many} outputs" if many > 1 else "of the one output"
    if many == 1:
        statement = judged[0].model.statement
    elif clear < many:
        statement = (
            f"wrong labels cannot be separated from overlap, or one value is too rare, at "
            f"{many - clear} of {many} outputs, so up to {high:.0%} of the labels may be wrong"
        )
    elif low > 0:
        statement = f"{noise:.1%} of the labels look wrong ({low:.1%} to {high:.1%}), {over}"
    else:
        statement = f"no sign of wrong labels; at most {high:.1%} {over}"
    by, reliable = f"judged by {judged[0].estimator}", clear == many
    share = Value(noise, count, (low, high), f"{over}; {by}", reliable, statement)
    expected = Value(float(p.sum()), count, (count * low, count * high), by, reliable, statement)
    return share, expected
