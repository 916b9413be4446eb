"""Norms of a network of two layers, computed again in numpy; path norms by going through the paths one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from memspace.measures.predictors.path_norm import PathNorm
from memspace.measures.predictors.values import LowerMargin
from memspace.measures.predictors.workspace import workspace_of
from memspace.task.run import Run
from memspace.task.task import Task
from memspace.value import Absent
from tests.predictors.networks import gated, measured, measures, perceptron, recurrent, transformer

GAMMA = 0.7


def moved(seed):
    """A task with its start, and in numpy: weights, their changes, all parameters after and before."""
    task = perceptron(seed, n=9)
    now = {k: v.clone() for k, v in task.model.state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    start = {k: v + torch.randn(v.shape, generator=generator, dtype=v.dtype) for k, v in now.items()}
    task = perceptron(seed, n=9, run=Run((start, now), (0.0, 1.0), (0, 5)))
    w = [now[k].numpy() for k in ("0.weight", "2.weight")]
    d = [now[k].numpy() - start[k].numpy() for k in ("0.weight", "2.weight")]
    both = [np.concatenate([s[k].numpy().ravel() for k in now]) for s in (now, start)]
    return task, w, d, both


def expected(w, d, both, n):
    """Dziugaite et al. 2020, appendix: √(μ/n), written down one by one."""
    fro = [np.sqrt((m**2).sum()) for m in w]
    spec = [np.sqrt(np.linalg.eigvalsh(m @ m.T)[-1]) for m in w]
    change_spec = [np.sqrt(np.linalg.eigvalsh(m @ m.T)[-1]) for m in d]
    change_fro = [np.sqrt((m**2).sum()) for m in d]
    product_f, product_s = np.prod(fro) ** 2, np.prod(spec) ** 2
    stable = sum(f**2 / s**2 for f, s in zip(fro, spec, strict=True))
    moved_stable = sum(f**2 / s**2 for f, s in zip(change_fro, spec, strict=True))
    rows = [sum(np.sqrt((row**2).sum()) for row in m) for m in d]
    bartlett = np.prod(spec) * sum((r / s) ** (2 / 3) for r, s in zip(rows, spec, strict=True)) ** (3 / 2)
    mu = {
        "parameters": len(both[0]),
        "squared": (both[0] ** 2).sum(),
        "distance": ((both[0] - both[1]) ** 2).sum(),
        "frobenius": sum(f**2 for f in fro),
        "frobenius_distance": sum(f**2 for f in change_fro),
        "spectral_distance": sum(s**2 for s in change_spec),
        "frobenius_product": product_f,
        "frobenius_product_over_margin": product_f / GAMMA**2,
        "frobenius_mean": 2 * product_f ** (1 / 2),
        "frobenius_mean_over_margin": 2 * (product_f / GAMMA**2) ** (1 / 2),
        "spectral_product": product_s,
        "spectral_product_over_margin": product_s / GAMMA**2,
        "spectral_mean": 2 * product_s ** (1 / 2),
        "spectral_mean_over_margin": 2 * (product_s / GAMMA**2) ** (1 / 2),
        "stable_rank": stable,
        "spectral_origin_over_margin": product_s * stable / GAMMA**2,
        "spectral_start_over_margin": product_s * moved_stable / GAMMA**2,
        "spectral_complexity": bartlett**2,
        "spectral_complexity_over_margin": (bartlett / GAMMA) ** 2,
    }
    return {f"norms.{name}": math.log(math.sqrt(value / n)) for name, value in mu.items()}


@pytest.mark.parametrize("seed", range(3))
def test_norms_are_those_written_down(seed):
    task, w, d, both = moved(seed)
    made = measured(workspace_of(task, LowerMargin(GAMMA)), "norms.")
    known = expected(w, d, both, 9)
    for name, value in known.items():
        assert made[name].value == pytest.approx(value, abs=1e-12), name
    assert set(made) == {*known, "norms.path", "norms.path_over_margin"}


def test_a_diagonal_network_has_norms_known_by_heart():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        model[1].weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    task = Task(model=model, train=(torch.eye(2, dtype=torch.float64), torch.tensor([0, 1])))
    made = measured(workspace_of(task), "norms.")
    assert made["norms.frobenius"].value == pytest.approx(math.log(math.sqrt(30 / 2)))
    assert made["norms.spectral_product"].value == pytest.approx(math.log(8 / math.sqrt(2)))
    assert made["norms.stable_rank"].value == pytest.approx(math.log(math.sqrt((25 / 16 + 5 / 4) / 2)))
    assert made["norms.path"].value == pytest.approx(math.log(math.sqrt((9 * 4 + 16 * 1) / 2)))


def test_without_a_start_only_what_needs_it_is_absent():
    _, unmeasured = workspace_of(perceptron(0), LowerMargin(1.0)).measure_all(measures("norms."))
    names = {"distance", "frobenius_distance", "spectral_distance", "spectral_start_over_margin"}
    names |= {"spectral_complexity", "spectral_complexity_over_margin"}
    assert {u.name for u in unmeasured} == {f"norms.{name}" for name in names}
    assert {u.reason for u in unmeasured} == {"the weights at the start of the training are not known"}


def test_a_network_that_has_not_moved_has_no_logarithm_of_its_distance():
    task = perceptron(0)
    state = task.model.state_dict()
    still = perceptron(0, run=Run((state, state), (0.0, 1.0), (0, 5)))
    _, unmeasured = workspace_of(still).measure_all(measures("norms."))
    reasons = {u.name: u.reason for u in unmeasured}
    assert "zero" in reasons["norms.distance"]
    assert "moved" in reasons["norms.spectral_complexity"]


def path(task):
    found = workspace_of(task).get(PathNorm)
    return found if isinstance(found, Absent) else found.value


@pytest.mark.parametrize("seed", range(3))
def test_the_path_norm_sums_over_paths(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.LeakyReLU(), nn.Linear(3, 2)).double()
    task = Task(model=model, train=(torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1] * 3)))
    weights = [np.hstack([m.weight.detach().numpy(), m.bias.detach().numpy()[:, None]]) for m in model[::2]]
    total = 0.0
    # A path begins at an input or at the constant unit of a layer (its last column) and goes on to an output.
    for begin in range(3):
        sizes = [w.shape[0] for w in weights[begin:]]
        for units in itertools.product(*map(range, sizes)):
            first = range(weights[begin].shape[1]) if begin == 0 else [weights[begin].shape[1] - 1]
            for source in first:
                sources = (source, *units[:-1])
                steps = zip(weights[begin:], units, sources, strict=True)
                total += math.prod(w[unit, before] ** 2 for w, unit, before in steps)
    assert path(task) == pytest.approx(total)


def test_a_convolution_has_the_path_norm_of_its_dense_matrix():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(9, 2, bias=False)).double()
    task = Task(model=model, train=(torch.randn(4, 2, 4, dtype=torch.float64), torch.tensor([0, 1] * 2)))
    units = torch.eye(8, dtype=torch.float64).reshape(8, 2, 4)
    dense = model[:1](units).flatten(1).detach().numpy().T
    last = model[3].weight.detach().numpy()
    assert path(task) == pytest.approx(float((last**2 @ dense**2).sum()))


class Rectified(nn.Module):
    """torch's recurrent layer with ReLU: its weights are used once a step."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.RNN(2, 3, nonlinearity="relu", batch_first=True), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


def test_a_recurrent_network_of_relu_has_a_path_norm():
    torch.manual_seed(0)
    task = Task(model=Rectified().double(), train=(torch.randn(4, 3, 2, dtype=torch.float64), torch.tensor([0, 1] * 2)))
    state = {k: v.detach().numpy() ** 2 for k, v in task.model.state_dict().items()}
    h, bias = np.zeros(3), state["cell.bias_ih_l0"] + state["cell.bias_hh_l0"]
    for _ in range(3):
        h = state["cell.weight_ih_l0"] @ np.ones(2) + state["cell.weight_hh_l0"] @ h + bias
    assert path(task) == pytest.approx(float((state["head.weight"] @ h + state["head.bias"]).sum()))


def normalised(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 3)).double()
    return Task(model=model, train=(torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2] * 2)))


@pytest.mark.parametrize(
    ("make", "why"),
    [(recurrent, "Tanh"), (gated, "Sigmoid"), (transformer, "inputs"), (normalised, "NativeLayerNorm")],
)
def test_other_networks_have_no_path_norm_and_say_why(make, why):
    found = path(make(0))
    assert isinstance(found, Absent)
    assert why in found.reason
