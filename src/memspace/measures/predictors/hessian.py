"""Curvature of the training loss at the weights: the Hessian's largest eigenvalue and trace, and relative flatness."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.measures.declaration import measure, provides
from memspace.measures.predictors.loss_surface import LossSurface
from memspace.measures.values import Budget
from memspace.metric.krylov import Eigenpairs, top_eigenpairs
from memspace.metric.metric import Estimate
from memspace.metric.trace import xtrace
from memspace.task.checks import evaluating
from memspace.task.data import call_model
from memspace.task.likelihood import Likelihood
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["LastLayerWeights", "LossCurvature", "relative_flatness", "weighted_curvatures"]

PRODUCTS, PROBES = 12, 10  # Hessian products for the largest eigenvalue, and for the trace
BLOCK = 2  # vectors that Lanczos starts from: one alone may be nearly orthogonal to the leading eigenvector
RESIDUAL = 0.05  # ‖∇²L v − λv‖/λ up to which an eigenvalue has converged; its error goes with the square


@dataclass(frozen=True)
class LossCurvature:
    """The Hessian of the training loss by its products.

    Args:
        top: the largest eigenvalue.
        trace: with its error.
    """

    top: Eigenpairs
    trace: Estimate


@dataclass(frozen=True)
class LastLayerWeights:
    """The linear layer that gives the outputs, f = W φ + b.

    Args:
        features: (N, d) its inputs φ, one row a prediction that counts, float64.
        outputs: (N, C) f.
        weight: (C, d) W.
    """

    features: Tensor
    outputs: Tensor
    weight: Tensor


@provides()
def loss_curvature(surface: LossSurface, budget: Budget) -> LossCurvature:
    """Multiply the Hessian of the training loss by vectors."""
    generator = torch.Generator().manual_seed(budget.seed + 44)
    size = len(surface.theta)
    start = torch.randn(BLOCK, size, generator=generator, dtype=torch.float64).to(surface.theta)
    with surface.hessian() as product:
        top = top_eigenpairs(product, start, 1, tolerance=RESIDUAL, limit=PRODUCTS)
        trace = xtrace(lambda stack: product(stack).cpu(), size, PROBES, generator)
    return LossCurvature(top, trace)


@provides()
def last_layer(task: Task, surface: LossSurface) -> LastLayerWeights | Absent:
    """Read inputs and outputs of the last linear layer on the sample."""
    linear = [m for m in task.model.modules() if isinstance(m, nn.Linear)]
    reason = "the outputs are not those of a linear layer"
    absent = Absent(reason, "read a network that ends in one")
    if not linear:
        return absent
    layer, inputs = linear[-1], []
    handle = layer.register_forward_hook(lambda _module, args, _output: inputs.append(args[0].detach()))
    try:
        with torch.no_grad(), evaluating(task.model):
            f = call_model(task.model, surface.probe.x)
    finally:
        handle.remove()
    if len(inputs) != 1 or inputs[0].shape[:-1] != f.shape[:-1] or layer.out_features != f.shape[-1]:
        return absent
    bias = 0.0 if layer.bias is None else layer.bias.detach().double()
    features, weight = inputs[0].double(), layer.weight.detach().double()
    if not torch.allclose(features @ weight.t() + bias, f.double(), rtol=1e-3, atol=1e-4 * float(f.abs().max())):
        return absent
    counts = surface.probe.weight.flatten() > 0
    return LastLayerWeights(features.flatten(0, -2)[counts], f.double().flatten(0, -2)[counts], weight)


def weighted_curvatures(law: Likelihood, layer: LastLayerWeights) -> Tensor:
    """Compute Σ_{s,s'} ⟨w_s, w_s'⟩ tr H_{ss'} for every prediction, H the Hessian of its loss in the layer's weights.

    H_{ss'} = h_{ss'} φφᵀ, so the sum is ‖φ‖² tr(h W Wᵀ), with h the Fisher information of the output law. For laws in
    their natural parameters, as all built-in ones are, it is the second derivative of the loss.

    Args:
        law: the output law.
        layer: the last one.

    Returns:
        (N,) nats.
    """
    w = layer.weight
    if w.shape[1] > w.shape[0]:
        values, vectors = torch.linalg.eigh(w @ w.t())
        w = vectors * values.clamp_min(0).sqrt()
    total = torch.zeros(len(layer.outputs), dtype=torch.float64, device=w.device)
    for column in w.t():
        u = column.expand_as(layer.outputs)
        total += (u * law.fisher_matvec(layer.outputs, u)).sum(-1)
    return total * layer.features.square().sum(-1)


@measure(
    "loss.largest_eigenvalue",
    chapter="predictors",
    unit="nats/weight units²",
    estimator=f"λ_max of ∇²L, Lanczos with exact products, at most {PRODUCTS}",
    source="keskar2017, golub2010",
    better="smaller",
)
def largest_eigenvalue(surface: LossSurface, curvature: LossCurvature) -> Value:
    """Largest curvature of the training loss."""
    top = curvature.top
    value, residual = float(top.values[0]), float(top.residuals[0])
    note = "the interval holds an eigenvalue; a larger one is unlikely" if top.converged else "Lanczos did not converge"
    ends = (value, value * (1 + residual))  # Lanczos approaches the largest from below
    how = f"{top.products} products, {surface.how}"
    return Value(value, surface.examples, ends, how=how, reliable=top.converged, note=note)


@measure(
    "loss.hessian_trace",
    chapter="predictors",
    unit="nats/weight units²",
    estimator=f"tr ∇²L, XTrace with {PROBES} exact products",
    source="epperly2024, petzka2021",
    better="smaller",
)
def hessian_trace(surface: LossSurface, curvature: LossCurvature) -> Value:
    """Sum of the curvatures of the training loss over all directions."""
    trace = curvature.trace
    return Value.with_error(trace.value, trace.standard_error, surface.examples, df=trace.df, how=surface.how)


@measure(
    "loss.relative_flatness",
    chapter="predictors",
    unit="nats",
    estimator="mean ‖φ‖² tr(h W Wᵀ) of the last layer; `neurons`: of inputs scaled to unit deviation",
    source="petzka2021",
    better="smaller",
)
def relative_flatness(task: Task, surface: LossSurface, layer: LastLayerWeights) -> dict[str, Value]:
    """Curvature of the training loss in the last layer's weights, weighed by their inner products.

    It is unchanged where a layer is scaled and the next one back; with ``neurons``, where single neurons are. Neurons
    that are the same for all examples are left out there.
    """
    spread = layer.features.std(0, correction=0)
    live = spread > 1e-12 * layer.features.abs().amax(0)  # a unit that never changes is a bias
    scaled = LastLayerWeights(
        layer.features[:, live] / spread[live], layer.outputs, layer.weight[:, live] * spread[live]
    )
    count = len(surface.probe.weight.flatten()) // surface.examples
    positions = torch.arange(surface.probe.weight.numel(), device=spread.device) // count
    groups = positions[surface.probe.weight.flatten() > 0].cpu().numpy() if count > 1 else None
    values = {}
    for name, reading in (("layer", layer), ("neurons", scaled)):
        samples = weighted_curvatures(task.likelihood, reading).cpu()
        values[name] = Value.mean(samples, groups=groups, lower=0.0, how=surface.how)
    return values
