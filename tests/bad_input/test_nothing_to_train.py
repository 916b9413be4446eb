"""Where no parameter has a gradient, the remedy is one that can be followed."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace.errors import TaskError

X, Y = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
FLOAT = "pass the network as it was before it was quantised"


class Stored(nn.Module):
    """Whole numbers as weights, in a parameter or a buffer."""

    def __init__(self, parameter: bool) -> None:
        super().__init__()
        held = torch.randint(-9, 9, (3, 6), dtype=torch.int8)
        if parameter:
            self.weight = nn.Parameter(held, requires_grad=False)
        else:
            self.register_buffer("weight", held)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.float().T / 9


class Adapted(Stored):
    """The same with a trainable float part."""

    def __init__(self) -> None:
        super().__init__(parameter=True)
        self.adapter = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.adapter(x)


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 6, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(torch.cfloat) @ self.weight.T).real


class Weightless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3]


def _quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(6, 3)).eval(), {nn.Linear})


def _frozen() -> nn.Module:
    return nn.Linear(6, 3).requires_grad_(requires_grad=False)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Stored(parameter=True), FLOAT),
        (lambda: Stored(parameter=False), FLOAT),
        (_quantised, "adapters"),
        (Complex, "real and imaginary parts"),
        (Weightless, "a network that has weights"),
        (_frozen, "set requires_grad=True"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_remedy_can_be_followed(make: object, said: str) -> None:
    assert callable(make)
    with pytest.raises(TaskError, match="no trainable parameters") as found:
        memspace.audit(make().eval(), (X, Y))
    assert said in str(found.value)
    assert ("requires_grad" in str(found.value)) == ("requires_grad" in said)


def test_a_pattern_of_whole_numbers_does_not_ask_for_a_gradient() -> None:
    with pytest.raises(TaskError, match="matches only frozen") as found:
        memspace.influence(memspace.Task(Adapted(), (X, Y), parameters="weight"), [0], damping=0.1)
    assert FLOAT in str(found.value)


def test_an_adapter_on_whole_numbers_is_read() -> None:
    found = memspace.influence(memspace.Task(Adapted().eval(), (X, Y)), [0], damping=0.1)
    assert found.scores.shape == (1, 20)
    assert bool(found.scores.any())
