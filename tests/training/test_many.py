"""Networks trained together are the networks trained one by one."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from memspace.errors import DataError, StochasticModelError
from memspace.progress import Progress
from memspace.task.builtin.train import fit
from memspace.task.likelihood import Categorical, Gaussian
from memspace.task.recipe import Recipe, Training
from memspace.training.draws import draw
from memspace.training.loss import example_losses
from memspace.training.many import train_many

ADAM = Recipe(4, 8, 1e-2, 1e-2)
SGD = Recipe(4, 8, 0.2, 1e-2, optimiser="sgd")


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3)).double()


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    ).double()


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3)).double()


class Tokens(nn.Module):
    """A sequence model whose embedding is also its head; one parameter is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4, dtype=torch.float64)
        self.mix = nn.Linear(4, 4, dtype=torch.float64)
        self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.register_buffer("scale", torch.rand(1, dtype=torch.float64) + 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        h = torch.tanh(self.mix(h.cumsum(1))) * self.scale
        return h @ self.embedding.weight.T


class Counter(Progress):
    """Counts; may interrupt as a person would."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.total = self.done = 0
        self.stop_at = stop_at

    def start(self, what: str, total: int) -> int:
        self.total += total
        return 0

    def advance(self, handle: int, ticks: int = 1) -> None:
        self.done += ticks
        if self.done == self.stop_at:
            raise KeyboardInterrupt

    def finish(self, handle: int) -> None:
        pass


def data(make, n: int = 30) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    if make is Tokens:
        return torch.randint(6, (n, 5), generator=g), torch.randint(6, (n, 5), generator=g)
    shape = (n, 1, 4, 4) if make is cnn else (n, 5)
    return torch.randn(shape, generator=g, dtype=torch.float64), torch.randint(3, (n,), generator=g)


def same(networks, m: int, model: nn.Module) -> None:
    got, want = networks.state_dict(m), model.state_dict()
    assert got.keys() == want.keys()
    for n in want:
        torch.testing.assert_close(got[n], want[n], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [mlp, cnn, normed, Tokens])
@pytest.mark.parametrize(
    "recipe",
    [ADAM, SGD, replace(SGD, momentum=0.0), replace(ADAM, batch=None), replace(SGD, batch=None), replace(SGD, decay=0)],
    ids=["adam", "sgd", "no momentum", "adam full batch", "sgd full batch", "no decay"],
)
def test_equals_one_by_one(make, recipe) -> None:
    """Three networks on their own 21 of 30 examples (a last batch of 5), in groups of two."""
    x, y = data(make)
    index = torch.stack([torch.randperm(30, generator=torch.Generator().manual_seed(k))[:21] for k in range(3)])
    seeds = (4, 4, 5)
    networks = train_many(Training(make, recipe), x, y, Categorical(), seeds=seeds, index=index, at_once=2)
    assert len(networks) == 3
    for m, s in enumerate(seeds):
        same(networks, m, fit(make, x[index[m]], y[index[m]], recipe, seed=s, record=False).model)
    f = networks.outputs(x, batch=7)
    torch.testing.assert_close(f[2], networks.model(2)(x).detach())


def by_hand(make, recipe: Recipe, x: Tensor, y: Tensor, w: Tensor, seed: int) -> list[Tensor]:
    """Weighted training by autograd, step by step, from the documented formula."""
    drawn = draw(Training(make, recipe), len(y), seed)
    theta = list(drawn.model.parameters())
    speed = [torch.zeros_like(p) for p in theta]
    for at, rate in zip(drawn.batches, drawn.rates, strict=True):
        losses = nn.functional.cross_entropy(drawn.model(x[at]), y[at], reduction="none")
        grads = torch.autograd.grad((w[at] * losses).sum() / len(at), theta)
        with torch.no_grad():
            for p, v, g in zip(theta, speed, grads, strict=True):
                v.mul_(recipe.momentum).add_(g + recipe.decay * p)
                p.sub_(rate * v)
    return theta


@pytest.mark.parametrize("recipe", [SGD, replace(SGD, batch=None)], ids=["batches", "full batch"])
@pytest.mark.parametrize("seeds", [(1, 1, 1), (1, 2, 1)])
@pytest.mark.parametrize("make", [mlp, cnn])
def test_weights_are_those_of_the_documented_loss(make, seeds, recipe) -> None:
    x, y = data(make)
    w = torch.rand(3, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w[1, :4] = 0.0
    networks = train_many(Training(make, recipe), x, y, Categorical(), seeds=seeds, weights=w)
    for m, s in enumerate(seeds):
        for got, want in zip(networks.model(m).parameters(), by_hand(make, recipe, x, y, w[m], s), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_weights_of_one_are_an_ordinary_training_and_the_random_state_is_left() -> None:
    x, y = data(mlp)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    networks = train_many(Training(mlp, ADAM), x, y, Categorical(), seeds=(7,), weights=torch.ones(1, 30))
    assert torch.equal(before, torch.get_rng_state())
    same(networks, 0, fit(mlp, x, y, ADAM, seed=7, record=False).model)


def test_groups_side_by_side_give_the_same_networks() -> None:
    """Five groups on two threads; progress hears every step."""
    x, y = data(mlp)
    heard = Counter()
    torch.set_num_threads(2)
    try:
        networks = train_many(Training(mlp, SGD), x, y, Categorical(), seeds=range(9), at_once=2, progress=heard)
    finally:
        torch.set_num_threads(1)
    for m in (0, 3, 8):
        same(networks, m, fit(mlp, x, y, SGD, seed=m, record=False).model)
    assert heard.total == heard.done == 5 * SGD.steps(30)


def test_stopping_between_steps_leaves_no_thread_behind() -> None:
    x, y = data(mlp)
    before = threading.active_count()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_many(
                Training(mlp, replace(SGD, epochs=500)),
                x,
                y,
                Categorical(),
                seeds=range(4),
                at_once=1,
                progress=Counter(stop_at=3),
            )
    finally:
        torch.set_num_threads(1)
    assert threading.active_count() == before


def test_other_laws_and_inputs_by_name() -> None:
    """A Gaussian law on a network with two named inputs, some of whose parameters are frozen."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 4), nn.Linear(4, 2)
            self.first.weight.requires_grad_(False)
            self.double()

        def forward(self, *, a: Tensor, b: Tensor) -> Tensor:
            return self.second(torch.tanh(self.first(a)) * b)

    g = torch.Generator().manual_seed(0)
    x = {"a": torch.randn(20, 2, generator=g), "b": torch.randn(20, 4, generator=g)}  # float32: they follow the network
    y = torch.randn(20, 2, generator=g, dtype=torch.float64)
    law = Gaussian(2.0)
    networks = train_many(Training(Named, SGD), x, y, law, seeds=(0, 1))
    drawn = draw(Training(Named, SGD), 20, 1)
    wide = {k: v.double() for k, v in x.items()}
    optimiser = torch.optim.SGD(drawn.model.parameters(), 1.0, SGD.momentum, weight_decay=SGD.decay)
    for at, rate in zip(drawn.batches, drawn.rates, strict=True):
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad()
        law.nll(drawn.model(**{k: v[at] for k, v in wide.items()}), y[at]).mean().backward()
        optimiser.step()
    same(networks, 1, drawn.model)
    torch.testing.assert_close(networks.outputs(x)[1], drawn.model(**wide).detach())


def test_padded_positions_do_not_count() -> None:
    """A sequence with padding has the loss of its own positions alone."""
    f = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([[0, 1, -100, -100], [2, 2, 1, 0]])
    got = example_losses(Categorical(), f, y)
    want = torch.stack([nn.functional.cross_entropy(f[0, :2], y[0, :2]), nn.functional.cross_entropy(f[1], y[1])])
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"seeds": ()}, "no seeds"),
        ({"seeds": (0,), "index": torch.tensor([[30]])}, "from 0 to 29"),
        ({"seeds": (0,), "index": torch.tensor([[0.5]])}, "integers"),
        ({"seeds": (0, 1), "index": torch.tensor([[0, 1]])}, "shape"),
        ({"seeds": (0,), "weights": torch.ones(1, 29)}, r"not \(1, 30\)"),
        ({"seeds": (0,), "weights": torch.full((1, 30), torch.nan)}, "finite"),
        ({"seeds": (0,), "weights": torch.ones(1, 30), "index": torch.tensor([[0]])}, "both"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, what) -> None:
    x, y = data(mlp)
    with pytest.raises(DataError, match=what):
        train_many(Training(mlp, SGD), x, y, Categorical(), **arguments)


def test_dropout_is_refused() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.1), nn.Linear(4, 3)).double()

    x, y = data(mlp)
    with pytest.raises(StochasticModelError, match=r"0\.1"):
        train_many(Training(make, SGD), x, y, Categorical(), seeds=(0,))
