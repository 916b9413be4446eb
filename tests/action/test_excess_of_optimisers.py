"""No optimiser undercuts least action: the excess is not negative beyond its stated numerical error."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import nn

from memspace.action.optimiser import NaturalGradient
from memspace.action.training import training_action
from memspace.progress import Silent
from memspace.task.task import Run, Task

Made = Callable[[nn.Module], torch.optim.Optimizer]


def _weights(model: nn.Module) -> Iterable[nn.Parameter]:
    return model.parameters()


OPTIMISERS: dict[str, Made] = {
    "sgd": lambda m: torch.optim.SGD(_weights(m), 0.3),
    "momentum": lambda m: torch.optim.SGD(_weights(m), 0.1, momentum=0.9),
    "nesterov": lambda m: torch.optim.SGD(_weights(m), 0.1, momentum=0.9, nesterov=True),
    "adam": lambda m: torch.optim.Adam(_weights(m), 1e-2),
    "adamw": lambda m: torch.optim.AdamW(_weights(m), 1e-2, weight_decay=0.1),
    "rmsprop": lambda m: torch.optim.RMSprop(_weights(m), 3e-3),
    "adagrad": lambda m: torch.optim.Adagrad(_weights(m), 3e-2),
    "natural": lambda m: NaturalGradient(m, lr=0.1, damping=1e-3, longest=0.1),
}


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("seed", [0, 1])
def test_excess_is_not_negative_for_any_optimiser_in_any_segment(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(96, 8)
    y = (x[:, :4] + 0.5 * torch.randn(96, 4)).argmax(1)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    optimiser = OPTIMISERS[name](model)
    states, at = [], []
    for k in range(61):
        if k % 3 == 0:
            states.append({n: p.detach().clone() for n, p in model.state_dict().items()})
            at.append(k)
        index = torch.randint(0, 96, (24,))
        optimiser.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x[index]), y[index]))
        optimiser.step()
    model.load_state_dict(states[-1])
    run = Run(tuple(states), tuple(map(float, at)), tuple(at))
    action = training_action(Task(model=model, train=(x, y), run=run), progress=Silent(), probe=96, slope_probe=96)
    found = {m.name: m.value for m in action.measurements}
    segments, errors = action.segments["excess"], action.segments["error"]
    assert len(segments) == len(errors) <= 20
    assert all(e >= 0 for e in errors)
    assert found["action.excess"] == pytest.approx(sum(segments), abs=1e-9)
    assert found["action.excess"] > 0
    for value, error in zip(segments, errors, strict=True):
        assert value >= -error - 1e-9
    assert found["action.inefficiency"] >= 1
    assert found["action.spent_over_bought"] > 1
