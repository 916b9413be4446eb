"""The training loss as a function of the weights, on the sample of examples that measures of sharpness share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace.geometry.stacked import PathProbe, held_between, probe_of
from memspace.measures.correct import correct
from memspace.measures.declaration import provides
from memspace.measures.values import Budget
from memspace.metric.krylov import Operator
from memspace.passes.linearise import function_of_parameters
from memspace.passes.linearised import quiet
from memspace.passes.profile import profile_of
from memspace.passes.space import ParameterSpace
from memspace.task.checks import evaluating
from memspace.task.likelihood import Likelihood
from memspace.task.task import Task
from memspace.training.group import stack
from memspace.value import Absent

__all__ = ["LossSurface", "initial_weights", "sample_size", "sampled_examples"]

MOST, LEAST = 256, 32  # examples of the sample
NUMBERS = 2**20  # in the outputs of all layers for the whole sample: they set the time that one loss takes
PREDICTIONS, FEWEST = 1024, 64  # of the whole sample, where an example holds many positions


@dataclass(frozen=True)
class LossSurface:
    """L(w), the mean loss of a prediction on some training examples, for stacks of weight vectors.

    Everything else that the network holds (buffers, parameters that are not selected) stays as it is.

    Args:
        task: the network, its law and its data.
        space: the parameters that move.
        theta: (P,) the network's weights, float64.
        probe: the examples of the sample.
        n: training examples in all.
        normalised: whether outputs are divided by their norm first, so that their gain has no say.
    """

    task: Task
    space: ParameterSpace
    theta: Tensor
    probe: PathProbe
    n: int
    normalised: bool = False

    @property
    def examples(self) -> int:
        """Examples of the sample."""
        return self.probe.n

    @property
    def how(self) -> str:
        """The sample in words."""
        everything = self.examples == self.n
        return f"on all {self.n} training examples" if everything else f"on a sample of {self.examples} of {self.n}"

    def on_directions(self) -> LossSurface | Absent:
        """Give the loss of the outputs' directions alone, f − mean f over its norm at every position.

        The mean is subtracted where the law does not see a common shift. A gain of the last layer changes nothing then.

        Returns:
            The surface; absent where predictions depend on the size of the outputs, or there is one output only.
        """
        law = self.task.likelihood
        if not law.gain_free:
            return Absent("predictions of this output law depend on the size of the outputs")
        if profile_of(self.task).shape[-1] < 2:
            return Absent("a single output has no direction but its sign")
        return replace(self, normalised=True)

    def outputs(self, points: Tensor) -> Tensor:
        """Compute the outputs at several weight vectors, differentiable in all of them.

        Args:
            points: (K, P).

        Returns:
            (K, m, ..., C) float64.
        """
        with quiet():
            return self.probe.outputs(points).double()

    def loss_of(self, f: Tensor) -> Tensor:
        """Compute the loss of outputs of the sample.

        Args:
            f: (K, m, ..., C).

        Returns:
            (K,) nats per prediction, differentiable.
        """
        law = self.task.likelihood
        losses = law.nll(_directions(law, f) if self.normalised else f, self._labels(len(f)))
        mean: Tensor = losses.flatten(1).sum(1) / self._count  # padded positions have no loss
        return mean

    def scores(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Compute loss and accuracy at several weight vectors.

        Args:
            points: (K, P).

        Returns:
            (K,) nats per prediction and (K,) shares of right predictions (0 where the law has no decisions).
        """
        law = self.task.likelihood
        with torch.no_grad():
            f = self.outputs(points)
            if not law.classifies:
                return self.loss_of(f), torch.zeros(len(f), dtype=f.dtype, device=f.device)
            return self.loss_of(f), correct(law, f, self._labels(len(f))).flatten(1).sum(1) / self._count

    def losses(self, points: Tensor) -> Tensor:
        """Compute the loss at several weight vectors.

        Args:
            points: (K, P).

        Returns:
            (K,) nats per prediction, float64; differentiable.
        """
        return self.loss_of(self.outputs(points))

    def gradients(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss and its gradient at several weight vectors.

        Args:
            points: (K, P).

        Returns:
            (K,) nats per prediction and (K, P) nats per prediction and weight unit.
        """
        leaf = points.detach().clone().requires_grad_()
        with torch.enable_grad():
            losses = self.losses(leaf)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), gradient

    @contextmanager
    def hessian(self) -> Iterator[Operator]:
        """Differentiate the loss at the network's weights, once for all products.

        Yields:
            v ↦ ∇²L v on stacks (k, P), exact: reverse mode through reverse mode.
        """
        task = self.task
        with evaluating(task.model), torch.enable_grad():
            leaf = self.theta.to(task.dtype, copy=True).requires_grad_()
            f = function_of_parameters(task, self.probe.x)(self.space.unpack(leaf))
            loss = self.loss_of(f.unsqueeze(0).double()).sum()
            (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)

            def product(stack: Tensor) -> Tensor:
                rows = []
                for v in stack.to(leaf):
                    row = None
                    if gradient.requires_grad:
                        (row,) = torch.autograd.grad(gradient, leaf, v, retain_graph=True, allow_unused=True)
                    rows.append(torch.zeros_like(leaf) if row is None else row)
                return torch.stack(rows).detach().double()

            yield product

    @property
    def _count(self) -> float:
        return float(self.probe.weight.sum())

    def _labels(self, count: int) -> Tensor:
        return self.probe.y.expand(count, *self.probe.y.shape)


def _directions(law: Likelihood, f: Tensor) -> Tensor:
    if law.shift_free:
        f = f - f.mean(-1, keepdim=True)
    length: Tensor = torch.linalg.vector_norm(f, dim=-1, keepdim=True)
    return f / length.clamp_min(1e-30)


def sample_size(n: int, activations: int, positions: int) -> int:
    """Choose how many examples the loss is read on, so that one loss takes about as long for every network.

    Args:
        n: training examples.
        activations: numbers in the outputs of all layers for one example.
        positions: predictions of one example.

    Returns:
        At most 256; at least 32 with 64 predictions, or all.
    """
    affordable = min(MOST, NUMBERS // max(1, activations), PREDICTIONS // max(1, positions))
    return min(n, max(LEAST, -(-FEWEST // max(1, positions)), affordable))


def sampled_examples(task: Task, seed: int) -> Tensor:
    """Draw the training examples that measures of sharpness share.

    Args:
        task: the network and its data.
        seed: of the draw.

    Returns:
        (m,) positions, ascending.
    """
    profile, n = profile_of(task), len(task.train)
    size = sample_size(n, profile.activations, profile.positions)
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed + 40))[:size].sort().values


@provides()
def loss_surface(task: Task, space: ParameterSpace, budget: Budget) -> LossSurface:
    """Read the sample of training examples that measures of sharpness share."""
    index = sampled_examples(task, budget.seed)
    with quiet():
        probe = probe_of(task, space, index)
    state = {**dict(task.model.named_parameters()), **dict(task.model.named_buffers())}
    tensors = {name: tensor.detach() for name, tensor in state.items()}
    probe.held = held_between(task, space, tensors, tensors)
    probe.mapped = stack(task.model, profile_of(task).widest * len(index), task.device)
    return LossSurface(task, space, space.flat(task.model).double(), probe, len(task.train))


def initial_weights(task: Task, space: ParameterSpace) -> Tensor | Absent:
    """Return the weights that the training began with.

    Args:
        task: the network and its recorded training.
        space: the parameters.

    Returns:
        (P,) float64; absent where no training was recorded.
    """
    if task.run is None:
        reason = "the weights at the start of the training are not known"
        return Absent(reason, "record the training: memspace.watch, or Task(run=...)")
    first = task.run.states[0]
    return space.pack({name: first[name].detach().to(task.device) for name in space.names}).double()
