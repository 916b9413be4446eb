"""Small hand-made tasks of the four families, briefly trained or at their initialisation, for tests of measuring."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from memspace.task.data import Data
from memspace.task.likelihood import Categorical
from memspace.task.run import Run
from memspace.task.task import Task

__all__ = ["FAMILIES", "character_task", "convolutional_task", "perceptron_task", "recurrent_task", "transformer_task"]


class Elman(nn.Module):
    """h_t = tanh(W x_t + U h_{t−1}); classes from the last state."""

    def __init__(self, tokens: int, width: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.into, self.across = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        read = self.into(self.embed(x))
        h = torch.zeros_like(read[:, 0])
        for t in range(x.shape[1]):
            h = torch.tanh(read[:, t] + self.across(h))
        return self.out(h)


class Attention(nn.Module):
    """One head of self-attention, causal where asked."""

    def __init__(self, width: int, causal: bool) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.causal = causal

    def forward(self, h: Tensor) -> Tensor:
        scores = self.query(h) @ self.key(h).transpose(1, 2) / h.shape[-1] ** 0.5
        if self.causal:
            later = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool, device=h.device).triu(1)
            scores = scores.masked_fill(later, -1e9)
        return torch.softmax(scores, -1) @ self.value(h)


class Block(nn.Module):
    """Attention and a perceptron, each with norm and skip."""

    def __init__(self, width: int, causal: bool) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, causal)
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.attention(self.first(h))
        return h + self.mix(self.second(h))


class TokenTransformer(nn.Module):
    """Blocks over token and place embeddings; classes of the mean state, or of the next token at every position."""

    def __init__(self, tokens: int, length: int, width: int, classes: int, causal: bool, blocks: int = 1) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(tokens, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*[Block(width, causal) for _ in range(blocks)])
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, classes)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x) + self.place(torch.arange(x.shape[1], device=x.device).expand_as(x))
        h = self.norm(self.blocks(h))
        return self.out(h if self.causal else h.mean(1))


def _digits(n: int, seed: int) -> tuple[Tensor, Tensor]:
    raw = load_digits()
    order = torch.randperm(len(raw.target), generator=torch.Generator().manual_seed(seed))[:n]
    return torch.tensor(raw.data / 16.0, dtype=torch.float32)[order], torch.tensor(raw.target)[order]


def _tokens(n: int, length: int, tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random sequences; the class is whether the first token is in the upper half."""
    x = torch.randint(tokens, (n, length), generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] >= tokens // 2).long()


def _trained(
    make: Callable[[], nn.Module], x: Tensor, y: Tensor, steps: int, name: str, seed: int, dtype: torch.dtype
) -> Task:
    """Adam on the whole of the data; every state of the path is recorded on a geometric schedule."""
    torch.manual_seed(seed)
    model = make().to(dtype)
    x = x.to(dtype) if x.is_floating_point() else x
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    at = sorted({0, steps, *(round(steps ** (k / 9)) for k in range(10))}) if steps else [0]
    states: list[Mapping[str, Tensor]] = []
    for step in range(steps + 1):
        if step in at:
            states.append({k: v.detach().clone() for k, v in model.state_dict().items()})
        optimiser.zero_grad()
        f = model(x)
        nn.functional.cross_entropy(f.flatten(0, -2), y.flatten()).backward()
        if step < steps:
            optimiser.step()
    model.zero_grad()
    run = Run([dict(s) for s in states], tuple(3e-3 * k for k in at), tuple(at), float(steps)) if steps else None
    return Task(model.eval(), Data((x, y)), Categorical(), name=name, run=run)


def perceptron_task(
    n: int = 300, width: int = 32, steps: int = 60, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Task:
    """A 64-width-width-10 network on digits; its hidden layers are blocks of one shape."""

    def make() -> nn.Module:
        sizes = (64, width, width, width)
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(sizes)]
        return nn.Sequential(*layers, nn.Linear(width, 10))

    return _trained(make, *_digits(n, seed), steps, "perceptron", seed, dtype)


def convolutional_task(
    n: int = 300, width: int = 8, steps: int = 60, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Task:
    """Two convolutions and a read-out on digits of 8 by 8."""
    x, y = _digits(n, seed)

    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(width * 16, 10),
        )

    return _trained(make, x.reshape(-1, 1, 8, 8), y, steps, "convolutional", seed, dtype)


def recurrent_task(
    n: int = 300, width: int = 24, steps: int = 60, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Task:
    """An Elman network on random token sequences."""
    x, y = _tokens(n, 10, 40, seed)
    return _trained(lambda: Elman(40, width, 2), x, y, steps, "recurrent", seed, dtype)


def transformer_task(
    n: int = 300, width: int = 24, steps: int = 60, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Task:
    """One block of a transformer on the same sequences."""
    x, y = _tokens(n, 10, 40, seed)
    return _trained(lambda: TokenTransformer(40, 10, width, 2, False), x, y, steps, "transformer", seed, dtype)


def character_task(
    n: int = 100, width: int = 24, steps: int = 60, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Task:
    """A causal transformer that predicts the next of 30 characters at 16 positions; two blocks."""
    steps_of = torch.randint(1, 4, (n, 17), generator=torch.Generator().manual_seed(seed)).cumsum(1) % 30
    x, y = steps_of[:, :-1], steps_of[:, 1:]
    return _trained(lambda: TokenTransformer(30, 16, width, 30, True, 2), x, y, steps, "character", seed, dtype)


FAMILIES: Mapping[str, Callable[..., Task]] = {
    "perceptron": perceptron_task,
    "convolutional": convolutional_task,
    "recurrent": recurrent_task,
    "transformer": transformer_task,
    "character": character_task,
}
