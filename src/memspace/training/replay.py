"""One training as a differentiable function of the weights of its examples: replayed forward, step by step.

A trajectory is kept in checkpoints (Engstrom et al. 2025); ``memspace.training.pull_back`` goes back along it. At every
step the loss is (1/b) Σ_{j in batch} w_j ℓ_j(θ) + (decay/2)‖θ‖².
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

__all__ = ["ReplayedStates", "TrainingReplay"]

BUDGET = 2**30  # bytes for the states kept of a trajectory


@dataclass(frozen=True)
class ReplayedStates:
    """The states of one training, every ``every``-th kept.

    Args:
        states: of steps 0, every, 2·every, ...
        every: steps between them.
        final: θ_T (P,).
        seconds: that the training took.
    """

    states: tuple[State, ...]
    every: int
    final: Tensor
    seconds: float

    @property
    def kept_bytes(self) -> int:
        """Bytes of the kept states."""
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
        """Prepare the task's training at a seed.

        Args:
            task: with its ``training``.
            seed: of the training.
            weights: w (N,) of the examples; ones where not given.
            dtype: of everything computed; the task's where not given.

        Returns:
            The training, not yet run.

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
        """The recipe's optimiser."""
        assert self.task.training is not None
        return optimiser_of(self.task.training.recipe)

    @property
    def decay(self) -> float:
        """γ of the coupled decay."""
        assert self.task.training is not None
        return self.task.training.recipe.decay

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return len(self.draws.batches)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Parameters that the training moves."""
        return {n: p for n, p in self.draws.model.named_parameters() if p.requires_grad}

    def pack(self, tensors: dict[str, Tensor]) -> Tensor:
        """Flatten one tensor per parameter.

        Args:
            tensors: (..., *shape) by parameter.

        Returns:
            (..., P).
        """
        flat = [t.reshape(*t.shape[: t.dim() - p.dim()], -1) for p, t in self._pairs(tensors)]
        return torch.cat(flat, -1)

    def unpack(self, flat: Tensor) -> dict[str, Tensor]:
        """View a flat vector or a stack parameter by parameter.

        Args:
            flat: (..., P).

        Returns:
            (..., *shape) by parameter.
        """
        parameters = self.parameters
        parts = torch.split(flat, [p.numel() for p in parameters.values()], -1)
        return {n: t.reshape(*flat.shape[:-1], *p.shape) for (n, p), t in zip(parameters.items(), parts, strict=True)}

    def _pairs(self, tensors: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        return [(p, tensors[n]) for n, p in self.parameters.items()]

    def outputs(self, params: dict[str, Tensor], x: Inputs) -> Tensor:
        """Compute the network's outputs at given weights.

        Args:
            params: tensors by name.
            x: inputs (B, ...).

        Returns:
            (B, ..., C).
        """
        f = functional_call(self.draws.model, params, *arguments(x))
        assert isinstance(f, Tensor)
        return f

    def batch(self, step: int) -> tuple[Inputs, Tensor, Tensor]:
        """Read a step's examples.

        Args:
            step: from 0.

        Returns:
            Inputs, labels and weights w.
        """
        index = self.draws.batches[step]
        part = self.task.train.batch(index)
        x = move(part.x, self.task.device, self.dtype)
        return x, move(part.y, self.task.device), self.weights[index.to(self.weights.device)]

    def linearised(self, theta: Tensor, step: int, *, again: bool) -> _Step:
        """Compute the batch's gradient at θ with its graph.

        Args:
            theta: θ (P,).
            step: from 0.
            again: be ready to be differentiated once more.

        Returns:
            The gradient without the decay.
        """
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
        """Compute the gradient of a step's whole loss, decay included.

        Args:
            theta: θ (P,).
            step: from 0.

        Returns:
            (P,).
        """
        at = self.linearised(theta, step, again=False)
        return self.whole(at, theta)

    def whole(self, at: _Step, theta: Tensor) -> Tensor:
        """Add the decay to a batch's gradient.

        Args:
            at: what :meth:`linearised` gave.
            theta: θ (P,).

        Returns:
            (P,).
        """
        gradient = dict(zip(self.parameters, (g.detach() for g in at.grads), strict=True))
        return self.pack(gradient) + self.decay * theta

    def walk(self, state: State, first: int, last: int) -> Iterator[State]:
        """Follow the training.

        Args:
            state: before the first step.
            first: that step, from 0.
            last: the step to end before.

        Yields:
            The states after steps first, ..., last − 1.
        """
        optimiser, rates = self.optimiser, self.draws.rates
        for k in range(first, last):
            state = optimiser.step(state, self.gradient(state[0], k), rates[k], k + 1)
            yield state

    def start(self) -> State:
        """Make the state before the first step.

        Returns:
            Weights and the optimiser's own vectors.
        """
        parameters: dict[str, Tensor] = {n: p.detach() for n, p in self.parameters.items()}
        return self.optimiser.start(self.pack(parameters))

    def run(
        self, *, budget: float = BUDGET, every: int | None = None, progress: Progress | None = None
    ) -> ReplayedStates:
        """Train, keeping the states that the budget allows: all of them, or every ⌈√T⌉-th.

        Args:
            budget: bytes for kept states, those of a segment computed again included.
            every: keep every that many-th state, whatever the budget.
            progress: told of every step.

        Returns:
            The kept states and the final weights.

        Raises:
            MemoryBudgetError: 2⌈√T⌉ states do not fit.
            NonFiniteError: the training diverged.
        """
        state = self.start()
        bytes_each = sum(t.numel() * t.element_size() for t in state)
        every = every or spacing(self.steps, bytes_each, budget)
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
        derivatives = torch.autograd.grad(
            [g for g, _ in live],
            inputs,
            [v[0] if one else v for _, v in live],
            retain_graph=True,
            is_grads_batched=not one,
            allow_unused=True,
        )
        count = len(parts[0])
        filled = [t.new_zeros(count, *t.shape) if r is None else r[None] if one else r
                  for r, t in zip(derivatives, inputs, strict=True)]  # fmt: skip
        return filled[:-1], filled[-1]


def spacing(steps: int, each: int, budget: float) -> int:
    """Choose how many steps lie between kept states.

    Args:
        steps: T.
        each: bytes of one state.
        budget: bytes for kept states.

    Returns:
        1 where all states fit, else ⌈√T⌉ (least memory: 2√T states, one more training of work).

    Raises:
        MemoryBudgetError: 2⌈√T⌉ states do not fit.
    """
    if steps * each <= budget:
        return 1
    every = math.isqrt(steps - 1) + 1
    needed = (-(-steps // every) + every) * each
    if needed > budget:
        raise MemoryBudgetError(
            f"{needed / 2**30:.2g} GiB of the training's states are needed at a time, {budget / 2**30:.2g} are allowed",
            where="gradient through the training",
            remedy="allow more memory, or choose an engine that needs no training",
        )
    return every


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
