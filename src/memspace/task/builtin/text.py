"""A small character-level transformer on a text the user names."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memspace.errors import DataError
from memspace.progress import Progress
from memspace.task.builtin.options import BuildOptions
from memspace.task.builtin.registry import builtin
from memspace.task.builtin.trained import Ingredients, trained_task
from memspace.task.recipe import Recipe
from memspace.task.task import Task

__all__ = ["Transformer", "text"]

CONTEXT = 64
RECIPE = Recipe(epochs=30, batch=64, rate=3e-3, decay=1e-6, checkpoints=16)


class _Attention(nn.Module):
    """Causal self-attention written out, so that every derivative exists."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) → (B, T, width)."""
        b, t, w = x.shape
        q, k, v = (m(x).reshape(b, t, self.heads, -1).transpose(1, 2) for m in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) / math.sqrt(w // self.heads)
        future = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, -math.inf).softmax(-1)
        mixed: Tensor = self.out((weights @ v).transpose(1, 2).reshape(b, t, w))
        return mixed


class _Layer(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), _Attention(width, heads)
        self.norm2, self.up, self.down = (
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) → (B, T, width)."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return out


class Transformer(nn.Module):
    """Characters to next-character logits.

    Args:
        vocabulary: number of characters.
        width: of the hidden states.
        layers: number of pre-norm blocks.
        heads: of attention in each block.
    """

    def __init__(self, vocabulary: int, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(CONTEXT, width)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of every next character.

        Args:
            x: (B, T) characters as numbers, T at most 64.

        Returns:
            (B, T, vocabulary).
        """
        at = torch.arange(x.shape[1], device=x.device).expand_as(x)
        h = self.token(x) + self.position(at)
        for layer in self.layers:
            h = layer(h)
        logits: Tensor = self.head(self.norm(h))
        return logits


def _read(root: Path | None) -> str:
    named = root if root is not None else os.environ.get("MEMSPACE_DATA")
    if named is None:
        raise DataError(
            "the text task needs a text",
            where="text",
            remedy="give --data-root FILE, or a folder holding input.txt",
        )
    path = Path(named)
    for candidate in (path, path / "input.txt", path / "tiny-shakespeare" / "input.txt"):
        if candidate.is_file():
            try:
                return candidate.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(
                    f"the text cannot be read ({error})", where=str(candidate), remedy="save it as UTF-8"
                ) from error
    raise DataError("there is no text", where=str(path), remedy="give --data-root FILE, or a folder holding input.txt")


@builtin("text")
def text(options: BuildOptions, progress: Progress) -> Task:
    """Train a transformer on 2,000 sequences of 64 characters and test it on 400; an example is a sequence.

    Args:
        options: seed, sizes, share of wrong labels, the text's file or folder.
        progress: what shows the training.

    Returns:
        The task with its trained network.

    Raises:
        DataError: there is no text, or it is too short.
    """
    content = _read(options.data_root)
    alphabet = sorted(set(content))
    number_of = {c: k for k, c in enumerate(alphabet)}
    train, test = options.train_size or 2000, options.test_size or 400
    need = (train + test) * (CONTEXT + 1)
    if len(content) < need:
        raise DataError(
            f"the text has {len(content):,} characters, {need:,} are needed",
            where="text",
            remedy="give a longer text",
        )
    ids = torch.tensor([number_of[c] for c in content], dtype=torch.long)
    pieces = ids[: len(ids) // (CONTEXT + 1) * (CONTEXT + 1)].reshape(-1, CONTEXT + 1)
    generator = torch.Generator().manual_seed(options.seed)
    pieces = pieces[torch.randperm(len(pieces), generator=generator)[: train + test]]
    x, y = pieces[:, :-1].contiguous(), pieces[:, 1:].contiguous()

    def network() -> nn.Module:
        return Transformer(len(alphabet))

    def show(sequence: Any) -> str:
        return "".join(alphabet[int(k)] for k in sequence)

    ingredients = Ingredients(
        network,
        RECIPE,
        x[:train],
        y[:train],
        (x[train:], y[train:]),
        classes=len(alphabet),
        data=f"{train:,} sequences of {CONTEXT} characters, alphabet of {len(alphabet)}",
        architecture="transformer, width 64, 2 layers, 4 heads",
        labelled="characters",
    )
    return trained_task("text", ingredients, options, progress, class_names=tuple(alphabet), show=show)
