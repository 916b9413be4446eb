"""What pruning cost: accuracy and loss before and after on the same examples, with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from memspace.display import Shown
from memspace.measurement import Measurement, from_change, from_samples, from_share
from memspace.measures.compensated import Pruned
from memspace.measures.correct import correct, per_prediction
from memspace.measures.robustness import split
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["PrunedNetwork", "measured"]


@dataclass(frozen=True, repr=False)
class PrunedNetwork(Shown):
    """A network with weights set to zero, and what that cost.

    Args:
        method: how the weights were chosen.
        share: of the prunable weights kept.
        state: its state dict: all keys of the model's own, new tensors.
        measurements: accuracy and loss before and after, their paired change, the divergence, the weights removed.
    """

    method: str
    share: float
    state: dict[str, Tensor] = field(repr=False)
    measurements: tuple[Measurement, ...]

    def _title(self) -> str:
        return f"{self.share:.1%} of the weights kept by {self.method}"


def measured(task: Task, space: ParameterSpace, pruned: Pruned) -> tuple[Measurement, ...]:
    """Measure loss and, with classes, accuracy before and after pruning, their paired change, and the KL between both.

    On test data where there are any, else on training data; per example, with a sequence's positions averaged (KL:
    summed).

    Args:
        task: the network as it was.
        space: the parameters.
        pruned: the pruned weights.

    Returns:
        the measurements.
    """
    data, word = split(task.test, task.train)
    law = task.likelihood
    f, y = outputs(task, data)
    g, _ = outputs(task, data, state=space.unpack(pruned.flat))
    weight = law.weight(f, y).double()

    def each(values: Tensor) -> Tensor:
        flat, w = (values.double() * weight).reshape(len(f), -1), weight.reshape(len(f), -1)
        return per_prediction(flat.sum(1), w.sum(1))

    measurements = []
    least = -math.inf if law.continuous else 0.0  # a density's loss may be negative
    if law.classifies:
        was, now = each(correct(law, f, y)), each(correct(law, g, y))
        measurements += [
            from_share("pruning.accuracy_before", was, f"{word} accuracy before"),
            from_share("pruning.accuracy_after", now, f"{word} accuracy after"),
            from_change("pruning.accuracy_change", was, now, f"change of {word} accuracy, paired"),
        ]
    was, now = each(law.nll(f.double(), y)), each(law.nll(g.double(), y))
    nats = "nats per position" if f.dim() > 2 else "nats"
    kl = (law.kl(f.double(), g.double()) * weight).reshape(len(f), -1).sum(1)
    measurements += [
        from_samples("pruning.loss_before", was, nats, f"{word} loss before", lower=least),
        from_samples("pruning.loss_after", now, nats, f"{word} loss after", lower=least),
        from_samples("pruning.loss_change", now - was, nats, f"change of {word} loss, paired"),
        from_samples("pruning.kl", kl, "nats", f"KL from the network to the pruned one, {word} data", lower=0.0),
    ]
    zero = int((~pruned.kept).sum())
    measurements.append(Measurement("pruning.removed", float(zero), "weights", "weights set to zero", space.size))
    if pruned.objective is not None:
        note = "the objective that pruning minimised, so slightly too small"
        measurements.append(
            Measurement(
                "pruning.objective",
                pruned.objective,
                "nats",
                "objective on training examples",
                min(len(task.train), 2000),
                note=note,
            )
        )
    return tuple(measurements)
