"""Weight matching: planted permutations are found, the function stays, what is no chain is refused."""

import pytest
import torch
from torch import nn

from memspace.errors import UnsupportedLayerError
from memspace.geometry.matching import hidden_units, match, permuted
from memspace.task.task import Task


def dense():
    return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 9), nn.GELU(), nn.Linear(9, 3))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 10), nn.LayerNorm(10),
        nn.Tanh(), nn.Linear(10, 3),
    )  # fmt: skip


SHAPES = {"dense": (dense, (5,)), "convolutional": (convolutional, (1, 6, 6))}


def make(name, seed):
    torch.manual_seed(seed)
    model = SHAPES[name][0]()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            nn.init.normal_(m.weight)
    return model.eval()


def task_of(model, shape):
    g = torch.Generator().manual_seed(0)
    return Task(model=model, train=(torch.randn(32, *shape, generator=g), torch.randint(0, 3, (32,), generator=g)))


@pytest.mark.parametrize("name", SHAPES)
def test_a_planted_permutation_is_undone(name):
    model = make(name, 0)
    task = task_of(model, SHAPES[name][1])
    state = {k: v.clone() for k, v in model.state_dict().items()}
    units = hidden_units(task)
    assert [u.count for u in units] == ([12, 9] if name == "dense" else [6, 8, 10])
    g = torch.Generator().manual_seed(3)
    orders = {u.layer: torch.randperm(u.count, generator=g) for u in units}
    shuffled = permuted(state, units, orders)
    x = task.train.batch(range(32)).x
    before = model(x)
    model.load_state_dict(shuffled)
    assert torch.allclose(model(x), before, atol=1e-5)
    assert not torch.equal(shuffled["0.weight"], state["0.weight"])
    noisy = {
        k: v + 0.01 * torch.randn(v.shape, generator=g) if v.is_floating_point() else v for k, v in shuffled.items()
    }
    found = match(task, state, noisy)
    assert found.after < 0.2 * found.before
    for u in units:
        assert torch.equal(orders[u.layer][found.permutations[u.layer]], torch.arange(u.count))
    assert found.moved == pytest.approx(
        sum(int((found.permutations[u.layer] != torch.arange(u.count)).sum()) for u in units)
        / sum(u.count for u in units)
    )


def test_matching_never_takes_two_networks_further_apart_and_keeps_the_function():
    model, other = make("dense", 0), make("dense", 1)
    task = task_of(model, (5,))
    found = match(task, model.state_dict(), other.state_dict())
    assert found.after < found.before
    x = task.train.batch(range(32)).x
    expected = other(x)
    other.load_state_dict(found.state)
    assert torch.allclose(other(x), expected, atol=1e-5)
    same = match(task, model.state_dict(), model.state_dict())
    assert same.moved == 0
    assert same.after == 0


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.a(x)
        return self.c(h + torch.relu(self.b(h)))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(torch.relu(self.a(x)))))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.e, self.b = nn.Linear(5, 8), nn.PReLU(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(self.e(self.a(x)))


@pytest.mark.parametrize(
    ("model", "why"),
    [(Residual, "computes something else"), (Twice, "must run once"), (Attending, "PReLU")],
    ids=["residual", "shared", "unknown layer"],
)
def test_what_is_no_chain_is_refused_in_one_sentence(model, why):
    torch.manual_seed(0)
    task = task_of(model().eval(), (5,))
    torch.manual_seed(1)
    with pytest.raises(UnsupportedLayerError, match=why):
        match(task, task.model.state_dict(), model().state_dict())
