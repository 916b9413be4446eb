"""Derivatives of a replayed training's outcomes by the weights of its examples (Maclaurin et al. 2015).

With λ the derivative of an outcome by the state after a step, the optimiser's adjoint gives λ_g, its derivative by the
batch's gradient, and

    by θ:    + (H_batch + decay) λ_g            by w_j:    + ⟨λ_g, ∇ℓ_j(θ)⟩ / b.

Both are the derivative of ⟨λ_g, ∇_θ loss(θ, w)⟩, by θ and by w: one reverse pass through the gradient's own graph,
which all outcomes share.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from memspace.progress import Progress, Silent
from memspace.training.optimisers import State
from memspace.training.replay import ReplayedStates, TrainingReplay

__all__ = ["outcomes_together", "pull_back"]

CACHED = 2**21  # numbers in the graphs of the outcomes pulled back together: larger ones leave the caches


def pull_back(
    replay: TrainingReplay,
    trajectory: ReplayedStates,
    cotangents: Tensor,
    *,
    together: int | None = None,
    progress: Progress | None = None,
    what: str = "gradient through the training",
) -> Tensor:
    """Compute ∂q/∂w of outcomes q(θ_T), exact for the training as it was repeated.

    Source: Maclaurin et al. 2015; Engstrom et al. 2025.

    Args:
        replay: the training.
        trajectory: its states.
        cotangents: ∂q/∂θ_T (Q, P).
        together: outcomes that share a pass through a step's graph (None: as the size of the graph suggests).
        progress: told of every step.
        what: how progress names the work.

    Returns:
        (Q, N).
    """
    optimiser, rates = replay.optimiser, replay.draws.rates
    count, n = len(cotangents), len(replay.weights)
    scores = cotangents.new_zeros(count, n)
    after: State = (cotangents, *(torch.zeros_like(cotangents) for _ in range(optimiser.slots)))
    together = together or outcomes_together(replay)
    for k, state in (progress or Silent()).track(_backwards(replay, trajectory), what, replay.steps):
        at = replay.linearised(state[0], k, again=True)
        before, by_gradient = optimiser.adjoint(state, replay.whole(at, state[0]), after, rates[k], k + 1)
        index = replay.draws.batches[k].to(scores.device)
        by_theta = before[0] + replay.decay * by_gradient
        for lo in range(0, count, together):
            rows = slice(lo, lo + together)
            curved, by_weight = at.pull(list(replay.unpack(by_gradient[rows]).values()))
            by_theta[rows] += replay.pack(dict(zip(replay.parameters, curved, strict=True)))
            scores[rows, index] += by_weight
        after = (by_theta, *before[1:])
    return scores


def _backwards(replay: TrainingReplay, trajectory: ReplayedStates) -> Iterator[tuple[int, State]]:
    """(step, state before it), last first; segments between kept states are computed again."""
    every = trajectory.every
    for i in range(len(trajectory.states) - 1, -1, -1):
        first, last = i * every, min((i + 1) * every, replay.steps)
        segment = [trajectory.states[i], *replay.walk(trajectory.states[i], first, last - 1)]
        while segment:
            yield first + len(segment) - 1, segment.pop()


def outcomes_together(replay: TrainingReplay) -> int:
    """Count the outcomes that keep the graphs of one step within the caches; beyond that one by one is faster.

    Args:
        replay: the training.

    Returns:
        At least 1.
    """
    total = [0]

    def note(t: Tensor) -> Tensor:
        total[0] += t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        replay.linearised(replay.start()[0], 0, again=False)
    return max(1, CACHED // max(1, total[0]))
