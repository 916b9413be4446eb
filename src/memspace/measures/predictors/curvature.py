"""How much the predictions bend along straight lines of the weights, in the Fisher metric of the outputs.

Along a line θ + tv the outputs have velocity ḟ = J v and acceleration f̈ = D²f[v, v]. With the inner product of the
output law, ⟨a, b⟩ = mean over examples of aᵀHb, the relative curvature of the curve is

    κ_v = |f̈⊥| / |ḟ|²,    f̈⊥ = f̈ − ḟ ⟨f̈, ḟ⟩/|ḟ|²,

that of Bates & Watts 1980 for normal noise, and the statistical curvature of Efron 1975 where outputs are natural
parameters of the law. After a step of Fisher length s the predictions are ½κs² off the straight ones. It does not
change with the length of v; a circle of radius r has 1/r, and outputs affine in the weights have 0.

What is taken off is the curve's own direction alone. The tangent space of all weights fills the space of predictions
where the network has as many parameters as these examples have outputs: nothing would be left outside of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp, vmap

from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import measure, provides
from memspace.measures.predictors.values import drawn_examples
from memspace.measures.values import Budget, Curvature
from memspace.passes.batching import examples_at_once
from memspace.passes.linearise import function_of_parameters
from memspace.passes.linearised import quiet
from memspace.passes.space import ParameterSpace
from memspace.task.checks import evaluating
from memspace.task.data import move
from memspace.task.likelihood import Likelihood
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["Bends", "bends_along", "curvature_at_random", "curvature_of_stiff", "relative_curvature"]

EXAMPLES, DIRECTIONS = 64, 3  # read, and lines of each kind
SEED = 1500  # offset of the draws
State = dict[str, Tensor]
Outputs = Callable[[State], Tensor]
LEAST = 1e-10  # of the largest squared velocity, below which a line does not move the predictions


@dataclass(frozen=True)
class Bends:
    """Relative curvature along lines of the weights, nats^-½.

    Args:
        stiff: along the leading eigenvectors of F.
        random: along isotropic random directions.
        examples: whose predictions were read.
    """

    stiff: tuple[float, ...]
    random: tuple[float, ...]
    examples: int


def relative_curvature(
    likelihood: Likelihood, f: Tensor, y: Tensor, velocity: Tensor, acceleration: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute |f̈⊥|/|ḟ|² of curves in the space of predictions.

    Args:
        likelihood: the output law, whose H is the inner product.
        f: (n, ..., C) outputs.
        y: labels, which say what positions count.
        velocity: (k, n, ..., C) ḟ of k curves.
        acceleration: (k, n, ..., C) f̈.

    Returns:
        two tensors (k,): the curvature, nats^-½ (NaN where a curve does not move), and |ḟ|², nats.
    """
    f, velocity, acceleration = f.double(), velocity.double(), acceleration.double()
    weight = likelihood.weight(f, y).unsqueeze(-1)
    turned = [weight * torch.stack([likelihood.fisher_matvec(f, a) for a in x]) for x in (velocity, acceleration)]
    n = len(f)
    squared = (turned[0] * velocity).flatten(1).sum(1) / n
    along = (turned[0] * acceleration).flatten(1).sum(1) / n
    whole = (turned[1] * acceleration).flatten(1).sum(1) / n
    across = (whole - along.square() / squared).clamp_min(0)
    return across.sqrt() / squared, squared


