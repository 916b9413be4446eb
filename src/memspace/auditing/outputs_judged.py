"""Every label of examples with several labels judged: each output is a problem of two classes of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memspace.auditing.judge import Judged, judge_classes
from memspace.auditing.reading import HeldOut, Reading
from memspace.measurement import Measurement

__all__ = ["OutputsJudged", "judge_outputs"]

MOST = 200  # outputs judged: a noise model takes about a second each
FORESTS = 16  # outputs up to which a forest is asked too


@dataclass(frozen=True)
class OutputsJudged:
    """What is thought of each label.

    Args:
        p: (n, D) probability that the label of this output is wrong; suggested: (n, D) the likeliest other value.
        y: (n, D) labels; loss: (n, D) nats.
        noise, expected: share of wrong labels among all n·D, and how many they are.
        estimator: by whom, for people.
    """

    p: Tensor
    suggested: Tensor
    y: Tensor
    loss: Tensor
    noise: Measurement
    expected: Measurement
    estimator: str

    def columns(self) -> dict[str, list[Any]]:
        """By example, of the output whose label is likeliest wrong."""
        p, output = self.p.max(1)
        at = output.unsqueeze(1)
        found = {"label": self.y.gather(1, at), "suggested_label": self.suggested.gather(1, at)}
        named = {name: v.squeeze(1).tolist() for name, v in found.items()}
        return {"output": output.tolist(), **named, "p_wrong_label": p.tolist()}

    def pairs(self) -> dict[str, list[Any]]:
        """Every label of every example, the likeliest wrong one first; ``row``: which example."""
        order = self.p.flatten().argsort(descending=True, stable=True)
        outputs = self.p.shape[1]
        found = {"label": self.y, "suggested_label": self.suggested, "p_wrong_label": self.p, "train_loss": self.loss}
        rows = {"row": (order // outputs).tolist(), "output": (order % outputs).tolist()}
        return rows | {name: v.flatten()[order].tolist() for name, v in found.items()}


def judge_outputs(r: Reading, seed: int = 0) -> OutputsJudged | None:
    """The noise model of ``measures.labels`` for each output; None where labels are no choices, or too many."""
    law = r.task.likelihood
    found = law.decisions(r.f.double(), r.y)
    if found is None or found[0].shape[1] > MOST:
        return None
    log_p, y = found
    refits = _decided(r, r.held_out.f, r.held_out.index) if r.held_out is not None else None
    loo = None if r.loo_f is None else _decided(r, r.loo_f, torch.arange(r.n))
    judged: list[Judged] = []
    for d in range(y.shape[1]):
        own = None
        if r.held_out is not None and refits is not None:
            own = HeldOut(r.held_out.index, refits[:, d], r.held_out.folds, r.held_out.seconds)
        one = judge_classes(
            r.task,
            log_p[:, d],
            y[:, d],
            refits=own,
            loo=None if loo is None else loo[:, d],
            matched=r.damping.reliable and own is not None,
            seed=seed + d,
            ask_forest=y.shape[1] <= FORESTS,
        )
        judged.append(one)
    p = torch.stack([j.p for j in judged], 1)
    loss = -log_p.gather(2, y.unsqueeze(2)).squeeze(2)
    suggested = torch.stack([j.suggested for j in judged], 1)
    noise, expected = _together(judged, p)
    return OutputsJudged(p, suggested, y, loss, noise, expected, judged[0].estimator)


def _decided(r: Reading, f: Tensor, index: Tensor) -> Tensor:
    """Log-probabilities (m, D, K) of outputs of some examples."""
    found = r.task.likelihood.decisions(f.double().to(r.y.device), r.y[index.to(r.y.device)])
    assert found is not None
    return found[0]


def _together(judged: list[Judged], p: Tensor) -> tuple[Measurement, Measurement]:
    """The mean over outputs; its interval reaches from the mean lower to the mean upper end."""
    count, many = p.numel(), len(judged)
    noise = sum(j.model.noise for j in judged) / many
    low, high = (sum(j.model.interval[k] for j in judged) / many for k in (0, 1))
    told = sum(j.model.reliable for j in judged)
    over = f"over {many} outputs" if many > 1 else "of the one output"
    if many == 1:
        statement = judged[0].model.statement
    elif told < many:
        statement = (
            f"wrong labels can't be told from outputs that overlap, or that have too few of one value, at "
            f"{many - told} of {many} outputs, so up to {high:.0%} of the labels may be wrong"
        )
    elif low > 0:
        statement = f"{noise:.1%} of the labels look wrong ({low:.1%} to {high:.1%}), {over}"
    else:
        statement = f"no sign of wrong labels; at most {high:.1%} {over}"
    how = f"share of wrong labels {over}; judged by {judged[0].estimator}"
    share = Measurement("labels.noise", noise, "1", how, count, (low, high), "natarajan2013", told == many, statement)
    expected = Measurement(
        "labels.expected_wrong",
        float(p.sum()),
        "labels",
        f"sum of the probabilities; judged by {judged[0].estimator}",
        count,
        (count * low, count * high),
        reliable=told == many,
        note=statement,
    )
    return share, expected
