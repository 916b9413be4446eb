"""One training as a differentiable function of the weights of its examples: replayed forward, then pulled back.

Reverse mode through training (Maclaurin et al. 2015) with a trajectory kept in checkpoints (Engstrom et al. 2025).
At every step the loss is (1/b) Σ_{j in batch} w_j ℓ_j(θ) + (decay/2)‖θ‖². With λ the derivative of an outcome by the
state after the step, the optimiser's adjoint gives λ_g, its derivative by the batch's gradient, and

    by θ:    + (H_batch + decay) λ_g            by w_j:    + ⟨λ_g, ∇ℓ_j(θ)⟩ / b.

Both are the derivative of ⟨λ_g, ∇_θ loss(θ, w)⟩, by θ and by w: one reverse pass through the gradient's own graph,
which all outcomes share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from memspace.errors import MemoryBudgetError, NonFiniteError, TaskError
from memspace.progress import Progress, Silent
from memspace.task.data import Inputs, move
from memspace.task.functional import functional_call
from memspace.task.kernels import differentiable_kernels
from memspace.task.operations import written_out
from memspace.task.task import Task
from memspace.training.draws import Draws, draw
from memspace.training.group import check_repeatable
from memspace.training.loss import example_losses
from memspace.training.networks import arguments
from memspace.training.optimisers import Optimiser, State, optimiser_of

__all__ = ["ReplayedStates", "TrainingReplay", "pull_back"]

BUDGET = 2**30  # bytes for the states kept of a trajectory
CACHED = 2**21  # numbers in the graphs of the outcomes pulled back together: larger ones leave the caches


@dataclass(frozen=True)
class ReplayedStates:
    """The states of one training, every ``every``-th kept.

    Args:
        states: of steps 0, every, 2·every, ...
        final: θ_T (P,).
        seconds: that the training took.
    """

    states: tuple[State, ...]
    every: int
    final: Tensor
    seconds: float

    @property
    def kept_bytes(self) -> int:
        """Held by the kept states."""
        return sum(t.numel() * t.element_size() for state in self.states for t in state)


@dataclass(frozen=True)
class TrainingReplay:
    """One training of a task at one seed and at given weights of its examples.

    Args:
        task: with its ``training``; its own model is not used.
        draws: initial network, batches and learning rates.
        weights: w (N,), all ones for the training as it was.
        dtype: of everything computed.
    """

    task: Task
    draws: Draws
    weights: Tensor
    dtype: torch.dtype

    @staticmethod
    def of(task: Task, seed: int, *, weights: Tensor | None = None, dtype: torch.dtype | None = None) -> TrainingReplay:
        """The task's training at a seed.

        Raises:
            TaskError: the task has no training, or one that is no function of weights and data alone.
        """
        if task.training is None:
            raise TaskError(
                "the task does not say how its network was trained, so the training cannot be repeated",
                where=f"task {task.name}",
                remedy="give the Task training=Training(make, recipe), or choose an engine that needs no training",
            )
        draws = draw(task.training, len(task.train), seed)
        _check_followed(draws.model, task)
        dtype = dtype or task.dtype
        w = torch.ones(len(task.train)) if weights is None else weights.detach()
        if w.shape != (len(task.train),) or not bool(torch.isfinite(w).all()):
            raise TaskError(
                f"weights of shape {tuple(w.shape)} for {len(task.train)} training examples, or not finite",
                where="weights",
                remedy="give one finite weight per training example",
            )
        draws.model.to(task.device, dtype)
        return TrainingReplay(task, draws, w.to(task.device, dtype), dtype)

    @property
    def optimiser(self) -> Optimiser:
        """The recipe's."""
        assert self.task.training is not None
        return optimiser_of(self.task.training.recipe)

    @property
    def decay(self) -> float:
        """γ of the coupled decay."""
        assert self.task.training is not None
        return self.task.training.recipe.decay

    @property
    def steps(self) -> int:
        """T."""
        return len(self.draws.batches)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What the training moves."""
        return {n: p for n, p in self.draws.model.named_parameters() if p.requires_grad}

    def pack(self, tensors: dict[str, Tensor]) -> Tensor:
        """(..., P) from one tensor (..., *shape) per parameter."""
        flat = [t.reshape(*t.shape[: t.dim() - p.dim()], -1) for p, t in self._pairs(tensors)]
        return torch.cat(flat, -1)

    def unpack(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a flat vector or a stack (..., P)."""
        own = self.parameters
        parts = torch.split(flat, [p.numel() for p in own.values()], -1)
        return {n: t.reshape(*flat.shape[:-1], *p.shape) for (n, p), t in zip(own.items(), parts, strict=True)}

    def _pairs(self, tensors: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        return [(p, tensors[n]) for n, p in self.parameters.items()]

    def outputs(self, params: dict[str, Tensor], x: Inputs) -> Tensor:
        """The network's outputs at given weights."""
        f = functional_call(self.draws.model, params, *arguments(x))
        assert isinstance(f, Tensor)
        return f

    def batch(self, step: int) -> tuple[Inputs, Tensor, Tensor]:
        """(inputs, labels, weights) of a step's examples."""
        index = self.draws.batches[step]
        part = self.task.train.batch(index)
        x = move(part.x, self.task.device, self.dtype)
        return x, move(part.y, self.task.device), self.weights[index.to(self.weights.device)]

    def linearised(self, theta: Tensor, step: int, *, again: bool) -> _Step:
        """The batch's gradient at θ; with ``again`` ready to be differentiated once more."""
        x, y, w = self.batch(step)
        leaves = {n: t.detach().requires_grad_() for n, t in self.unpack(theta).items()}
        w = w.detach().requires_grad_(again)
        with torch.enable_grad(), _differentiable_twice(self.draws.model, again):
            losses = example_losses(self.task.likelihood.trained_with, self.outputs(leaves, x), y)
            loss = (w * losses).sum() / len(w)
            grads = torch.autograd.grad(
                loss, list(leaves.values()), create_graph=again, allow_unused=True, materialize_grads=True
            )
        return _Step(list(leaves.values()), w, list(grads))

    def gradient(self, theta: Tensor, step: int) -> Tensor:
        """∇ of the whole loss of a step, decay included, (P,)."""
        at = self.linearised(theta, step, again=False)
        return self.whole(at, theta)

    def whole(self, at: _Step, theta: Tensor) -> Tensor:
        """The gradient found, flat, with the decay's."""
        own = dict(zip(self.parameters, (g.detach() for g in at.grads), strict=True))
        return self.pack(own) + self.decay * theta

    def walk(self, state: State, first: int, last: int) -> Iterator[State]:
        """The states after steps first, ..., last − 1 (from 0)."""
        optimiser, rates = self.optimiser, self.draws.rates
        for k in range(first, last):
            state = optimiser.step(state, self.gradient(state[0], k), rates[k], k + 1)
            yield state

    def start(self) -> State:
        """The state before the first step."""
        own: dict[str, Tensor] = {n: p.detach() for n, p in self.parameters.items()}
        return self.optimiser.start(self.pack(own))

    def run(
        self, *, budget: float = BUDGET, every: int | None = None, progress: Progress | None = None
    ) -> ReplayedStates:
        """Train, keeping the states that the budget allows: all of them, or every ⌈√T⌉-th.

        Args:
            budget: bytes for kept states, those of a segment computed again included.
            every: keep every that many-th state, whatever the budget.

        Raises:
            MemoryBudgetError: 2⌈√T⌉ states do not fit.
            NonFiniteError: the training diverged.
        """
        state = self.start()
        each = sum(t.numel() * t.element_size() for t in state)
        every = every or spacing(self.steps, each, budget)
        states = []
        begun = time.perf_counter()
        following = self.walk(state, 0, self.steps)
        for k in (progress or Silent()).track(range(self.steps), "repeating the training", self.steps):
            if k % every == 0:
                states.append(state)
            state = next(following)
        if not bool(torch.isfinite(state[0]).all()):
            raise NonFiniteError(
                "the repeated training diverged: weights are NaN or infinite",
                where=f"task {self.task.name}",
                remedy="lower the recipe's learning rate",
            )
        return ReplayedStates(tuple(states), every, state[0], time.perf_counter() - begun)


@contextmanager
def _differentiable_twice(model: nn.Module, again: bool) -> Iterator[None]:
    """Kernels whose gradients have gradients, and where these are taken operations whose gradients' are right."""
    with ExitStack() as stack:
        stack.enter_context(differentiable_kernels(model))
        stack.enter_context(written_out() if again else sdpa_kernel(SDPBackend.MATH))
        yield


@dataclass(frozen=True)
class _Step:
    """A batch's gradient with its graph."""

    leaves: list[Tensor]
    weights: Tensor
    grads: list[Tensor]

    def pull(self, parts: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Derivatives of ⟨v, gradient⟩ by θ and by w, for a stack of v given parameter by parameter."""
        live = [(g, v) for g, v in zip(self.grads, parts, strict=True) if g.requires_grad]
        inputs = [*self.leaves, self.weights]
        one = len(parts[0]) == 1  # mapping over a single vector costs more than it saves
        found = torch.autograd.grad(
            [g for g, _ in live],
            inputs,
            [v[0] if one else v for _, v in live],
            retain_graph=True,
            is_grads_batched=not one,
            allow_unused=True,
        )
        count = len(parts[0])
        filled = [t.new_zeros(count, *t.shape) if r is None else r[None] if one else r
                  for r, t in zip(found, inputs, strict=True)]  # fmt: skip
        return filled[:-1], filled[-1]


def spacing(steps: int, each: int, budget: float) -> int:
    """1 where all states fit into the budget, else ⌈√T⌉ (least memory: 2√T states, one more training of work)."""
    if steps * each <= budget:
        return 1
    every = math.isqrt(steps - 1) + 1
    held = (-(-steps // every) + every) * each
    if held > budget:
        raise MemoryBudgetError(
            f"{held / 2**30:.2g} GiB of the training's states are needed at a time, {budget / 2**30:.2g} are allowed",
            where="gradient through the training",
            remedy="allow more memory, or choose an engine that needs no training",
        )
    return every


def pull_back(
    replay: TrainingReplay,
    trajectory: ReplayedStates,
    cotangents: Tensor,
    *,
    together: int | None = None,
    progress: Progress | None = None,
    what: str = "gradient through the training",
) -> Tensor:
    """∂q/∂w (Q, N) of outcomes q(θ_T), exact for the training as it was repeated.

    Args:
        cotangents: ∂q/∂θ_T (Q, P).
        together: outcomes that share a pass through a step's graph (None: as the size of the graph suggests).

    Source: Maclaurin et al. 2015; Engstrom et al. 2025.
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
    """As many as keep the graphs of one step within the caches; beyond that a stack is slower than one by one."""
    held = [0]

    def note(t: Tensor) -> Tensor:
        held[0] += t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        replay.linearised(replay.start()[0], 0, again=False)
    return max(1, CACHED // max(1, held[0]))


def _check_followed(model: nn.Module, task: Task) -> None:
    """A step must be a function of weights and examples alone."""
    check_repeatable(model)
    buffers = [n for n, b in model.named_buffers() if b.is_floating_point()]
    moving = [n for n, m in model.named_modules() if getattr(m, "track_running_stats", False)]
    if moving and buffers:
        raise TaskError(
            f"module {moving[0]} keeps running statistics, which a gradient through the training does not follow",
            where=f"training of task {task.name}",
            remedy="use group or layer normalisation, or choose another engine",
        )
