"""A layer that hooks cannot read is differentiated example by example, never silently wrong."""

import torch
from torch import nn

from memspace.metric.fisher import build
from memspace.passes.verify import verified_space
from memspace.task.likelihood import Categorical
from memspace.task.task import Task
from tests.contract.networks import NETWORKS, dense_fisher, network


class Functional(nn.Module):
    """Uses one layer's weight by a call of its own as well."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(nn.functional.linear(self.inner(x), self.inner.weight)))


def check(model, loose):
    torch.manual_seed(0)
    model = model.double()
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    task = Task(model=model, train=(x, y))
    space = verified_space(task)
    assert {b.module for b in space.blocks if b.kind == "loose"} == loose
    f = build(task, space, "dual").to_dense()
    want = dense_fisher(model, space, Categorical(), x, y)
    assert float((f - want).norm() / want.norm()) < 1e-10


def test_a_weight_also_used_functionally():
    check(Functional(), {"inner"})


LOCAL = {"own layer": {"own.scale", "own.mix"}, "transformer": {"position"}}
LOOSE = {  # everything else of the contract's networks has a closed form
    "time first": {"position.weight"},
    "weight norm": {"0.parametrizations.weight.original0", "0.parametrizations.weight.original1"},
}


def test_which_parameters_of_the_contract_are_off_the_fast_path():
    for name in NETWORKS:
        model, x = network(name)
        f = model(x).detach()
        task = Task(model=model, train=(x, Categorical().sample(f, torch.Generator().manual_seed(0))))
        blocks = verified_space(task).blocks
        assert {b.name for b in blocks if b.kind == "loose"} == LOOSE.get(name, set()), name
        assert {b.name for b in blocks if b.kind == "local"} == LOCAL.get(name, set()), name


class Swapped(nn.Module):
    """Mixes positions first and examples first; as many positions as the check reads examples."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):  # (B, 4, 3)
        h = torch.tanh(self.inner(x.transpose(0, 1)))
        return self.head(h.transpose(0, 1)).mean(1)


def test_positions_are_not_taken_for_examples():
    torch.manual_seed(1)
    model = Swapped().double()
    x, y = torch.randn(4, 4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    task = Task(model=model, train=(x, y))
    space = verified_space(task)
    assert [b.axis for b in space.blocks] == [1, 0]
    want = dense_fisher(model, space, Categorical(), x, y)
    for batch in (4, 3, 1):
        f = build(task, space, "dense", batch=batch).to_dense()
        assert float((f - want).norm() / want.norm()) < 1e-10
