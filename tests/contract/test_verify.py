"""A layer the hooks cannot read is taken off the fast path, never silently wrong."""

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


def test_every_network_of_the_contract_is_read_as_it_is():
    for name in NETWORKS:
        model, x = network(name)
        f = model(x).detach()
        task = Task(model=model, train=(x, Categorical().sample(f, torch.Generator().manual_seed(0))))
        from memspace.task.space import ParameterSpace

        assert [b.kind for b in verified_space(task).blocks] == [b.kind for b in ParameterSpace(model).blocks]
