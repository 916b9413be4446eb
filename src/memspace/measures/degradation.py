"""Predicted against measured cost of a change of the weights, and why the two differ.

To second order KL(p_θ ‖ p_{θ+δ}) ≈ ½ δᵀFδ. With f the outputs and Jδ their differential,

    KL / ½δᵀFδ  =  [KL(f ‖ f+Jδ) / ½δᵀFδ]  ×  [KL(f ‖ f(θ+δ)) / KL(f ‖ f+Jδ)],

a factor of the *output law* (a softmax that saturates) times one of the *network* (outputs that do not follow their
differential). The change −δ separates odd orders (the third) from even ones (the fourth).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from memspace.metric.metric import FisherMetric
from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["Degradation", "degradation"]

HOLDS = (0.9, 1.1)  # measured over predicted
CERTAIN = 0.99


@dataclass(frozen=True)
class Degradation:
    """The cost of one change δ of the weights, predicted and measured on the same examples; nats per example.

    Args:
        predicted: ½δᵀFδ by name of the metric; ``exact`` is the exact one.
        kl: measured divergence.
        kl_error: its standard error over examples.
        loss: change of the loss.
        law: factor of the output law in kl over the exact prediction.
        network: factor of the network; the product of both is :attr:`ratio`.
        odd: (KL(δ) − KL(−δ))/2 over the exact prediction.
        even: (KL(δ) + KL(−δ))/2 over the exact prediction; even − 1 is the share of orders from the fourth on.
        certain: share of examples whose top class has a probability above 0.99 after the change; NaN without classes.
    """

    predicted: Mapping[str, float]
    kl: float
    kl_error: float
    loss: float
    law: float
    network: float
    odd: float
    even: float
    certain: float

    @property
    def ratio(self) -> float:
        """Measured over the exact second order."""
        return self.kl / self.predicted["exact"] if self.predicted["exact"] > 0 else math.nan

    @property
    def holds(self) -> bool:
        """Whether the second order is accurate to a tenth."""
        return HOLDS[0] <= self.ratio <= HOLDS[1]

    @property
    def reason(self) -> str:
        """Why prediction and measurement differ most, from the measured factors."""
        if math.isnan(self.ratio):
            return ""
        if self.holds:
            apart = not all(HOLDS[0] <= v <= HOLDS[1] for v in (self.law, self.network))
            return "the law's and the network's factors cancel: agreement by accident" if apart else ""
        by_law, by_network = (abs(math.log(max(v, 1e-12))) for v in (self.law, self.network))
        if by_law >= by_network:
            return (
                "the output law saturates: its divergence grows slower than the square"
                if self.law < 1
                else ("the output law: its divergence grows faster than the square")
            )
        order = "odd orders" if abs(self.odd) > abs(self.even - 1) else "even orders above the second"
        return f"the network bends: outputs leave their differential, mostly by {order}"


def degradation(
    task: Task,
    space: ParameterSpace,
    change: Tensor,
    metrics: Mapping[str, FisherMetric],
    *,
    index: Tensor | None = None,
) -> Degradation:
    """Predict to second order, and measure, what a change of the weights costs on training examples.

    Args:
        task: the network and its training data.
        space: the parameters.
        change: (P,) δ.
        metrics: further predictions ½ δᵀF̂δ, by name; built on the same examples for a fair comparison.
        index: (m,) training examples; None: all.

    Returns:
        prediction, measurement, and the factors by which they differ.
    """
    law, theta = task.likelihood, space.flat(task.model)
    d = FisherOperator(task, space, index=index).directional(change)
    f, y, moved = d["f"].double(), d["y"], d["moved"].double()
    weight = law.weight(f, y)

    def kl_to(g: Tensor) -> Tensor:
        return (law.kl(f, g.double()) * weight).reshape(len(f), -1).sum(1)

    quadratic = 0.5 * float(((law.fisher_matvec(f, moved) * moved).sum(-1) * weight).sum()) / len(f)
    there, _ = outputs(task, task.train, state=space.unpack(theta + change.to(theta)), index=index)
    back, _ = outputs(task, task.train, state=space.unpack(theta - change.to(theta)), index=index)
    kl, linear, opposite = kl_to(there), float(kl_to(f + moved).mean()), float(kl_to(back).mean())
    mean, safe = float(kl.mean()), max(quadratic, 1e-300)
    predicted = {"exact": quadratic}
    v = change.double()
    for name, metric in metrics.items():
        predicted[name] = 0.5 * float(metric.inner(v, v))
    top = float((law.mean(there).amax(-1) > CERTAIN).double().mean()) if law.classifies else math.nan
    return Degradation(
        predicted,
        mean,
        float(kl.std()) / math.sqrt(len(kl)),
        float((law.nll(there.double(), y) - law.nll(f, y)).sum()) / len(f),
        linear / safe,
        mean / max(linear, 1e-300),
        (mean - opposite) / 2 / safe,
        (mean + opposite) / 2 / safe,
        top,
    )
