"""Random classification tasks with planted wrong labels: what the noise model is developed on, and nothing else is.

Inputs are Gaussian, correlated, heavy-tailed or clustered; true labels come from a random network, polynomial, tree or
from the clusters, sharply or with classes that overlap; classes may be unbalanced. Labels are then made wrong
uniformly, class by class, or where the task is hard.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.task.recipe import Recipe, Training

__all__ = ["NOISES", "Drawn", "corrupt", "draw", "recipe"]

NOISES = ("uniform", "next class", "pairs", "hard")
TEST = 3000


@dataclass(frozen=True)
class Drawn:
    """A task: ``truth`` are the labels before corruption, ``probability`` (n, C) their law given the inputs."""

    x: Tensor
    y: Tensor
    truth: Tensor
    probability: Tensor
    test_x: Tensor
    test_y: Tensor
    test_noisy: Tensor
    classes: int
    training: Training
    about: dict[str, str | float]


def _choice(options: tuple, g: torch.Generator):  # type: ignore[no-untyped-def,type-arg]
    return options[int(torch.randint(len(options), (1,), generator=g))]


def _uniform(low: float, high: float, g: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand(1, generator=g))


def _inputs(kind: str, n: int, d: int, g: torch.Generator) -> Tensor:
    x = torch.randn(n, d, generator=g)
    if kind == "correlated":
        x = x @ (torch.randn(d, d, generator=g) / math.sqrt(d))
    if kind == "heavy":
        x = x / torch.rand(n, 1, generator=g).clamp_min(0.05).sqrt()
    return x


def _scores(kind: str, x: Tensor, classes: int, g: torch.Generator) -> Tensor:
    """Standardised scores (n, C) whose softmax, sharpened, is the law of the true label."""
    d = x.shape[1]
    if kind == "network":
        h = torch.tanh(x @ torch.randn(d, 24, generator=g) / math.sqrt(d) * 1.5)
        s = h @ torch.randn(24, classes, generator=g)
    elif kind == "polynomial":
        a, b, c = (torch.randn(d, classes, generator=g) / math.sqrt(d) for _ in range(3))
        s = x @ c + (x @ a) * (x @ b)
    elif kind == "linear":
        s = x @ torch.randn(d, classes, generator=g)
    else:  # a tree of depth four on single features: every leaf has a class
        leaf = torch.zeros(len(x), dtype=torch.long)
        for _ in range(4):
            leaf = 2 * leaf + (x[:, int(torch.randint(d, (1,), generator=g))] > _uniform(-0.5, 0.5, g)).long()
        s = torch.nn.functional.one_hot(torch.randint(classes, (16,), generator=g)[leaf], classes).float()
    return (s - s.mean(0)) / s.std(0).clamp_min(1e-6)


def _clusters(n: int, d: int, classes: int, separation: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs of a mixture of Gaussians, one or two a class, and the exact law of the class."""
    parts = classes * int(torch.randint(1, 3, (1,), generator=g))
    centre = torch.randn(parts, d, generator=g) * separation / math.sqrt(2)
    spread = torch.exp(0.3 * torch.randn(parts, 1, generator=g))
    which = torch.randint(parts, (n,), generator=g)
    x = centre[which] + spread[which] * torch.randn(n, d, generator=g)
    log = -((x[:, None] - centre) / spread).square().sum(-1) / 2 - d * spread.log().squeeze(1)
    p = torch.softmax(log, -1)
    law = torch.zeros(n, classes).index_add_(1, torch.arange(parts) % classes, p)
    return x, law


