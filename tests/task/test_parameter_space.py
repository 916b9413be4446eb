"""The flat layout: packing and unpacking are inverse, and a block is the module's matrix."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memspace.passes.space import ParameterSpace


class Scale(nn.Module):
    """A parameter of its own, for which there is no closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x * self.scale.sum()


class OwnLinear(nn.Linear):
    """A linear layer with another forward."""

    def forward(self, x: Tensor) -> Tensor:
        """Twice."""
        return 2 * super().forward(x)


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        """Both."""
        return self.b(self.a(x))


def _round_trip(model: nn.Module, space: ParameterSpace) -> None:
    named = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    flat = space.flat(model)
    assert flat.shape == (space.size,)
    assert space.size == sum(p.numel() for p in named.values())
    back = space.unpack(flat)
    assert set(back) == set(named)
    for name, p in named.items():
        assert torch.equal(back[name], p), name
    other = torch.randn(space.size, dtype=torch.float64)
    assert torch.equal(space.pack(space.unpack(other)), other)
    stack = space.unpack(torch.stack([other, flat.double()]))
    assert all(torch.equal(stack[n][0], t) for n, t in space.unpack(other).items())
    assert [b.start for b in space.blocks] == [0, *(b.stop for b in space.blocks)][:-1]


KINDS = [
    (nn.Linear(4, 3), "linear", (3, 5)),
    (nn.Linear(4, 3, bias=False), "linear", (3, 4)),
    (nn.Conv1d(2, 5, 3), "conv", (5, 7)),
    (nn.Conv2d(2, 5, (3, 2)), "conv", (5, 13)),
    (nn.Conv2d(2, 5, 3, bias=False), "conv", (5, 18)),
    (nn.Embedding(7, 4), "embedding", (4, 7)),
    (nn.LayerNorm(6), "norm", (1, 12)),
    (nn.LayerNorm((2, 3)), "norm", (1, 12)),
    (nn.GroupNorm(2, 4), "norm", (1, 8)),
    (nn.BatchNorm1d(5), "norm", (1, 10)),
    (nn.BatchNorm2d(5), "norm", (1, 10)),
    (nn.BatchNorm2d(5, track_running_stats=False), {"local"}, (1, 5)),
    (nn.InstanceNorm1d(5, affine=True), "norm", (1, 10)),
    (nn.RMSNorm(5), "norm", (1, 5)),
    (nn.Conv2d(4, 4, 3, groups=2), "grouped", (1, 76)),
    (nn.Conv2d(20, 60, 5, groups=10), "groups", (60, 51)),
    (nn.Conv3d(1, 2, 2), "conv", (2, 9)),
    (nn.ConvTranspose2d(2, 3, (2, 1)), {"transposed", "bias"}, (6, 2)),
    (nn.ConvTranspose2d(2, 4, 2, groups=2), {"local"}, (1, 16)),
    (nn.Embedding(7, 4, padding_idx=0), "embedding", (4, 7)),
    (nn.Embedding(7, 4, max_norm=1.0), "local", (1, 28)),
    (nn.Bilinear(2, 3, 4), "bilinear", (4, 7)),
    (nn.PReLU(3), "local", (1, 3)),
    (nn.GRU(2, 3, bidirectional=True), "recurrent", (9, 3)),
    (nn.LSTM(2, 3, proj_size=1), "recurrent", (12, 3)),
    (nn.MultiheadAttention(4, 2), "attention", (12, 5)),
    (nn.MultiheadAttention(4, 2, kdim=3), "loose", (1, 16)),
    (Scale(), "local", (1, 6)),
    (OwnLinear(4, 3), "local", (1, 12)),
]


@pytest.mark.parametrize(("module", "kind", "shape"), KINDS, ids=lambda v: type(v).__name__)
def test_pack_and_unpack_are_inverse_for_every_kind(
    module: nn.Module, kind: str | set[str], shape: tuple[int, int]
) -> None:
    model = nn.Sequential(nn.Linear(2, 2), module, nn.Linear(2, 1, bias=False))
    space = ParameterSpace(model)
    _round_trip(model, space)
    own = [b for b in space.blocks if b.module.split(".")[0] == "1"]
    assert {b.kind for b in own} == ({kind} if isinstance(kind, str) else kind)
    assert own[0].shape == shape


def test_a_linear_block_is_the_weight_with_the_bias_as_last_column() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Conv2d(2, 5, 3), nn.Embedding(7, 2))
    space = ParameterSpace(model)
    flat = space.flat(model)
    linear, conv, embedding = (b.view(flat) for b in space.blocks)
    assert torch.equal(linear, torch.cat([model[0].weight, model[0].bias[:, None]], 1))
    assert torch.equal(conv, torch.cat([model[1].weight.flatten(1), model[1].bias[:, None]], 1))
    assert torch.equal(embedding, model[2].weight.t())
    assert space.blocks[0].view(flat.expand(3, -1)).shape == (3, 3, 5)


def test_the_flat_vector_is_a_copy() -> None:
    model = nn.Linear(2, 2)
    space = ParameterSpace(model)
    before = model.weight.detach().clone()
    space.flat(model).zero_()
    assert torch.equal(model.weight, before)


def test_frozen_parameters_stay_outside() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    model[0].weight.requires_grad_(False)
    model[1].bias.requires_grad_(False)
    model[2].requires_grad_(False)
    space = ParameterSpace(model)
    _round_trip(model, space)
    assert {n for b in space.blocks for n in b.names} == {"0.bias", "1.weight"}
    assert space.blocks[1].kind == "local"


def test_shared_weights_appear_once_and_biases_beside_them() -> None:
    model = Tied()
    space = ParameterSpace(model)
    _round_trip(model, space)
    assert space.size == 9 + 3 + 3
    shared = next(b for b in space.blocks if "a.weight" in b.names)
    assert (shared.kind, shared.names, shared.modules) == ("linear", ("a.weight",), ("a", "b"))


def test_modules_can_be_taken_off_the_fast_path_by_name() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    space = ParameterSpace(model, loose=["1"])
    _round_trip(model, space)
    assert [b.kind for b in space.blocks] == ["linear", "loose", "loose"]
    assert len(space) == 3


@settings(max_examples=30, deadline=None)
@given(
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    bias=st.booleans(),
    norm=st.booleans(),
)
def test_round_trip_of_random_networks(widths: list[int], bias: bool, norm: bool) -> None:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers.append(nn.Linear(a, b, bias=bias))
        if norm:
            layers.append(nn.LayerNorm(b))
    model = nn.Sequential(*layers)
    _round_trip(model, ParameterSpace(model))
