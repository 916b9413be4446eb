"""A metric asked for on a parameter space of the user's own is right in its own layout."""

import pytest
import torch
from torch import nn

import memspace
from memspace import ParameterSpace, Task
from memspace.errors import TaskError


class Positions(nn.Module):
    """Token and position embeddings: the second is called once for all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place, self.head = nn.Embedding(9, 4), nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = self.token(x) + self.place(torch.arange(x.shape[1], device=x.device))
        return self.head(torch.tanh(h).mean(1))


class Outside(nn.Module):
    """Uses a layer's weight once more, outside the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.b(torch.tanh(nn.functional.linear(self.a(x), self.a.weight)))


def tokens(seed: int) -> Task:
    torch.manual_seed(seed)
    return Task(Positions(), (torch.randint(0, 9, (20, 5)), torch.arange(20) % 3))


@pytest.mark.parametrize("representation", ["dense", "dual", "ekfac", "diagonal", "block"])
def test_a_shared_position_embedding_is_read_right_on_an_unchecked_space(representation) -> None:
    task = tokens(1)
    own, checked = ParameterSpace(task.model), memspace.verified_space(task)
    found = memspace.fisher(task, own, representation).trace().value
    assert found == pytest.approx(memspace.fisher(task, checked, "dense").trace().value, rel=1e-5)


def test_some_parameters_stay_some() -> None:
    task = tokens(2)
    own = ParameterSpace(task.model, only=["place.weight", "head.*"])
    assert memspace.fisher(task, own, "dense").to_dense().shape == (own.size, own.size)


@pytest.mark.parametrize("checked", [True, False])
def test_a_weight_used_outside_its_layer_is_read_whole(checked) -> None:
    torch.manual_seed(0)
    task = Task(Outside(), (torch.randn(20, 4), torch.arange(20) % 3))
    space = memspace.verified_space(task) if checked else ParameterSpace(task.model)
    rows = []
    for i in range(20):
        x = task.train.batch([i]).x
        f = task.model(x)[0]
        p = f.softmax(-1).detach()
        for c in range(3):
            grads = torch.autograd.grad(f.log_softmax(-1)[c], list(task.model.parameters()), retain_graph=True)
            named = dict(zip(dict(task.model.named_parameters()), grads, strict=True))
            rows.append(p[c].sqrt() * space.pack(named))
    j = torch.stack(rows).double()
    torch.testing.assert_close(memspace.fisher(task, space, "dense").to_dense(), j.t() @ j / 20, rtol=1e-4, atol=1e-6)


def test_another_networks_space_is_refused() -> None:
    with pytest.raises(TaskError, match="another network"):
        memspace.fisher(tokens(0), ParameterSpace(nn.Linear(4, 3)), "dual")
