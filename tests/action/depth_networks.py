"""Networks whose hidden states are known in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearFlow(nn.Module):
    """L blocks h ↦ M h, then a read-out matrix."""

    def __init__(self, step: Tensor, layers: int, head: Tensor) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self._linear(step) for _ in range(layers))
        self.head = self._linear(head)

    @staticmethod
    def _linear(matrix: Tensor) -> nn.Linear:
        made = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=torch.float64)
        with torch.no_grad():
            made.weight.copy_(matrix)
        return made

    def forward(self, h: Tensor) -> Tensor:
        for layer in self.layers:
            h = layer(h)
        return self.head(h)


class Residual(nn.Module):
    """h + W₂ tanh(W₁ h)/L."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.first, self.second, self.layers = nn.Linear(width, width), nn.Linear(width, width), layers

    def forward(self, h: Tensor) -> Tensor:
        return h + self.second(torch.tanh(self.first(h))) / self.layers


def residual_network(inputs: int, width: int, outputs: int, layers: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    blocks = [Residual(width, layers) for _ in range(layers)]
    return nn.Sequential(nn.Linear(inputs, width), *blocks, nn.Linear(width, outputs)).double()


def rotation(angle: float) -> Tensor:
    c, s = torch.cos(torch.tensor(angle, dtype=torch.float64)), torch.sin(torch.tensor(angle, dtype=torch.float64))
    return torch.stack([torch.stack([c, -s]), torch.stack([s, c])])
