"""Operations without a derivative are refused: what lies before them would seem to have no part in the outputs."""

import warnings

import pytest
import torch
from torch import nn

import memspace
from memspace.errors import UnsupportedLayerError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).eval()


X, Y = torch.randn(20, 1, 6, generator=torch.Generator().manual_seed(1)), torch.arange(20) % 3


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="no quantised kernels here")
@pytest.mark.filterwarnings("ignore")
def test_layers_before_a_quantised_one_are_not_taken_for_idle() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(network(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(UnsupportedLayerError, match=r"module 3\).*before it was quantised"):
        memspace.audit(model, (X, Y))


def test_the_network_before_it_was_quantised_is_read() -> None:
    assert memspace.influence(memspace.Task(network(), (X, Y)), [0], damping=0.1).scores.shape == (1, 20)
