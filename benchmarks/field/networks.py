"""The field trial's networks, and how a stranger would train them: a plain loop, no help from memspace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace import Bernoulli, Categorical, Gaussian, Likelihood, Poisson

__all__ = ["LAWS", "NETWORKS", "Recipe", "loss_of", "train"]

LAWS: dict[str, Callable[[], Likelihood]] = {
    "categorical": Categorical,
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "poisson": Poisson,
}


class Recurrent(nn.Module):
    """An LSTM; the classes are read off its last state."""

    def __init__(self, channels: int, outputs: int, width: int = 16) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(channels, width, batch_first=True), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        f: Tensor = self.head(self.cell(x)[0][:, -1])
        return f


class Characters(nn.Module):
    """An LSTM that gives the next character at every position."""

    def __init__(self, outputs: int, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(outputs, width)
        self.cell, self.head = nn.LSTM(width, width, batch_first=True), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        f: Tensor = self.head(self.cell(self.embed(x))[0])
        return f


class Attention(nn.Module):
    """A transformer encoder in torch's defaults but without dropout; padding (token 0) is masked."""

    def __init__(self, outputs: int, words: int = 1002, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width, padding_idx=0)
        self.place = nn.Parameter(torch.randn(24, width) * 0.1)
        layer = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        padding = x == 0
        states = self.encoder(self.embed(x) + self.place, src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(-1).to(states.dtype)
        f: Tensor = self.head((states * kept).sum(1) / kept.sum(1).clamp_min(1))
        return f


def linear(x: Tensor, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), outputs))


def perceptron(x: Tensor, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 32), nn.ReLU(), nn.Linear(32, outputs))


def deep(x: Tensor, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(x[0].numel(), 48),
        nn.LayerNorm(48),
        nn.GELU(),
        nn.Linear(48, 48),
        nn.Tanh(),
        nn.Linear(48, outputs),
    )


def convolutional(x: Tensor, outputs: int) -> nn.Module:
    """Two convolutions with batch normalisation on (1, H, W) images."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, outputs),
    )


@dataclass(frozen=True)
class Recipe:
    """Epochs are set so that about ``steps`` steps are taken; ``decay`` is the optimiser's."""

    steps: int
    batch: int
    rate: float
    decay: float = 0.0
    optimiser: str = "adam"


@dataclass(frozen=True)
class Network:
    """``make(x, outputs)`` a fresh network for such inputs; ``recipe``: how it is trained."""

    make: Callable[[Tensor, int], nn.Module]
    recipe: Recipe


NETWORKS: dict[str, Network] = {
    "linear": Network(linear, Recipe(300, 0, 1.0, 1e-2, "lbfgs")),
    "perceptron": Network(perceptron, Recipe(800, 32, 5e-3, 1e-3)),
    "overfit": Network(perceptron, Recipe(1500, 32, 1e-2, 0.0)),
    "deep": Network(deep, Recipe(600, 64, 3e-3, 1e-4)),
    "momentum": Network(perceptron, Recipe(800, 32, 5e-2, 5e-4, "sgd")),
    "convolutional": Network(convolutional, Recipe(400, 64, 5e-3, 1e-4)),
    "recurrent": Network(lambda x, k: Recurrent(x.shape[2], k), Recipe(400, 32, 1e-2, 1e-4)),
    "characters": Network(lambda x, k: Characters(k), Recipe(300, 32, 1e-2, 0.0)),
    "attention": Network(lambda x, k: Attention(k), Recipe(250, 32, 3e-3, 1e-4)),
}


def loss_of(law: str, f: Tensor, y: Tensor) -> Tensor:
    """What a stranger would minimise, as PyTorch has it."""
    if law == "categorical":
        return nn.functional.cross_entropy(f.flatten(0, -2), y.flatten())
    if law == "bernoulli":
        return nn.functional.binary_cross_entropy_with_logits(f, y) * y.shape[1]
    if law == "poisson":
        return nn.functional.poisson_nll_loss(f, y) * y.shape[1]
    return nn.functional.mse_loss(f, y) * y.shape[1] / 2


def train(network: Network, x: Tensor, y: Tensor, law: str, outputs: int, seed: int) -> nn.Module:
    """One training from scratch; torch's own random state is left as it was."""
    recipe = network.recipe
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network.make(x, outputs)
        model.train()
        if recipe.optimiser == "lbfgs":
            _converge(model, x, y, law, recipe)
        else:
            _descend(model, x, y, law, recipe)
    return model.eval()


def _descend(model: nn.Module, x: Tensor, y: Tensor, law: str, recipe: Recipe) -> None:
    if recipe.optimiser == "sgd":
        optimiser: torch.optim.Optimizer = torch.optim.SGD(
            model.parameters(), recipe.rate, momentum=0.9, weight_decay=recipe.decay
        )
    else:
        optimiser = torch.optim.Adam(model.parameters(), recipe.rate, weight_decay=recipe.decay, fused=True)
    size = min(recipe.batch, len(x))
    epochs = max(1, round(recipe.steps * size / len(x)))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for at in torch.randperm(len(x)).split(size):
            if len(at) < 2:
                continue  # batch normalisation needs two
            optimiser.zero_grad()
            loss_of(law, model(x[at]), y[at]).backward()
            optimiser.step()
        schedule.step()


def _converge(model: nn.Module, x: Tensor, y: Tensor, law: str, recipe: Recipe) -> None:
    """To the minimum of the penalised loss."""
    model.double()
    optimiser = torch.optim.LBFGS(
        model.parameters(),
        max_iter=recipe.steps,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        penalty = sum((p.square().sum() for p in model.parameters()), torch.zeros((), dtype=torch.float64))
        loss = loss_of(law, model(x.double()), y.double() if y.is_floating_point() else y) + recipe.decay / 2 * penalty
        loss.backward()
        return loss

    optimiser.step(closure)
    model.float()
