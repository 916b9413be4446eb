"""Patterns over parameter names: what they choose, and what is said where they choose nothing."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from memspace.errors import TaskError
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.task.checks import check_task
from memspace.task.fingerprint import fingerprint
from memspace.task.task import Task


class Net(nn.Module):
    """Two blocks and a head tied to the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"attn": nn.Linear(3, 3), "mlp": nn.Linear(3, 3), "norm": nn.LayerNorm(3)}) for _ in range(2)
        )
        self.head = nn.Linear(3, 3)
        self.head.weight = self.blocks[0]["attn"].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Through both blocks."""
        for b in self.blocks:
            x = x + b["mlp"](torch.tanh(b["attn"](b["norm"](x))))
        return self.head(x)


ALL = tuple(n for n, _ in Net().named_parameters())
CHOICES = [
    ((), (), set(ALL)),
    (["*"], (), set(ALL)),
    ("blocks.1.*", (), {n for n in ALL if n.startswith("blocks.1.")}),
    (["blocks.*.attn.weight"], (), {"blocks.0.attn.weight", "blocks.1.attn.weight"}),
    (["*.attn.*", "head.bias"], ["*.bias"], {"blocks.0.attn.weight", "blocks.1.attn.weight"}),
    ((), ["blocks.*"], {"head.bias"}),
    # A tied weight goes by each of its names.
    (["head.*"], (), {"blocks.0.attn.weight", "head.bias"}),
    ((), "head.weight", set(ALL) - {"blocks.0.attn.weight"}),
    (["blocks.[!0].mlp.bia?"], (), {"blocks.1.mlp.bias"}),
]


@pytest.mark.parametrize(("only", "without", "want"), CHOICES)
def test_what_patterns_choose(only, without, want) -> None:
    model = Net()
    space = ParameterSpace(model, only=only, without=without)
    assert space.names == tuple(n for n in ALL if n in want)
    assert {n for b in space.blocks for n in b.names} == want
    assert space.size == sum(p.numel() for n, p in model.named_parameters() if n in want)
    flat = space.flat(model)
    back = space.unpack(flat)
    assert list(back) == list(space.names)
    assert all(torch.equal(back[n], p) for n, p in space.parameters(model).items())
    assert torch.equal(space.pack(back), flat)


def test_half_a_norm_is_differentiated_by_its_module() -> None:
    space = ParameterSpace(Net(), only=["blocks.0.norm.weight", "blocks.1.norm.*"])
    assert [b.kind for b in space.blocks] == ["local", "norm"]


def test_frozen_parameters_stay_outside_of_what_is_chosen() -> None:
    model = Net()
    model.blocks[1]["mlp"].bias.requires_grad_(False)
    assert ParameterSpace(model, only="blocks.1.mlp.*").names == ("blocks.1.mlp.weight",)
    assert ParameterSpace(model, without="blocks.1.mlp.bias").names == ParameterSpace(model).names


FAULTS = [
    (("blocks.*.attention.*",), r"'blocks.*.attention.*' matches no parameter", r"blocks\.\d\.attn"),
    (("Head.*",), "'Head.*' matches no parameter", "head"),
    (("!nothing",), "'nothing' matches no parameter", "the names are such as"),
    (("blocks.*", "frozen"), "'frozen' matches only frozen parameters", "requires_grad"),
    (("head.bias", "!head.*"), "the patterns leave no trainable parameter", "exclude less"),
    (("",), "'' matches no parameter", "the names are such as"),
]


@pytest.mark.parametrize(("patterns", "what", "remedy"), FAULTS)
def test_what_chooses_nothing_is_said_before_any_work(patterns, what, remedy) -> None:
    model = Net()
    model.register_parameter("frozen", nn.Parameter(torch.zeros(1), requires_grad=False))
    task = Task(model, (torch.randn(4, 3), torch.tensor([0, 1, 2, 0])), parameters=patterns)
    for act in (check_task, verified_space, fingerprint):
        with pytest.raises(TaskError) as caught:
            act(task)
        assert what in caught.value.what
        assert re.search(remedy, caught.value.remedy)


def test_the_fingerprint_depends_on_what_is_chosen_and_not_on_how() -> None:
    model, data = Net(), (torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))

    def key(*patterns: str) -> str:
        return fingerprint(Task(model, data, parameters=patterns))

    assert key() == key("*") == key("blocks.*", "head.*")
    assert len({key(), key("head.*"), key("!head.*"), key("blocks.*")}) == 4
    assert fingerprint(Task(model, data, parameters="head.*")) == key("head.*")
    before = key()
    model.head.bias.requires_grad_(False)
    assert key() != before
