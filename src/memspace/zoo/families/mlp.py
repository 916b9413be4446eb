"""Multilayer perceptrons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from memspace.zoo.registry import ZooData, family

__all__ = ["Perceptron", "mlp"]


class Perceptron(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        inputs: numbers an example has.
        width: units of a hidden layer.
        depth: hidden layers.
        outputs: classes.
    """

    def __init__(self, inputs: int, width: int, depth: int, outputs: int) -> None:
        super().__init__()
        sizes = [inputs, *[width] * depth]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.head = nn.Linear(width, outputs)
        self.dropped = ((width,),) * depth

    def forward(self, x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        """Compute the logits.

        Args:
            x: (B, ...) inputs.
            masks: (B, width) for each hidden layer.

        Returns:
            (B, outputs).
        """
        h = x.flatten(1)
        for k, layer in enumerate(self.hidden):
            h = layer(h).relu()
            if masks is not None:
                h = h * masks[k]
        logits: Tensor = self.head(h)
        return logits


@family("mlp")
def mlp(data: ZooData, width: int, depth: int) -> nn.Module:
    """Make a multilayer perceptron.

    Args:
        data: its inputs and classes.
        width: units of a hidden layer.
        depth: hidden layers.

    Returns:
        A fresh network.
    """
    return Perceptron(data.x[0].numel(), width, depth, data.outputs)
