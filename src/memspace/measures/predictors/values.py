"""What the predictors of generalisation share: weight matrices, margins, gradients, other networks, the loss curve."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import provides
from memspace.measures.values import Budget, TrainingOutputs
from memspace.passes.collect import CollectRows
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.space import ParameterSpace
from memspace.task.laws.classes import soft
from memspace.task.task import Task
from memspace.value import Absent

__all__ = [
    "GradientSample",
    "LowerMargin",
    "Margins",
    "OtherParameters",
    "Predictions",
    "Sisters",
    "TrainingCurve",
    "Vector",
    "WeightChanges",
    "WeightMatrices",
    "WeightMatrix",
    "drawn_examples",
    "predictions_of",
]

EXAMPLES = 256  # whose gradients are compared with one another
SEED = 1800  # offset of the draw of examples
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class WeightMatrix:
    """A parameter of two axes or more, as the matrix that it multiplies by.

    Args:
        name: of the parameter.
        now: (out, in) float64 on the CPU; the kernels of a convolution are flattened, (out, in·k·k).
        start: the same at the start of the training; None: not known.
        embedding: whether it is a table of vectors, one a row, that inputs choose from.
    """

    name: str
    now: Tensor
    start: Tensor | None = None
    embedding: bool = False

    @cached_property
    def singular(self) -> Tensor:
        """(min(out, in),) singular values, the largest first."""
        values: Tensor = torch.linalg.svdvals(self.now)
        return values

    @property
    def spectral(self) -> float:
        """Spectral norm ‖W‖₂, the largest singular value."""
        return float(self.singular[0])

    @property
    def frobenius(self) -> float:
        """Frobenius norm ‖W‖_F."""
        return float(torch.linalg.vector_norm(self.now))


@dataclass(frozen=True)
class WeightMatrices:
    """All weight matrices among the parameters read, in the model's order; a shared one counts once.

    A recurrent layer's matrices are as torch stores them: those of its gates lie one below the other.

    Args:
        matrices: one or more.
    """

    matrices: tuple[WeightMatrix, ...]


@dataclass(frozen=True)
class Vector:
    """A parameter of one axis: a bias, a scale.

    Args:
        name: of the parameter.
        now: (d,) float64 on the CPU.
        start: the same at the start of the training; None: not known.
    """

    name: str
    now: Tensor
    start: Tensor | None = None


@dataclass(frozen=True)
class OtherParameters:
    """Parameters that are no matrices.

    Args:
        vectors: in the model's order; may be empty.
    """

    vectors: tuple[Vector, ...]


@dataclass(frozen=True)
class WeightChanges:
    """How far the training moved the parameters.

    Args:
        matrices: W − W₀ of every weight matrix.
        squared: ‖θ − θ₀‖² over all parameters read.
    """

    matrices: tuple[WeightMatrix, ...]
    squared: float


@dataclass(frozen=True)
class Margins:
    """Logit margins f_y − max_{k≠y} f_k of the training labels.

    Args:
        values: (n,) float64; positions of sequences count one by one, padded ones not at all.
        example: (n,) the example of each, where an example holds several positions; else None.
    """

    values: Tensor
    example: Tensor | None = None

    @property
    def lower(self) -> float:
        """The 10th percentile."""
        return float(np.quantile(self.values.numpy(), 0.1))


@dataclass(frozen=True)
class Predictions:
    """Outputs and labels of the predictions that count, one below the other.

    Args:
        f: (m, C) outputs, float64.
        y: (m, ...) labels.
        counted: which of all positions they are.
        example: (m,) the example of each, where an example holds several positions; else None.
    """

    f: Tensor
    y: Tensor
    counted: Tensor
    example: Tensor | None


@dataclass(frozen=True)
class LowerMargin:
    """The margin that norms are divided by.

    Args:
        value: 10th percentile of the margins, positive.
    """

    value: float


@dataclass(frozen=True)
class GradientSample:
    """Gradients of the losses of some training examples, by their inner products.

    The loss of an example counts per prediction: the mean over all examples is the mean training loss.

    Args:
        index: (m,) positions of the examples in the training data.
        gram: (L, m, m) float64 inner products ⟨g_i, g_j⟩, block by block; they sum to the whole.
        weights: (L, m) float64 inner products ⟨g_i, θ⟩.
        norms: (L,) float64 squared norms ‖θ‖².
        blocks: names of the L blocks.
    """

    index: Tensor
    gram: Tensor
    weights: Tensor
    norms: Tensor
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class Sisters:
    """This network and others that differ in the seed alone, on the same training examples.

    Args:
        hidden: (m, d) representation by this network, one row an example or a position.
        outputs: (m', C) outputs of this network, one row a prediction.
        others: the same two of each of the other networks, one or more.
    """

    hidden: Tensor
    outputs: Tensor
    others: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class TrainingCurve:
    """The mean training loss while the network was trained.

    Args:
        step: optimiser steps at which the loss was evaluated, increasing.
        loss: mean training loss at each, nats per prediction.
        reached: the step at which the target was reached; None: it was not.
        epochs: that the training took up to its last step.
    """

    step: tuple[int, ...]
    loss: tuple[float, ...]
    reached: int | None
    epochs: float


@provides()
def weight_matrices(task: Task, space: ParameterSpace) -> WeightMatrices | Absent:
    """Read the parameters of two axes or more."""
    modules = dict(task.model.named_modules())
    start = _start(task)
    matrices = []
    for name, parameter in space.parameters(task.model).items():
        module = modules.get(name.rpartition(".")[0])
        if parameter.dim() > 1 and not parameter.is_complex():
            then = start.get(name)
            before = None if then is None or then.shape != parameter.shape else _matrix(then, module)
            embedding = isinstance(module, nn.Embedding | nn.EmbeddingBag)
            matrices.append(WeightMatrix(name, _matrix(parameter.detach(), module), before, embedding))
    if not matrices:
        return Absent("no parameter is a matrix", "read a network that has layers with weights")
    return WeightMatrices(tuple(matrices))


@provides()
def other_parameters(task: Task, space: ParameterSpace) -> OtherParameters:
    """Read the parameters of one axis."""
    start = _start(task)
    vectors = []
    for name, parameter in space.parameters(task.model).items():
        if parameter.dim() < 2 and not parameter.is_complex():
            then = start.get(name)
            before = None if then is None or then.shape != parameter.shape else then.double().cpu().flatten()
            vectors.append(Vector(name, parameter.detach().double().cpu().flatten(), before))
    return OtherParameters(tuple(vectors))


@provides()
def weight_changes(weights: WeightMatrices, others: OtherParameters) -> WeightChanges | Absent:
    """Subtract the parameters at the start of the training."""
    matrices, squared = [], 0.0
    parameters: tuple[WeightMatrix | Vector, ...] = (*weights.matrices, *others.vectors)
    for parameter in parameters:
        if parameter.start is None:
            reason = "the weights at the start of the training are not known"
            return Absent(reason, "record the training: memspace.watch, or Task(run=...)")
        change = parameter.now - parameter.start
        squared += float(change.square().sum())
        if isinstance(parameter, WeightMatrix):
            matrices.append(WeightMatrix(parameter.name, change, embedding=parameter.embedding))
    return WeightChanges(tuple(matrices), squared)


@provides()
def margins(task: Task, outputs: TrainingOutputs) -> Margins | Absent:
    """Subtract the largest other logit from the label's."""
    law, f, y = task.likelihood, outputs.f, outputs.y
    if law.boundary is None or not law.classifies:
        return Absent("this output law knows no boundary between decisions", "read a classifier")
    if soft(f, y) and not law.independent:
        return Absent("labels are distributions over the classes", "give one class for each example")
    rows = predictions_of(f, y, outputs.weight)
    return Margins(law.boundary.gaps(rows.f, rows.y).amin(-1).cpu(), rows.example)


@provides()
def lower_margin(margins: Margins) -> LowerMargin | Absent:
    """Take the margins' 10th percentile, where it is positive."""
    if margins.lower > 0:
        return LowerMargin(margins.lower)
    reason = "a tenth of the training examples or more are misclassified: their margin normalises nothing"
    return Absent(reason, "train the network longer")


def _gradient_cost(facts: Facts) -> Stage:
    examples = min(EXAMPLES, facts.n)
    forwards, backwards = facts.read(1, facts.proofs(examples, 1))
    return Stage("gradients of examples", examples, forwards, backwards, 0, "how gradients of examples agree")


@provides(cost=_gradient_cost)
def gradient_sample(task: Task, space: ParameterSpace, outputs: TrainingOutputs, budget: Budget) -> GradientSample:
    """Multiply the gradients of some training examples with one another and with the weights."""
    memory = budget.memory // (4 * space.size * torch.finfo(task.dtype).bits // 8 + 1)
    index = drawn_examples(len(task.train), min(EXAMPLES, max(16, memory)), budget.seed + SEED)
    collect = CollectRows(space.blocks, "empirical", len(index))
    run_pass(task, space, [collect], PassOptions(index=index, progress=budget.progress, what="gradients of examples"))
    rows = collect.finish()
    share = outputs.n / outputs.count  # 1 over predictions per example
    theta = space.flat(task.model).double()
    gram = torch.stack([rows.dot(rows, b) for b in space.blocks]) * share**2
    weights = torch.stack([rows.part(b).times(b.view(theta)) for b in space.blocks]) * share
    norms = torch.stack([b.view(theta).square().sum() for b in space.blocks])
    return GradientSample(index, gram.cpu(), weights.cpu(), norms.cpu(), tuple(b.name for b in space.blocks))


@provides()
def sisters() -> Sisters | Absent:
    """Say that there are no other networks, where none are given."""
    reason = "no networks trained with other seeds were given"
    return Absent(reason, "train the network again with other seeds, as the zoo does")


@provides()
def training_curve() -> TrainingCurve | Absent:
    """Say that the loss curve is not known, where it is not given."""
    return Absent("the training loss was not followed", "train the network in the zoo, which follows it")


def drawn_examples(n: int, most: int, seed: int) -> Tensor:
    """Draw training examples without replacement.

    Args:
        n: training examples.
        most: how many to draw; all, where there are no more.
        seed: of the draw.

    Returns:
        (m,) their positions, increasing.
    """
    if n <= most:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most].sort().values


