"""One training recorded at two rates: no number that is relied on moves beyond its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import nn

from memspace.action.training import training_action
from memspace.measurement import Measurement
from memspace.progress import Silent
from memspace.task.task import Run, Task

STEPS, MARKS = 300, 72
Made = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
OPTIMISERS: dict[str, Made] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1),
    "SGD with momentum 0.9": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, 5e-3),
}


def _recorded(name: str, seed: int) -> tuple[Task, list[Run]]:
    """A training by mini-batches and its checkpoints, denser early: all of them, and every third."""
    torch.manual_seed(seed)
    centres = torch.randn(3, 6)
    y = torch.randint(0, 3, (240,))
    x = centres[y] + torch.randn(240, 6)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    optimiser = OPTIMISERS[name](model.parameters())
    marks = sorted({round(STEPS * (k / MARKS) ** 2) for k in range(MARKS + 1)})
    states = {}
    for step in range(STEPS + 1):
        if step in marks:
            states[step] = {k: v.clone() for k, v in model.state_dict().items()}
        index = torch.randint(0, 240, (24,))
        optimiser.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x[index]), y[index]))
        optimiser.step()
    model.load_state_dict(states[STEPS])
    runs = []
    for at in (marks, sorted({*marks[::3], marks[-1]})):
        clock = tuple(0.1 * s for s in at)
        runs.append(Run(tuple(states[s] for s in at), clock, tuple(at), optimiser=name))
    return Task(model=model, train=(x, y), run=runs[0]), runs


def _measured(task: Task, run: Run) -> dict[str, Measurement]:
    made = training_action(
        Task(model=task.model, train=task.train, run=run), progress=Silent(), probe=160, slope_probe=32
    )
    return {m.name.removeprefix("action."): m for m in made.measurements}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_at_three_times_the_rate_what_is_relied_on_stays_within_its_interval(name: str) -> None:
    relied, held, drifts = 0, 0, []
    for seed in (11, 12):
        task, (often, seldom) = _recorded(name, seed)
        fine, coarse = _measured(task, often), _measured(task, seldom)
        for key in fine.keys() & coarse.keys():
            a, b = coarse[key], fine[key]
            if a.reliable and b.reliable and a.interval is not None:
                relied += 1
                held += a.interval[0] <= b.value <= a.interval[1]
        drifts += [abs(coarse["drift_length"].value / fine["drift_length"].value - 1)]
        assert not coarse["length"].reliable  # the polygon as recorded grows with the rate
        assert coarse["length"].value < fine["length"].value
        assert ("excess_learning_rate_time" in fine) == (name == "SGD")
    assert relied >= 6
    assert held == relied
    assert max(drifts) < 0.5
