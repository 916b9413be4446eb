"""Transformers: pre-norm blocks of attention and a two-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memspace.zoo.registry import ZooData, family

__all__ = ["TokenTransformer", "transformer"]

HEADS = 2


class _Attention(nn.Module):
    """Self-attention written out; causal where every position is predicted."""

    def __init__(self, width: int, causal: bool) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.causal = causal

    def forward(self, h: Tensor) -> Tensor:
        """(B, T, width) → (B, T, width)."""
        b, t, width = h.shape
        q, k, v = (m(h).reshape(b, t, HEADS, -1).transpose(1, 2) for m in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // HEADS)
        if self.causal:
            future = torch.ones(t, t, dtype=torch.bool, device=h.device).triu(1)
            scores = scores.masked_fill(future, -math.inf)
        mixed: Tensor = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, width))
        return mixed


class _Block(nn.Module):
    def __init__(self, width: int, causal: bool) -> None:
        super().__init__()
        self.first, self.attention = nn.LayerNorm(width), _Attention(width, causal)
        self.second, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, h: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, width) → (B, T, width)."""
        h = h + self.attention(self.first(h))
        inner = self.up(self.second(h)).relu()
        if mask is not None:
            inner = inner * mask
        out: Tensor = h + self.down(inner)
        return out


class TokenTransformer(nn.Module):
    """Embedding with positions, blocks, and a linear layer on the mean state or on every state.

    Args:
        vocabulary: number of tokens.
        length: positions.
        width: of the states.
        depth: blocks.
        outputs: classes, or tokens.
        everywhere: every position is predicted, from those before it.
    """

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, outputs: int, *, everywhere: bool) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(_Block(width, everywhere) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)
        self.everywhere = everywhere
        self.dropped = ((1, 2 * width),) * depth

    def forward(self, x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        """Compute the logits.

        Args:
            x: (B, T) tokens.
            masks: (B, 1, 2·width) for each block, the same at every position.

        Returns:
            (B, outputs), or (B, T, outputs).
        """
        places = torch.arange(x.shape[1], device=x.device).expand_as(x)
        h = self.token(x) + self.position(places)
        for k, block in enumerate(self.blocks):
            h = block(h, None if masks is None else masks[k])
        h = self.norm(h)
        logits: Tensor = self.head(h if self.everywhere else h.mean(1))
        return logits


@family("transformer")
def transformer(data: ZooData, width: int, depth: int) -> nn.Module:
    """Make a transformer.

    Args:
        data: its tokens and classes.
        width: of the states.
        depth: blocks.

    Returns:
        A fresh network.
    """
    length = data.x.shape[1]
    return TokenTransformer(data.vocabulary, length, width, depth, data.outputs, everywhere=data.sequence)
