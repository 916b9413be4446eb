"""Hidden states as a path: kinetic energy, its least value between the same ends, and its Fisher form.

With unit time over the depth, Δ = 1/L and v_l = (h_{l+1} − h_l)/Δ,

    A = Σ_l (Δ/2)‖v_l‖² = (L/2) Σ ‖h_{l+1} − h_l‖²  ≥  ½ (Σ ‖h_{l+1} − h_l‖)²  ≥  ½ ‖h_L − h_0‖².

The first inequality is one where all steps of an example are equally long, the second where they point one way. R_A is
the whole ratio; it does not change under isometries and a common factor of all features, and does under a change of
basis within single layers. The Fisher form weighs every step by the metric of the outputs pulled back to that layer,
(L/2) Σ δhᵀ J_lᵀ H J_l δh, and does not depend on the basis of a layer.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.action.chain import Chain
from memspace.action.quantities import state
from memspace.action.ratios import ratio_of
from memspace.action.states import HiddenStates, Tail
from memspace.measurement import Measurement, Unmeasured
from memspace.passes.linearised import differential
from memspace.task.checks import evaluating
from memspace.task.data import move
from memspace.task.operations import written_out
from memspace.task.task import Task
from memspace.value import Value

__all__ = ["Steps", "fisher_action", "fisher_steps", "kinetic_action", "shares", "steps_of"]


@dataclass(frozen=True)
class Steps:
    """Squared steps of hidden states, per example, float64.

    Args:
        squared: (L, n), ‖h_{l+1} − h_l‖².
        ends: (n,), ‖h_L − h_0‖².
    """

    squared: Tensor
    ends: Tensor

    @property
    def action(self) -> Tensor:
        """A of every example, (n,)."""
        return len(self.squared) / 2 * self.squared.sum(0)

    @property
    def even(self) -> Tensor:
        """Least action along the same line, ½ (Σ ‖h_{l+1} − h_l‖)², (n,)."""
        return self.squared.sqrt().sum(0).square() / 2

    @property
    def least(self) -> Tensor:
        """Least action between the same ends, ½ ‖h_L − h_0‖², (n,)."""
        return self.ends / 2


def steps_of(h: tuple[Tensor, ...]) -> Steps:
    """Measure the squared steps of hidden states.

    Args:
        h: h_0 … h_L, each (n, ...).

    Returns:
        The steps, and the squared distance of the ends.
    """
    squared = [_squared(b, a) for a, b in itertools.pairwise(h)]
    return Steps(torch.stack(squared), _squared(h[-1], h[0]))


def _squared(b: Tensor, a: Tensor) -> Tensor:
    return (b.double() - a.double()).square().flatten(1).sum(1)


def kinetic_action(steps: Steps) -> tuple[list[Measurement], list[Unmeasured]]:
    """State the action, its lower bound and R_A with its two factors, over examples.

    Args:
        steps: of the hidden states.

    Returns:
        Measurements, and what could not be measured.
    """
    n = steps.squared.shape[1]
    how = f"{len(steps.squared)} layers, hidden states of {n} examples"
    whole = "summed over positions and features of an example"
    out = [
        state("depth.action", Value.mean(steps.action, how=how, note=whole)),
        state("depth.least_action", Value.mean(steps.least, how=how, note=whole)),
    ]
    if not float(steps.ends.mean()) > 0:
        still = "the last hidden state is the first one"
        return out, [Unmeasured("depth.ratio", still, "choose blocks that change the hidden state")]
    even, bent = "1 where all steps of an example are equally long", "1 where all steps point one way"
    out += [
        state("depth.ratio", ratio_of(steps.action, steps.least, how)),
        state("depth.pace", ratio_of(steps.action, steps.even, how, even)),
        state("depth.bend", ratio_of(steps.even, steps.least, how, bent)),
    ]
    return out, []


def shares(name: str, squared: Tensor) -> tuple[Measurement, ...]:
    """State what each layer adds to a sum over layers, as a share.

    Args:
        name: of the family; the layer's number is added.
        squared: (L, n) parts.

    Returns:
        One measurement a layer; none where there is nothing to share.
    """
    whole = squared.sum(0)
    if not float(whole.mean()) > 0:
        return ()
    how = f"{squared.shape[1]} examples"
    return tuple(state(name, ratio_of(part, whole, how), k) for k, part in enumerate(squared))


def fisher_steps(task: Task, chain: Chain, s: HiddenStates, index: Tensor, batch: int = 64) -> Tensor:
    """Compute δhᵀ J_lᵀ H J_l δh of every step and example, exactly (forward mode).

    Args:
        task: the model, its law and data.
        chain: the blocks that make its depth.
        s: hidden states of the examples.
        index: their places in the training data, (n,).
        batch: examples at a time.

    Returns:
        (L, n) nats, summed over positions.
    """
    rows: list[list[Tensor]] = [[] for _ in range(len(chain))]
    start = 0
    # Fused kernels, attention's among them, have no forward-mode derivative.
    with torch.no_grad(), evaluating(task.model), written_out():
        for part in task.train.batches(batch, index):
            at = slice(start, start + len(part))
            start += len(part)
            tail = Tail(task, chain, move(part.x, task.device, task.dtype))
            for k in range(len(chain)):
                here = s.h[k][at]
                f, moved = _pushed(tail, k, here, s.h[k + 1][at] - here)
                lengths = (moved * task.likelihood.fisher_matvec(f, moved)).sum(-1) * s.weight[at]
                rows[k].append(lengths.double().reshape(len(part), -1).sum(1))
    return torch.stack([torch.cat(r) for r in rows])


def _pushed(tail: Tail, layer: int, h: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """(f, J_l δh)."""
    return differential(lambda d: tail(layer, d["h"]), {"h": h}, {"h": step})


def fisher_action(squared: Tensor) -> Measurement:
    """State (L/2) Σ of :func:`fisher_steps`.

    Args:
        squared: (L, n) nats.

    Returns:
        The mean over examples, nats.
    """
    layers, n = squared.shape
    note = "what every step would move the predictions by if only it were taken once more"
    action = Value.mean(layers / 2 * squared.sum(0), how=f"{layers} layers, {n} examples", note=note)
    return state("depth.fisher_action", action)
