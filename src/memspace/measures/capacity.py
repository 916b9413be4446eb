"""Capacity in use: bits by layer and by example, against the bits that the architecture stores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.measures.complexity import LN2, information_bits
from memspace.measures.damping import DampingChoice
from memspace.measures.declaration import measure, provides, table
from memspace.measures.values import Curvature, Leverage, SelfInfluence, StoredBits, TrainingOutputs
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task
from memspace.value import Value

__all__ = ["BitsByExample", "BitsByLayer"]


@dataclass(frozen=True)
class BitsByLayer:
    """Bits in use by layer.

    Args:
        bits: (L,) of each layer.
        total: their sum.
    """

    bits: list[float]
    total: float


@dataclass(frozen=True)
class BitsByExample:
    """What each training example adds to all others.

    Args:
        bits: (n,) −½ log2 det(I − SᵀVS).
        leverage: (n,) tr SᵀVS, the trace of the leverage in units of the output law's own spread.
    """

    bits: Tensor
    leverage: Tensor


@provides()
def bits_by_layer(curvature: Curvature, damping: DampingChoice) -> BitsByLayer:
    """Count the bits of each layer."""
    g = damping.value
    by_layer = curvature.layer_trace(lambda x: torch.log1p(x / g)) / (2 * LN2)
    return BitsByLayer(by_layer.tolist(), information_bits(curvature.metric, g))


@provides()
def bits_by_example(task: Task, outputs: TrainingOutputs, leverage: Leverage) -> BitsByExample:
    """Count the bits that each example adds given the others."""
    root = task.likelihood.fisher_root(outputs.f.double())
    spread = root.transpose(1, 2) @ leverage.matrices @ root
    identity = torch.eye(spread.shape[1], dtype=spread.dtype, device=spread.device)
    bits = -0.5 * torch.linalg.slogdet(identity - spread).logabsdet / LN2
    return BitsByExample(bits, spread.diagonal(dim1=1, dim2=2).sum(-1))


@measure("capacity.bits_used", chapter="capacity", unit="bits", estimator="½ Σ log2(1+λ/γ)", source="mackay1992")
def bits_used(curvature: Curvature, damping: DampingChoice, layers: BitsByLayer) -> Value:
    """Bits of the memory that are in use."""
    return _of_all(layers.total, curvature, damping)


@measure("capacity.bits_per_parameter", chapter="capacity", unit="bits", estimator="bits used over parameters")
def bits_per_parameter(
    curvature: Curvature, damping: DampingChoice, layers: BitsByLayer, space: ParameterSpace
) -> Value:
    """Bits in use for each parameter."""
    return _of_all(layers.total / space.size, curvature, damping)


@measure("capacity.bits_per_example", chapter="capacity", unit="bits", estimator="bits used over training examples")
def bits_per_example(curvature: Curvature, damping: DampingChoice, layers: BitsByLayer) -> Value:
    """Bits in use for each training example."""
    return _of_all(layers.total / curvature.n, curvature, damping)


def _of_all(bits: float, curvature: Curvature, damping: DampingChoice) -> Value:
    return Value(bits, curvature.n, how=curvature.estimator, reliable=damping.found)


@measure(
    "capacity.left",
    chapter="capacity",
    unit="bits",
    estimator="bits of random labels that the architecture stores (given) less the bits in use",
    better="larger",
)
def bits_left(curvature: Curvature, layers: BitsByLayer, stored: StoredBits) -> Value:
    """Capacity that is left in the memory."""
    note = "assumes that a bit of the data costs what a bit of a random label costs; the capacity is a lower bound"
    return Value(stored.bits - layers.total, curvature.n, how=f"{stored.bits:,.0f} bits stored", note=note)


@measure(
    "capacity.bits_given_the_rest",
    chapter="capacity",
    unit="bits",
    estimator="−½ log2 det(I − SᵀVS) per example: what each adds to all others",
    source="cook1982",
)
def bits_given_the_rest(examples: BitsByExample) -> Value:
    """Bits that an example adds to what the weights contain of all others, on average."""
    return Value.mean(examples.bits.tolist(), lower=0.0)


@table("layers", units={"bits": "bits", "self_influence": "nats"})
def layer_columns(
    curvature: Curvature, damping: DampingChoice, layers: BitsByLayer, influence: SelfInfluence
) -> dict[str, list[float]]:
    """Return what each layer holds."""
    g = damping.value
    return {
        "bits": layers.bits,
        "effective_parameters": curvature.layer_trace(lambda x: x / (x + g)).tolist(),
        "self_influence": influence.parts.sum(0).tolist(),
    }


@table("examples", units={"bits": "bits"})
def example_columns(examples: BitsByExample) -> dict[str, list[float]]:
    """Return what each example adds."""
    return {"leverage": examples.leverage.tolist(), "bits": examples.bits.tolist()}