def bends_along(task: Task, space: ParameterSpace, directions: Tensor, index: Tensor) -> Tensor:
    """Compute the relative curvature along lines through the model's weights, by forward mode twice.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        directions: (k, P), of any length.
        index: places of the training examples to read, (n,).

    Returns:
        (k,) nats^-½, exact up to rounding (with rectifiers: inside their linear region); NaN for a line along which the
        predictions do not move.
    """
    at = {name: p.detach() for name, p in space.parameters(task.model).items()}
    vectors = space.unpack(directions.to(task.dtype))
    parts: list[tuple[Tensor, ...]] = []
    with torch.no_grad(), evaluating(task.model):
        for part in task.train.batches(examples_at_once(task), index):
            f = function_of_parameters(task, move(part.x, task.device, task.dtype))
            parts.append((f(at).detach(), move(part.y, task.device), *_curves(f, at, vectors)))
    outputs, y = (torch.cat([p[which] for p in parts]) for which in (0, 1))
    velocity, acceleration = (torch.cat([p[which] for p in parts], 1) for which in (2, 3))
    curvature, squared = relative_curvature(task.likelihood, outputs, y, velocity, acceleration)
    return torch.where(squared > LEAST * squared.max(), curvature, torch.nan)


def _curves(f: Outputs, at: State, vectors: State) -> tuple[Tensor, Tensor]:
    """ḟ and f̈ at t = 0 of t ↦ f(θ + tv), for every v of a stack, (k, B, ..., C)."""

    def curve(v: State) -> tuple[Tensor, Tensor]:
        def velocity(params: State) -> Tensor:
            moved: Tensor = jvp(f, (params,), (v,))[1]
            return moved

        first, second = jvp(velocity, (at,), (v,))[:2]
        return first.detach(), second.detach()

    try:
        with quiet():
            first, second = vmap(curve)(vectors)
    except (NotImplementedError, RuntimeError, ValueError):  # an operation that cannot be mapped: one after another
        count = len(next(iter(vectors.values())))
        pairs = [curve({name: v[k] for name, v in vectors.items()}) for k in range(count)]
        first, second = (torch.stack([pair[which] for pair in pairs]) for which in (0, 1))
    return first, second


def _cost(facts: Facts) -> Stage:
    why = "curvature of the predictions along lines of the weights"
    return Stage("second derivatives", min(facts.n, EXAMPLES), 12 * DIRECTIONS, 0, 0, why)


@provides(cost=_cost)
def bends(task: Task, space: ParameterSpace, curvature: Curvature, budget: Budget) -> Bends | Absent:
    """Follow the predictions along the leading eigenvectors of F and along random lines."""
    index = drawn_examples(len(task.train), EXAMPLES, budget.seed + SEED)
    generator = torch.Generator().manual_seed(budget.seed + SEED + 1)
    stiff = curvature.metric.eigh(DIRECTIONS).vectors
    random = torch.randn(DIRECTIONS, space.size, generator=generator, dtype=torch.float64).to(stiff)
    directions = torch.nn.functional.normalize(torch.cat([stiff, random]), dim=1)
    every = bends_along(task, space, directions, index)
    kinds = [tuple(k[torch.isfinite(k)].tolist()) for k in (every[: len(stiff)], every[len(stiff) :])]
    if not all(kinds):
        return Absent("no prediction depends on the weights", "read a network whose outputs follow its weights")
    return Bends(kinds[0], kinds[1], len(index))


@measure(
    "curvature.stiff",
    chapter="predictors",
    unit="nats^-½",
    estimator=f"mean |f̈⊥|/|ḟ|² along the {DIRECTIONS} leading eigenvectors of F",
    source="bates1980, efron1975",
)
def curvature_of_stiff(bends: Bends) -> Value:
    """How much the predictions bend along the stiffest directions of the weights."""
    return _mean(bends.stiff, bends.examples)


@measure(
    "curvature.random",
    chapter="predictors",
    unit="nats^-½",
    estimator=f"mean |f̈⊥|/|ḟ|² along {DIRECTIONS} isotropic random directions of the weights",
    source="bates1980, efron1975",
)
def curvature_at_random(bends: Bends) -> Value:
    """How much the predictions bend along a line of the weights drawn at random."""
    return _mean(bends.random, bends.examples)


def _mean(curvatures: tuple[float, ...], examples: int) -> Value:
    """The mean over few lines, each of which is exact; their range in place of an interval."""
    note = f"{min(curvatures):.3g} to {max(curvatures):.3g} over {len(curvatures)} lines"
    return Value(sum(curvatures) / len(curvatures), examples, note=note)
