"""What reparametrisations do to predictors: renaming units, rescaling ReLU units, a gain on the outputs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memspace.measures.predictors.hidden import sisters_of
from memspace.measures.predictors.workspace import workspace_of
from memspace.task.run import Run
from memspace.task.task import Task
from tests.predictors.networks import measured

UNITS, CLASSES, EXAMPLES = 24, 3, 40

State = dict[str, Tensor]


def network(state: State | None = None) -> nn.Module:
    model = nn.Sequential(nn.Linear(30, UNITS), nn.ReLU(), nn.Linear(UNITS, CLASSES)).double()
    if state is not None:
        model.load_state_dict(state)
    return model


def trained(seed: int) -> tuple[State, State, tuple[Tensor, Tensor]]:
    """The weights before and after a short training on labels that leave some examples wrong, and the data."""
    torch.manual_seed(seed)
    model = network()
    x, y = torch.randn(EXAMPLES, 30, dtype=torch.float64), torch.randint(0, CLASSES, (EXAMPLES,))
    start = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.SGD(model.parameters(), 0.3)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    y[:2] = (model(x[:2]).argmin(1)).detach()
    return start, model.state_dict(), (x, y)


def numbers(start: State, now: State, data: tuple[Tensor, Tensor], others: list[State]) -> dict[str, float]:
    """All predictors at these weights."""
    task = Task(model=network(now), train=data, run=Run((start, now), (0.0, 1.0), (0, 60)))
    return {name: m.value for name, m in measured(workspace_of(task, sisters_of(task, others))).items()}


def permuted(state: State, order: list[int]) -> State:
    hidden = {k: state[k][order] for k in ("0.weight", "0.bias")}
    return state | hidden | {"2.weight": state["2.weight"][:, order]}


def rescaled(state: State, scales: Tensor) -> State:
    first = {"0.weight": state["0.weight"] * scales[:, None], "0.bias": state["0.bias"] * scales}
    return state | first | {"2.weight": state["2.weight"] / scales}


def amplified(state: State, gain: float) -> State:
    return state | {k: state[k] * gain for k in ("2.weight", "2.bias")}


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 100), st.permutations(range(UNITS)))
def test_renaming_units_changes_nothing(seed, order):
    start, now, data = trained(seed)
    others = [trained(seed + k)[1] for k in (1, 2)]
    before = numbers(start, now, data, others)
    after = numbers(permuted(start, order), permuted(now, order), data, others)
    assert after.keys() == before.keys()
    assert len(before) > 45  # nearly all of them apply
    for name, value in before.items():
        assert after[name] == pytest.approx(value, rel=1e-7, abs=1e-7), name


UNMOVED = (
    "norms.parameters",
    "norms.path",
    "norms.path_over_margin",
    "margins.lower",
    "margins.mean",
    "margins.normalised",
    "margins.inverse",
    "confidence.mean",
    "confidence.entropy",
    "confidence.calibration_error",
    "confidence.temperature",
    "confidence.logit_gain",
    "confidence.class_spread",
    "similarity.disagreement",
    "similarity.output_distance",
)
MOVED = ("norms.squared", "norms.frobenius", "norms.distance", "gradients.noise")


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 100), st.lists(st.floats(2.0, 6.0), min_size=UNITS, max_size=UNITS))
def test_rescaling_relu_units_moves_only_what_depends_on_the_weights_themselves(seed, scales):
    start, now, data = trained(seed)
    others = [trained(seed + k)[1] for k in (1, 2)]
    before = numbers(start, now, data, others)
    after = numbers(start, rescaled(now, torch.tensor(scales, dtype=torch.float64)), data, others)
    for name in UNMOVED:
        assert after[name] == pytest.approx(before[name], rel=1e-6, abs=1e-7), name
    for name in MOVED:
        assert abs(after[name] - before[name]) > 1e-3, name


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 100), st.floats(0.2, 5.0))
def test_a_gain_on_the_outputs_moves_each_as_it_should(seed, gain):
    start, now, data = trained(seed)
    others = [trained(seed + k)[1] for k in (1, 2)]
    before, after = numbers(start, now, data, others), numbers(start, amplified(now, gain), data, others)
    times = ("margins.lower", "margins.mean", "confidence.temperature")
    plus = ("norms.path", "norms.frobenius_product", "norms.spectral_product", "confidence.logit_gain")
    half = ("norms.frobenius_mean", "norms.spectral_mean")  # of two layers, one is multiplied
    free = (
        "norms.path_over_margin",
        "norms.frobenius_product_over_margin",
        "norms.frobenius_mean_over_margin",
        "norms.spectral_product_over_margin",
        "norms.spectral_mean_over_margin",
        "norms.spectral_origin_over_margin",
        "norms.stable_rank",
        "norms.parameters",
        "margins.normalised",
        "margins.boundary.median",
        "similarity.cka",
        "similarity.disagreement",
    )
    for name in times:
        assert after[name] == pytest.approx(gain * before[name], rel=1e-6), name
    for names, factor in ((plus, 1.0), (half, 0.5), (free, 0.0)):
        for name in names:
            assert after[name] - before[name] == pytest.approx(factor * math.log(gain), abs=1e-7), name