def predictions_of(f: Tensor, y: Tensor, weight: Tensor) -> Predictions:
    """Separate the positions of sequences, and leave out padded ones.

    Args:
        f: (n, ..., C) outputs.
        y: labels.
        weight: (n, ...) 1 where a prediction counts.

    Returns:
        the predictions that count, in order.
    """
    counted = (weight > 0).flatten()
    numbers = torch.arange(len(f), device=f.device).reshape(-1, *[1] * (weight.dim() - 1)).expand_as(weight).flatten()
    example = numbers[counted].cpu() if weight.dim() > 1 else None
    return Predictions(f.flatten(0, -2).double()[counted], y.flatten(0, f.dim() - 2)[counted], counted, example)


def _start(task: Task) -> dict[str, Tensor]:
    """The state dict at the start of the recorded training; empty where there is none."""
    return {} if task.run is None else dict(task.run.states[0])


def _matrix(parameter: Tensor, module: nn.Module | None) -> Tensor:
    """A parameter as (out, in), float64; transposed convolutions and tables of embeddings have their inputs first."""
    tensor = parameter.double().cpu()
    if isinstance(module, TRANSPOSED):
        tensor = tensor.transpose(0, 1)
    elif not isinstance(module, CONVOLUTIONS):
        while tensor.dim() > 2 and len(tensor) == 1:  # a table that is added to every example alike
            tensor = tensor[0]
    matrix = tensor.flatten(1)
    return matrix.t() if isinstance(module, nn.Embedding | nn.EmbeddingBag) else matrix
