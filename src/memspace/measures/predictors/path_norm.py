"""The path norm: the weight of all paths from the inputs to the outputs, where a network is made of such paths."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.measures.declaration import measure, provides
from memspace.measures.predictors.roots import log_root
from memspace.measures.predictors.values import LowerMargin
from memspace.task.checks import untouched
from memspace.task.functional import functional_call
from memspace.task.gradients import operations
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["PathNorm"]

# Sums, products with weights, what is the identity on positive numbers, pooling, and what only moves numbers.
ALLOWED = re.compile(
    "Add|Addmm|Mm|Convolution|Relu|LeakyRelu|Threshold|Sum|Mean|Amax|MaxPool.*|AvgPool.*|AdaptiveMaxPool.*|"
    "AdaptiveAvgPool.*|T|Transpose|Permute|View|UnsafeView|ReshapeAlias|Reshape|Squeeze|Unsqueeze|Expand|Repeat|Clone|"
    "Alias|Select|Slice|Unbind|Split|UnsafeSplit|SplitWithSizes|Stack|Cat|ConstantPadNd|ToCopy|.*AccumulateGrad"
)


@dataclass(frozen=True)
class PathNorm:
    """Σ over paths of the squared product of a path's weights.

    Args:
        value: of all paths into all outputs.
    """

    value: float


@provides()
def path_norm(task: Task) -> PathNorm | Absent:
    """Sum the outputs of an input of ones through the network with squared parameters (Neyshabur et al. 2015)."""
    x = task.train.batch([0]).x
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return _undefined("inputs that are no real numbers")
    state = {n: b.double() if b.is_floating_point() else b for n, b in task.model.named_buffers()}
    state |= {n: p.detach().double().square().requires_grad_() for n, p in task.model.named_parameters()}
    with untouched(task.model), torch.enable_grad():
        f = functional_call(task.model, state, (torch.ones_like(x, dtype=torch.float64, device=task.device),))
        kinds = {re.sub(r"Backward\d*$", "", node.name()) for node in operations(f)}
    others = sorted(kind for kind in kinds if not ALLOWED.fullmatch(kind))
    return _undefined(", ".join(others)) if others else PathNorm(float(f.detach().sum()))


def _undefined(what: str) -> Absent:
    reason = f"the outputs are no sums over paths: the network has {what}"
    return Absent(reason, "read a network of linear layers, convolutions, pooling and ReLU")


@measure(
    "norms.path",
    chapter="predictors",
    unit="1",
    estimator="ln √(Σ over paths Π w² / n), by a forward pass with squared parameters",
    source="neyshabur2015, dziugaite2020",
    better="smaller",
)
def path(task: Task, paths: PathNorm) -> Value | Absent:
    """Weight of all paths from inputs to outputs, unchanged when ReLU units are rescaled."""
    return log_root(paths.value, task)


@measure(
    "norms.path_over_margin",
    chapter="predictors",
    unit="1",
    estimator="ln √(Σ over paths Π w² / (γ² n)), γ the 10th percentile of the margins",
    source="neyshabur2015, dziugaite2020",
    better="smaller",
)
def path_over_margin(task: Task, paths: PathNorm, margin: LowerMargin) -> Value | Absent:
    """Weight of all paths for each unit of margin."""
    return log_root(paths.value, task, -2 * math.log(margin.value))