def corrupt(kind: str, share: float, truth: Tensor, law: Tensor, order: Tensor, g: torch.Generator) -> Tensor:
    """Labels of which a share is wrong; ``law`` (n, C) tells where it is hard, ``order`` which classes are partners."""
    n, c = law.shape
    y = truth.clone()
    chance = torch.rand(n, generator=g)
    other = (truth + torch.randint(1, c, (n,), generator=g)) % c
    if kind == "uniform":
        wrong = chance < share
    elif kind == "next class":
        wrong, other = chance < share, (truth + 1) % c
    elif kind == "pairs":  # a third of the classes at most, each with one partner, hold all wrong labels
        some = order[: max(1, c // 3)]
        hit = (truth[:, None] == some).any(1)
        wrong = hit & (chance < min(0.6, share / max(float(hit.float().mean()), 1e-9)))
        other = order[(truth[:, None] == order).float().argmax(1) - 1]
    else:  # hard: the chance grows with the true law's entropy, and the label becomes the likeliest other class
        entropy = -(law * law.clamp_min(1e-12).log()).sum(1)
        rank = entropy.argsort().argsort().float() / max(n - 1, 1)
        wrong = chance < (2 * share * rank).clamp_max(0.9)
        away = law.scatter(1, truth[:, None], -1.0) + 1e-6 * torch.rand(n, c, generator=g)
        other = away.argmax(1)
    return torch.where(wrong, other, y)


def recipe(d: int, classes: int, g: torch.Generator) -> tuple[Training, dict[str, str | float]]:
    """A linear network or one hidden layer, trained briefly or long."""
    width = _choice((0, 0, 16, 32, 64), g)
    decay = _choice((0.0, 1e-4, 1e-3, 1e-2), g)
    epochs = _choice((30, 100, 200), g)
    batch = _choice((None, 32), g)
    rate = _choice((3e-3, 1e-2), g) if batch else _choice((1e-2, 3e-2), g)

    def make() -> nn.Module:
        if width == 0:
            return nn.Linear(d, classes)
        return nn.Sequential(nn.Linear(d, width), nn.ReLU(), nn.Linear(width, classes))

    steps = epochs if batch else 2 * epochs
    training = Training(make, Recipe(steps if not batch else max(5, epochs * 32 // 100), batch, rate, decay))
    return training, {"width": width, "decay": decay, "epochs": training.recipe.epochs, "batch": batch or 0}


def draw(seed: int, noise: str | None = None, share: float | None = None) -> Drawn:
    """The task of a seed; ``noise`` and ``share`` of wrong labels are drawn too where not given."""
    g = torch.Generator().manual_seed(7919 * seed + 17)
    n = int(math.exp(_uniform(math.log(60), math.log(600), g)))
    classes = _choice((2, 2, 2, 3, 3, 4, 5, 7, 10, 20), g)
    classes = max(2, min(classes, n // 12, 3500 // n))
    d = int(math.exp(_uniform(math.log(2), math.log(30), g)))
    how = _choice(("network", "polynomial", "linear", "tree", "clusters", "clusters"), g)
    features = _choice(("plain", "correlated", "heavy"), g)
    sharp = math.exp(_uniform(math.log(1.0), math.log(12), g))
    separation = _uniform(0.6, 3.0, g)
    total = n + TEST
    if how == "clusters":
        x, law = _clusters(total, d, classes, separation, g)
    else:
        x = _inputs(features, total, d, g)
        law = torch.softmax(sharp * _scores(how, x, classes, g), -1)
    if _uniform(0, 1, g) < 0.2:  # unbalanced
        law = law * torch.exp(_uniform(0.5, 1.2, g) * torch.randn(classes, generator=g))
        law = law / law.sum(1, keepdim=True)
    truth = torch.multinomial(law, 1, generator=g).squeeze(1)
    order = torch.randperm(classes, generator=g)
    kind = noise or _choice(NOISES, g)
    planted = share if share is not None else _choice((0.0, 0.0, 0.05, 0.1, 0.2, 0.3), g)
    y = corrupt(kind, planted, truth, law, order, g)
    x = (x - x[:n].mean(0)) / x[:n].std(0).clamp_min(1e-6)
    training, made = recipe(d, classes, g)
    about: dict[str, str | float] = {
        "seed": seed, "how": how, "noise": kind if planted else "none", "planted": planted, "n": n, "d": d,
        "classes": classes,
    }  # fmt: skip
    about |= made
    return Drawn(x[:n], y[:n], truth[:n], law[:n], x[n:], truth[n:], y[n:], classes, training, about)
