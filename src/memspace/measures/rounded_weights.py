"""What rounding the weights costs: divergence predicted by F and measured, accuracy, and each layer alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import measure, provides, truth
from memspace.measures.robustness import split
from memspace.measures.rounding import rounded
from memspace.measures.sensitivity import LayerCost, layer_costs, measured_kl, predicted_kl
from memspace.measures.values import Budget, TrainingOutputs
from memspace.measures.weight_noise import moved_examples
from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.task.data import Data
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["BITS", "ROUNDING_MEASURES", "LayersRounded", "WeightsRounded", "accuracy_change"]

BITS = (8, 4)
EXAMPLES = 2000  # training examples whose predictions are compared, at most
LAYER_BITS = (4, 3, 2)  # few enough that layers differ
LAYER_EXAMPLES = 500


@dataclass(frozen=True)
class WeightsRounded:
    """All weights rounded at once.

    Args:
        predicted: bits → (m,) ½ δᵀFδ of the change δ, nats per example.
        measured: bits → (m,) KL from the network to its rounded copy, nats per example.
        right: bits → (k,) 1 where the rounded network is right; empty without classes.
        right_before: (k,) 1 where the network itself is right; None without classes.
        judged_on: ``"test"`` or ``"training"`` examples, for ``right``.
    """

    predicted: Mapping[int, Tensor]
    measured: Mapping[int, Tensor]
    right: Mapping[int, Tensor]
    right_before: Tensor | None
    judged_on: str


@dataclass(frozen=True)
class LayersRounded:
    """Cost of rounding each layer alone.

    Args:
        costs: bits → one entry per layer.
    """

    costs: Mapping[int, tuple[LayerCost, ...]]


def _right(task: Task, data: Data, state: dict[str, Tensor] | None) -> Tensor:
    """Per example 1 where the prediction is right, for sequences the share of right positions, (n,)."""
    law = task.likelihood
    f, y = outputs(task, data, state=state)
    right, weight = law.hits(f, y).double(), law.weight(f, y).double()
    right = right.mean(-1) if right.dim() > weight.dim() else right * weight
    return right.reshape(len(f), -1).sum(1) / weight.reshape(len(f), -1).sum(1).clamp_min(1)


def _cost(facts: Facts) -> list[Stage]:
    stages = [Stage("rounding", min(facts.n, EXAMPLES), 1 + 2 * len(BITS), 0, 0, "weights rounded to 8 and 4 bits")]
    if facts.classifies:
        stages.append(Stage("rounded accuracy", facts.judged, 1 + len(BITS), 0, 0, "accuracy after rounding"))
    return stages


@provides(cost=_cost)
def weights_rounded(task: Task, space: ParameterSpace, training: TrainingOutputs, budget: Budget) -> WeightsRounded:
    """Round all weights; predict and measure the cost."""
    index, theta = moved_examples(training.n, budget), space.flat(task.model)
    operator = FisherOperator(task, space, index=index)
    before, y = outputs(task, task.train, index=index)
    data, word = split(task.test, task.train)
    classifies = task.likelihood.classifies
    right_before = _right(task, data, None) if classifies else None
    predicted, measured, right = {}, {}, {}
    for bits in BITS:
        flat = rounded(task, space, bits)
        predicted[bits] = predicted_kl(operator, task, flat - theta)
        measured[bits] = measured_kl(task, space, flat, before, y, index)
        if classifies:
            right[bits] = _right(task, data, space.unpack(flat))
    return WeightsRounded(predicted, measured, right, right_before, word)


def _layer_cost(facts: Facts) -> Stage | None:
    if facts.blocks < 2:
        return None
    m = min(facts.n, EXAMPLES)
    part = len(range(0, m, -(-m // LAYER_EXAMPLES)))
    return Stage("rounding by layer", part, len(LAYER_BITS) * (1 + 2 * facts.blocks), 0, 0, "each layer rounded alone")


@provides(cost=_layer_cost)
def layers_rounded(
    task: Task, space: ParameterSpace, training: TrainingOutputs, budget: Budget
) -> LayersRounded | Absent:
    """Round each layer alone; predict and measure the cost."""
    if len(space.blocks) < 2:
        return Absent()
    index = moved_examples(training.n, budget)
    part = index[:: -(-len(index) // LAYER_EXAMPLES)]
    costs = {bits: layer_costs(task, space, rounded(task, space, bits), part, budget.progress) for bits in LAYER_BITS}
    return LayersRounded(costs) if any(costs.values()) else Absent()


def accuracy_change(bits: int) -> str:
    """Return the name of the measure of the accuracy that rounding costs.

    Args:
        bits: of a weight.

    Returns:
        the name.
    """
    return f"robustness.quantised_{bits}bit.accuracy_change"


def _measures_at(bits: int) -> tuple[Callable[..., Value | None], ...]:
    """Declare the measures of rounding to some number of bits."""
    name, how = f"robustness.quantised_{bits}bit", f"weights rounded to {bits} bits, one scale per row"
    chapter = "robustness"

    @measure(f"{name}.kl_predicted", chapter=chapter, unit="nats", estimator=f"½ δᵀFδ of the change δ; {how}")
    def predicted(weights: WeightsRounded) -> Value:
        """Divergence that rounding makes, predicted by the Fisher metric."""
        return Value.mean(weights.predicted[bits], lower=0.0)

    @measure(f"{name}.kl", chapter=chapter, unit="nats", estimator=how, better="smaller")
    def measured(weights: WeightsRounded) -> Value:
        """Divergence that rounding makes, measured."""
        return Value.mean(weights.measured[bits], lower=0.0)

    over = f"measured over predicted KL; {how}"

    @measure(f"{name}.kl_ratio", chapter=chapter, unit="1", estimator=over, shown="ratio")
    def ratio(weights: WeightsRounded) -> Value:
        """How well the Fisher metric predicts what rounding costs."""
        return Value.ratio(weights.measured[bits], weights.predicted[bits])

    paired = "accuracy of the rounded network less the original's, paired"

    @measure(accuracy_change(bits), chapter=chapter, unit="1", estimator=paired, better="larger", shown="share")
    @truth()
    def change(weights: WeightsRounded) -> Value | None:
        """What rounding costs in accuracy."""
        if weights.right_before is None:
            return None
        return Value.change(weights.right_before, weights.right[bits], how=f"{weights.judged_on} examples; {how}")

    return predicted, measured, ratio, change


ROUNDING_MEASURES = tuple(made for bits in BITS for made in _measures_at(bits))
