"""Forgetting one per cent of the data, against the network of the same seed and batch order trained without it.

The goals are about the workload's own training. Where that does not follow its data (``benchmarks/smooth.py``) the same
is measured at the first rate that does, to see whether this is why an edit falls short.
"""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.memory_workloads import WORKLOADS
from benchmarks.smooth import smooth
from benchmarks.table import Row, at_most, mean_interval
from memspace.editing.baselines import SgdSteps, ascend, fine_tune
from memspace.editing.effects import accuracy_of, divergence, groups_of
from memspace.editing.forget import forget
from memspace.editing.membership import membership
from memspace.editing.retrain import retrained
from memspace.task.task import Task
from memspace.training.refit import rest_of

PART = "forget"
SHARE = 0.01
SETS = {"digits": 4, "fashion-mnist": 1}  # sets forgotten per seed
# The least rates change next to nothing: the best of a baseline is at least as good as leaving the network as it is.
RATES = (0.00001, 0.0001, 0.001, 0.003, 0.01, 0.03)
CLIMB = (0.00001, 0.0003, 0.001, 0.003, 0.01, 0.03)  # of ten ascent steps
STEPS = 10
DETAIL = "KL to the network retrained with the same seed and order; best of all baselines' settings, by the truth"

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Setting:
    task: Task
    seed: int
    index: Tensor
    kept: Tensor
    truth: State

    def kl(self, state: State | None) -> dict[str, float]:
        """KL(retrained ‖ these weights), mean over each set."""
        groups = groups_of(self.task, self.index, self.kept)
        return {k: float(divergence(self.task, d, i, self.truth, state).mean()) for k, (d, i) in groups.items()}


def rows(arguments: Namespace) -> list[Row]:
    names = [arguments.workload] if arguments.workload else list(WORKLOADS)
    return [row for name in names for row in _workload(name, arguments)]


def _workload(name: str, arguments: Namespace) -> list[Row]:
    figures: dict[str, list[float]] = defaultdict(list)
    for seed in arguments.seeds[:1] if arguments.small else arguments.seeds:
        task = WORKLOADS[name](arguments.data_root, seed, arguments.small)
        follows, facts = smooth(task, seed)
        count = 1 if arguments.small else SETS[name]
        measured = {"": task} | ({} if follows is task else {"at a smooth rate: ": follows})
        for prefix, which in measured.items():
            each = [_one(which, seed, 1000 * seed + k) for k in range(count)]
            for key in each[0]:
                figures[prefix + key].append(sum(e[key] for e in each) / count)
        for key, value in facts.items():
            figures[key].append(value)
        shown = ", ".join(f"{k} {v[-1]:.4g}" for k, v in figures.items() if "damped Newton" in k or "best base" in k)
        print(f"forget {name}, seed {seed}: {shown}", flush=True)
    out = []
    for prefix in ("", "at a smooth rate: "):
        for group in ("forgotten", "retained", "unseen"):
            mine, best = (figures.get(f"{prefix}kl {group}: {of}", []) for of in ("damped Newton", "best baseline"))
            ratios = [a / b for a, b in zip(mine, best, strict=True)]
            if not ratios:
                continue
            said = f"{prefix}KL on {group}, share of the best baseline's"
            if prefix:
                out.append(Row(PART, f"{name}: {said}", "", *mean_interval(ratios), None, f"{len(ratios)} seeds"))
            else:
                out.append(at_most(PART, f"{name}: {said}", ratios, 0.5, DETAIL))
    for key, values in figures.items():
        mean, low, high = mean_interval(values)
        out.append(Row(PART, f"{name}: {key}", "", mean, low, high, None, "nats" if "kl " in key else ""))
    return out


def _one(task: Task, seed: int, which: int) -> dict[str, float]:
    n = len(task.train)
    index = torch.randperm(n, generator=torch.Generator().manual_seed(which))[: max(1, int(SHARE * n))].sort().values
    kept = rest_of(n, index)
    weights = torch.ones(n)
    weights[index] = 0
    at = Setting(task, seed, index, kept, retrained(task, seed, weights))
    edit = forget(task, index)
    baselines = _baselines(task, index, kept, edit.cost.gradients)
    figures: dict[str, float] = {}
    found = {"unchanged": at.kl(None), "damped Newton": at.kl(edit.state)}
    tried = {kind: [at.kl(s) for s in states] for kind, states in baselines.items()}
    groups = list(found["unchanged"])
    for kind, all_of in tried.items():
        found[kind] = {g: min(f[g] for f in all_of) for g in groups}
    found["best baseline"] = {g: min(found[kind][g] for kind in tried) for g in groups}
    one_more = weights.clone()
    one_more[kept[which % len(kept)]] = 0
    found["noise: one example more left out"] = at.kl(retrained(task, seed, one_more))
    found["noise: another seed"] = at.kl(retrained(task, seed + 1000, weights))
    for kind, by_group in found.items():
        figures |= {f"kl {g}: {kind}": v for g, v in by_group.items()}
    for when, state in (("before", None), ("after", edit.state), ("retrained", at.truth)):
        for g, (data, where) in groups_of(task, index, kept).items():
            right = accuracy_of(task, data, where, state)
            if right is not None:
                figures[f"accuracy {g}: {when}"] = float(right.mean())
        attack = membership(task, index, kept, state, "attack")
        if attack is not None:
            figures[f"membership AUC: {when}"], figures[f"membership advantage: {when}"] = (m.value for m in attack)
    for g in groups:
        predicted = edit.measurement(f"forget.kl_predicted.{g}").value
        figures[f"predicted over measured KL, {g}"] = predicted / edit.measurement(f"forget.kl.{g}").value
    assert task.training is not None
    figures["cost of forgetting, epochs of gradients"] = edit.cost.gradients / n
    figures["cost of training again, epochs of gradients"] = float(task.training.recipe.epochs)
    return figures


def _baselines(task: Task, index: Tensor, kept: Tensor, gradients: int) -> dict[str, list[State]]:
    """Each kind at every rate; the ascent's own gradients come off what is left for fine-tuning."""
    left = gradients - STEPS * len(index)
    climbed = [ascend(task, index, STEPS, SgdSteps(r)) for r in CLIMB]
    many = len(kept) <= 2_000  # small trainings take seconds: there every pair is tried
    alone, after, tops = (RATES, RATES[1:5], climbed[1:]) if many else (RATES[:5:2], RATES[:3], climbed[1:3])
    return {
        "fine-tuning": [fine_tune(task, kept, gradients, SgdSteps(r)) for r in alone],
        "ascent": list(climbed),
        "ascent, then fine-tuning": [fine_tune(task, kept, left, SgdSteps(r), start=s) for s in tops for r in after],
    }
