"""TokenRecurrent networks: gated units, written out so that many train at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memspace.zoo.registry import ZooData, family

__all__ = ["TokenRecurrent", "recurrent"]


class _Cell(nn.Module):
    """A gated recurrent unit."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.inward, self.onward = nn.Linear(inputs, 3 * width), nn.Linear(width, 3 * width)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, T, inputs) → (B, T, width)."""
        reset_in, update_in, new_in = self.inward(inputs).chunk(3, -1)
        h = torch.zeros_like(new_in[:, 0])
        states = []
        for t in range(inputs.shape[1]):
            reset_on, update_on, new_on = self.onward(h).chunk(3, -1)
            update = (update_in[:, t] + update_on).sigmoid()
            new = (new_in[:, t] + (reset_in[:, t] + reset_on).sigmoid() * new_on).tanh()
            h = new + update * (h - new)
            states.append(h)
        return torch.stack(states, 1)


class TokenRecurrent(nn.Module):
    """Embedding, gated recurrent layers, and a linear layer on the mean state or on every state.

    Args:
        vocabulary: number of tokens.
        width: of embeddings and states.
        depth: recurrent layers.
        outputs: classes, or tokens.
        everywhere: every position is predicted.
    """

    def __init__(self, vocabulary: int, width: int, depth: int, outputs: int, everywhere: bool) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.cells = nn.ModuleList(_Cell(width, width) for _ in range(depth))
        self.head = nn.Linear(width, outputs)
        self.everywhere = everywhere
        self.dropped = ((1, width),) * depth

    def forward(self, x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        """Compute the logits.

        Args:
            x: (B, T) tokens.
            masks: (B, 1, width) for each layer, the same at every position.

        Returns:
            (B, outputs), or (B, T, outputs).
        """
        h = self.token(x)
        for k, cell in enumerate(self.cells):
            h = cell(h)
            if masks is not None:
                h = h * masks[k]
        logits: Tensor = self.head(h if self.everywhere else h.mean(1))
        return logits


@family("recurrent")
def recurrent(data: ZooData, width: int, depth: int) -> nn.Module:
    """Make a recurrent network.

    Args:
        data: its tokens and classes.
        width: of the states.
        depth: layers.

    Returns:
        A fresh network.
    """
    return TokenRecurrent(data.vocabulary, width, depth, data.outputs, data.sequence)
