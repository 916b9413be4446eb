"""Training a group of networks, each until its training loss is exactly the target."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.zoo.registry import ZooData
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.training.draws import initial_network, labels_of, permuted_labels
from memspace.zoo.training.stack import Stack, Weights, flat_weights, mean_losses

__all__ = ["TrainedNetwork", "train_group"]

EVERY = 25  # steps between two looks at the whole training loss
GRID = 1.15  # ratio of the steps at which states are kept
CLOSE = 1e-3  # relative error of the training loss at the end
FIRST_TARGET = (
    0.5  # share of the label entropy left, at which learning of random labels ends and that of true ones begins
)


@dataclass(frozen=True)
class TrainedNetwork:
    """One trained network.

    Args:
        spec: what it is.
        reached: its training loss is the target.
        steps: steps taken; the last may be a part of a step.
        loss: mean training loss at the end, nats.
        seconds: of processor time, the group's divided by its networks.
        curve: (step, mean training loss) at every look, the end last.
        states: (step, weights (P,)) on a grid of growing steps, the initialisation first, the end last.
    """

    spec: NetworkSpec
    reached: bool
    steps: float
    loss: float
    seconds: float
    curve: tuple[tuple[float, float], ...]
    states: tuple[tuple[float, Tensor], ...]


def train_group(
    specs: Sequence[NetworkSpec], data: ZooData, tick: Callable[[], None] = lambda: None
) -> Iterator[TrainedNetwork]:
    """Train networks of one group together, and give each on when it is done.

    A network is done when the mean loss over its whole training set, without dropout, is within a thousandth of the
    target: the step that crosses it is found by repeating the steps since the last look, and shortened.

    Args:
        specs: networks with equal ``group``.
        data: what they train on.
        tick: called after every look; may raise to stop.

    Yields:
        Each network as it is done, in order of steps.
    """
    model = initial_network(specs[0], data)
    stack = _begun(model, specs, data)
    x = data.x[: specs[0].size]
    losses = mean_losses(model, stack.vectors, x, stack.y).tolist()
    histories = [_History([(0.0, loss)], [(0.0, v.clone())]) for loss, v in zip(losses, stack.vectors, strict=True)]
    while len(stack.specs):
        began = time.process_time()
        before = stack
        while stack.step < before.step + EVERY and stack.step < stack.specs[0].most:
            stack = stack.stepped(data)
            if _on_grid(stack.step):
                for history, vector in zip(histories, stack.vectors, strict=True):
                    history.states.append((float(stack.step), vector.clone()))
        losses = mean_losses(model, stack.vectors, x, stack.y).tolist()
        spent = (time.process_time() - began) / len(stack.specs)
        going = []
        for k, (history, loss) in enumerate(zip(histories, losses, strict=True)):
            history.seconds += spent
            spec = stack.specs[k]
            if loss <= spec.target:
                yield _stopped(before.of([k]), data, history)
            elif stack.step >= spec.most or not math.isfinite(loss):
                history.curve.append((float(stack.step), loss))
                yield history.ended(spec, False, float(stack.step), loss, stack.vectors[k])
            else:
                history.curve.append((float(stack.step), loss))
                going.append(k)
        if len(going) < len(histories):
            stack, histories = stack.of(going), [histories[k] for k in going]
        tick()


@dataclass
class _History:
    """What is noted of a network while it trains."""

    curve: list[tuple[float, float]]
    states: list[tuple[float, Tensor]]
    seconds: float = 0.0

    def ended(self, spec: NetworkSpec, reached: bool, steps: float, loss: float, vector: Tensor) -> TrainedNetwork:
        """The trained network; states after its end, of a step that was shortened, are left out."""
        states = [s for s in self.states if s[0] < steps]
        curve = [c for c in self.curve if c[0] < steps]
        return TrainedNetwork(
            spec,
            reached,
            steps,
            loss,
            self.seconds,
            (*curve, (steps, loss)),
            (*states, (steps, vector.clone())),
        )


def _begun(model: nn.Module, specs: Sequence[NetworkSpec], data: ZooData) -> Stack:
    vectors = torch.stack([flat_weights(initial_network(s, data)) for s in specs])
    y = torch.stack([labels_of(s, data) for s in specs])
    stack = Stack(model, tuple(specs), y, vectors, torch.zeros_like(vectors), torch.zeros_like(vectors))
    if specs[0].start == "fresh":
        return stack
    taught = _taught_at_random(stack, data)
    return Stack(model, tuple(specs), y, taught, torch.zeros_like(vectors), torch.zeros_like(vectors))


def _taught_at_random(stack: Stack, data: ZooData) -> Tensor:
    """Weights that learned permuted labels of the same inputs, until half of their entropy was gone."""
    y = torch.stack([permuted_labels(s, data) for s in stack.specs])
    teaching = Stack(stack.model, stack.specs, y, stack.vectors, stack.first, stack.second)
    shares = torch.bincount(data.y.flatten(), minlength=data.outputs).double() / data.y.numel()
    goal = FIRST_TARGET * float(torch.special.entr(shares).sum())
    x = data.x[: stack.specs[0].size]
    done = stack.vectors.clone()
    places = list(range(len(stack.specs)))
    while places and teaching.step < stack.specs[0].most:
        for _ in range(EVERY):
            teaching = teaching.stepped(data)
        losses = mean_losses(stack.model, teaching.vectors, x, teaching.y)
        going = []
        for k, (place, loss) in enumerate(zip(places, losses.tolist(), strict=True)):
            done[place] = teaching.vectors[k]
            if loss > goal:
                going.append(k)
        teaching, places = teaching.of(going), [places[k] for k in going]
    return done


def _stopped(stack: Stack, data: ZooData, history: _History) -> TrainedNetwork:
    """Repeat the steps since the last look and find the point on the path at which the loss is the target."""
    began = time.process_time()
    spec, x = stack.specs[0], data.x[: stack.specs[0].size]
    path = [stack.vectors[0]]
    first = stack.step
    while True:
        stack = stack.stepped(data)
        path.append(stack.vectors[0])
        # Alone, a network's products may be rounded otherwise than in a stack: go on until it is there again.
        if len(path) > EVERY and _loss(stack.model, path[-1], x, stack.y) <= spec.target:
            break
        if len(path) > 8 * EVERY:
            break
    low, high = 0, len(path) - 1  # the loss is above the target at low and below at high
    while high - low > 1:
        middle = (low + high) // 2
        below = _loss(stack.model, path[middle], x, stack.y) <= spec.target
        low, high = (low, middle) if below else (middle, high)
    share, vector, loss = _between(stack, x, path[low], path[high])
    history.seconds += time.process_time() - began
    steps = first + low + share
    return history.ended(spec, abs(loss - spec.target) <= CLOSE * spec.target, steps, loss, vector)


def _between(stack: Stack, x: Tensor, before: Tensor, after: Tensor) -> tuple[float, Tensor, float]:
    """The point between two neighbouring steps at which the loss is the target."""
    target = stack.specs[0].target
    low, high = 0.0, 1.0
    share, vector = 1.0, after
    loss = _loss(stack.model, after, x, stack.y)
    for _ in range(30):
        if abs(loss - target) <= CLOSE * target:
            break
        share = (low + high) / 2
        vector = before + share * (after - before)
        loss = _loss(stack.model, vector, x, stack.y)
        low, high = (low, share) if loss <= target else (share, high)
    return share, vector, loss


def _loss(model: nn.Module, vector: Tensor, x: Tensor, y: Tensor) -> float:
    return float(mean_losses(model, vector[None], x, y))


def _on_grid(step: int) -> bool:
    """Whether a step is on the grid of steps that grow by ``GRID``, or among the first five."""
    return step <= 5 or math.floor(math.log(step, GRID)) > math.floor(math.log(step - 1, GRID))


def state_of(model: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """View a vector of weights as a state dict.

    Args:
        model: of that shape.
        vector: (P,).

    Returns:
        Name → tensor.
    """
    return Weights.of(model).split(vector)
