"""Weights of few bits: rounded to nearest, or in groups with compensation by the other weights.

Both use one symmetric scale per output row (as ``robustness.quantised``), fixed before rounding. With compensation
(Frantar et al. 2023, GPTQ; the idea is optimal brain surgery, Frantar & Alistarh 2022) columns of a layer are rounded
in groups, and after each all weights not yet rounded take the change of least Fisher length that makes up for it.
The Fisher rows are those of all layers together, so later layers make up for earlier ones too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.measures.compensated import PruneSettings, fisher_rows
from memspace.measures.objective import Objective
from memspace.measures.robustness import quantised
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["rounded", "rounded_compensated", "scales"]

GROUPS = 24  # groups over the whole network: a factorisation each
DAMPINGS = (1e-2, 1.0, 100.0)  # in units of the rows' mean eigenvalue; the least measured divergence is taken


def scales(task: Task, space: ParameterSpace, bits: int) -> Tensor:
    """Compute the distance between neighbouring levels at each weight.

    Args:
        task: the network.
        space: the parameters.
        bits: of a weight, sign included.

    Returns:
        (P,) weight units; 0 for vectors, which are not rounded.
    """
    levels = 2 ** (bits - 1) - 1
    named = {}
    for name, p in space.parameters(task.model).items():
        w = p.detach()
        if w.dim() < 2:
            named[name] = torch.zeros_like(w)
            continue
        step = w.flatten(1).abs().amax(1).clamp_min(1e-30) / levels
        named[name] = step.reshape(-1, *([1] * (w.dim() - 1))).expand_as(w)
    return space.pack(named)


def rounded(task: Task, space: ParameterSpace, bits: int) -> Tensor:
    """Round weight matrices to the nearest level: each weight moves by at most Δ/2, and by Δ²/12 in the mean square.

    Args:
        task: the network.
        space: the parameters.
        bits: of a weight, sign included.

    Returns:
        (P,) all weights.
    """
    parameters = {k: p.detach() for k, p in space.parameters(task.model).items()}
    return space.pack(parameters | quantised(task, space, bits))


def rounded_compensated(task: Task, space: ParameterSpace, bits: int, surgery: PruneSettings | None = None) -> Tensor:
    """Round matrices to the levels of :func:`rounded` in groups, with the remaining weights making up for each.

    Several dampings are tried. Of these and plain rounding the one whose predictions diverge least on training
    examples is returned.

    Args:
        task: the network and its training data.
        space: the parameters.
        bits: of a weight, sign included.
        surgery: settings; None: the defaults.

    Returns:
        (P,) all weights; vectors, which are not rounded, change too.
    """
    surgery = surgery or PruneSettings()
    theta, step = space.flat(task.model), scales(task, space, bits)
    limit = 2 ** (bits - 1) - 1
    metric = fisher_rows(
        task, space, surgery.rows, seed=surgery.seed, memory=surgery.memory, structure=surgery.structure
    )
    unit = float(metric.rows.square().sum(dtype=torch.float64)) / metric.n / min(len(metric.rows), metric.size)
    index = torch.arange(min(len(task.train), surgery.examples))
    objective = Objective(task, space, "function", index)
    order = _columns(space, step)
    groups = [g for g in torch.tensor_split(order, GROUPS) if len(g)]
    nothing = torch.zeros(space.size, dtype=torch.float64, device=theta.device)
    now = [theta.double() for _ in DAMPINGS]
    free = metric.factor(torch.ones(space.size, dtype=torch.bool, device=theta.device))
    for group in groups:
        removed = torch.zeros(space.size, dtype=torch.bool, device=theta.device)
        removed[group] = True
        free = free.without(removed)
        for k, damping in enumerate(DAMPINGS):
            target = (now[k][group] / step[group]).round().clamp(-limit, limit) * step[group]
            fixed = nothing.clone()
            fixed[group] = target - now[k][group]
            now[k] = now[k] + free.change(fixed, nothing, max(unit, 1e-12) * damping)
            now[k][group] = target.double()
    tried = [rounded(task, space, bits), *(w.to(theta) for w in now)]
    return min(tried, key=objective)


def _columns(space: ParameterSpace, step: Tensor) -> Tensor:
    """Places of the weights to round, layer by layer, column by column: inputs of one column share their statistics."""
    places = torch.arange(space.size, device=step.device)
    ordered = torch.cat([b.view(places).t().reshape(-1) for b in space.blocks])
    return ordered[step[ordered] > 0]
