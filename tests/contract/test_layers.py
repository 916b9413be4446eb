"""Every kind of layer in its variants, alone, against autograd: blocks, gradients, forms, rows and Fisher matrices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from memspace.passes.layers.linear import Linear
from memspace.passes.layers.registry import register_layer
from memspace.passes.layers.tied import Tied
from memspace.passes.row_parts.token import TokenPart
from memspace.testing import check_layer

B = 5


def _tokens() -> Tensor:
    return torch.randint(0, 6, (B, 3))


def _numbers(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(B, *shape)


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "linear": (lambda: nn.Linear(4, 3), _numbers(4)),
    "linear, positions, no bias": (lambda: nn.Linear(4, 3, bias=False), _numbers(2, 3, 4)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, padding=1, stride=2), _numbers(2, 7)),
    "conv2d, dilated": (lambda: nn.Conv2d(2, 3, 3, dilation=2, bias=False), _numbers(2, 6, 6)),
    "conv2d, same": (lambda: nn.Conv2d(2, 3, 3, padding="same"), _numbers(2, 4, 4)),
    "conv2d, axes apart": (
        lambda: nn.Conv2d(2, 3, 3, padding=(2, 1), stride=(1, 2), dilation=(2, 1)),
        _numbers(2, 4, 6),
    ),
    "conv3d": (lambda: nn.Conv3d(2, 2, 2, stride=(1, 2, 1), padding=(0, 1, 0)), _numbers(2, 3, 3, 3)),
    "grouped": (lambda: nn.Conv1d(4, 6, 3, groups=2, padding=1), _numbers(4, 5)),
    "transposed": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2), _numbers(2, 4)),
    "embedding": (lambda: nn.Embedding(6, 4, padding_idx=1), _tokens),
    "bag of embeddings": (lambda: nn.EmbeddingBag(6, 4, mode="max"), _tokens),
    "layer norm of images": (lambda: nn.LayerNorm([3, 2]), _numbers(3, 2)),
    "layer norm of positions": (lambda: nn.LayerNorm(6), _numbers(2, 6)),
    "root-mean-square norm": (lambda: nn.RMSNorm(6), _numbers(6)),
    "group norm": (lambda: nn.GroupNorm(2, 4), _numbers(4, 3)),
    "batch norm": (lambda: nn.BatchNorm1d(5), _numbers(5)),
    "instance norm": (lambda: nn.InstanceNorm1d(3, affine=True), _numbers(3, 4)),
    "rnn": (lambda: nn.RNN(3, 4, batch_first=True, nonlinearity="relu"), _numbers(4, 3)),
    "lstm": (lambda: nn.LSTM(3, 4, batch_first=True, num_layers=2), _numbers(4, 3)),
    "gru": (lambda: nn.GRU(3, 4, batch_first=True, bidirectional=True), _numbers(4, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_kind_of_layer_keeps_its_contract(name: str) -> None:
    torch.manual_seed(0)
    make, inputs = LAYERS[name]
    check_layer(make(), inputs())


def test_a_layer_of_two_inputs_keeps_its_contract() -> None:
    torch.manual_seed(0)
    check_layer(nn.Bilinear(4, 3, 2), (torch.randn(B, 4), torch.randn(B, 3)))


def test_a_layer_whose_output_is_overwritten_keeps_its_contract() -> None:
    torch.manual_seed(0)
    check_layer(nn.Linear(4, 3), torch.randn(B, 4), overwritten=True)


@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.LayerNorm(4)], ids=["linear", "layer norm"])
def test_a_layer_with_positions_before_examples_keeps_its_contract(layer: nn.Module) -> None:
    torch.manual_seed(0)
    check_layer(layer, torch.randn(B, 3, 4), axis=1)


def test_a_layer_without_a_rule_is_refused() -> None:
    with pytest.raises(AssertionError, match="PReLU: no rule knows"):
        check_layer(nn.PReLU(4), torch.randn(B, 4))


def test_a_rule_without_types_is_not_registered() -> None:
    with pytest.raises(TypeError, match="Tied names no types"):
        register_layer(Tied)


def test_parameters_that_the_rule_does_not_hold_are_named() -> None:
    layer = nn.Linear(4, 3)
    layer.adapter = nn.Parameter(torch.zeros(3))
    with pytest.raises(AssertionError, match=r"Linear: no block of its rule holds .*layer\.adapter"):
        check_layer(layer, torch.randn(B, 4))


BREAKS = {
    "an example's gradient of layer.weight, layer.bias is not autograd's": (
        Linear,
        "cotangents",
        lambda self, block, call: 2 * call.cotangent.unsqueeze(1),
        lambda: (nn.Linear(4, 3), torch.randn(B, 4)),
    ),
    "sides are not those of its second moments": (
        Linear,
        "sides",
        lambda self, block: block.shape[:1],
        lambda: (nn.Linear(4, 3), torch.randn(B, 4)),
    ),
    "norms of Jacobian rows are wrong": (
        TokenPart,
        "norms",
        lambda self: self.g.double().square().sum((1, 2)),
        lambda: (nn.Embedding(6, 4), _tokens()),
    ),
    "from_matrix does not undo to_matrix": (
        Linear,
        "from_matrix",
        lambda self, matrix, shape: matrix.flip(-2).reshape(shape),
        lambda: (nn.Linear(4, 3), torch.randn(B, 4)),
    ),
}


@pytest.mark.parametrize("sentence", BREAKS)
def test_what_breaks_the_contract_is_named(sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, method, broken, make = BREAKS[sentence]
    monkeypatch.setattr(owner, method, broken)
    with pytest.raises(AssertionError, match=sentence):
        check_layer(*make())
