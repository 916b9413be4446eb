"""Sharpness: quadratic losses with closed forms, brute force over corners, and what leaves each measure unchanged."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from memspace.measures.predictors import hessian, sharpness
from memspace.measures.predictors.ascent import ascend, reaching, slope_at_weights
from memspace.measures.predictors.crossing import crossing
from memspace.measures.predictors.hessian import LastLayerWeights, LossCurvature, weighted_curvatures
from memspace.measures.predictors.loss_surface import LossSurface, sample_size
from memspace.measures.predictors.sharpness import AverageRise, bound_term
from memspace.task.likelihood import Categorical, Poisson
from memspace.task.task import Task
from memspace.value import Absent
from tests.predictors.networks import ALL, perceptron
from tests.predictors.surfaces import fitted_task, linear_task, quadratic_of, rescaled, surface_of, workspace_of

MEASURES = (
    sharpness.in_a_box,
    sharpness.one_step,
    sharpness.adaptive,
    sharpness.adaptive_normalised,
    sharpness.average,
    sharpness.average_normalised,
    sharpness.flatness,
    sharpness.magnitude_flatness,
    sharpness.from_origin,
    hessian.largest_eigenvalue,
    hessian.hessian_trace,
    hessian.relative_flatness,
)


def _values(task: Task, *functions: object, seed: int = 0) -> dict[str, float]:
    measurements, _ = workspace_of(task, seed).measure_all(functions or MEASURES)  # type: ignore[arg-type]
    return {m.name: m.value for m in measurements}


def _largest_in_ball(g: Tensor, h: Tensor, radius: float) -> float:
    """max gᵀu + ½ uᵀHu on ‖u‖ = ρ, by the secular equation ‖(μI − H)⁻¹ g‖ = ρ with μ > λ_max."""
    values, vectors = torch.linalg.eigh(h)
    c = vectors.t() @ g
    top = float(values[-1])

    def excess(mu: float) -> float:
        return float((c / (mu - values)).norm()) - radius

    mu = brentq(excess, top + 1e-12 * top, top + 1e6 * (1 + float(g.norm()) / radius), xtol=1e-14, rtol=1e-14)
    u = vectors @ (c / (mu - values))
    return float(g @ u + u @ h @ u / 2)


@pytest.mark.parametrize("seed", range(4))
def test_the_ascent_in_a_ball_finds_the_largest_quadratic(seed: int) -> None:
    task = linear_task(seed)
    g, h = quadratic_of(task)
    surface = surface_of(task)
    for scale in (torch.ones(6, dtype=torch.float64), surface.theta.abs()):
        expected = _largest_in_ball(scale * g, scale[:, None] * h * scale, 0.7)
        slope = slope_at_weights(surface)
        found = ascend(surface, slope, scale, 0.7, ball=True, points=150, seed=0)
        assert found.rise == pytest.approx(expected, rel=1e-6)
        assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(found.rises))  # convex
        assert found.rises[0] == pytest.approx(_at(g, h, 0.7 * scale**2 * g / (scale * g).norm()), rel=1e-9)
        assert found.settled < 1e-6


def _at(g: Tensor, h: Tensor, step: Tensor) -> float:
    return float(g @ step + step @ h @ step / 2)


@pytest.mark.parametrize("seed", range(4))
def test_the_ascent_starts_at_random_where_there_is_no_gradient(seed: int) -> None:
    task = linear_task(seed, optimal=True)
    _, h = quadratic_of(task)
    surface = surface_of(task)
    slope = slope_at_weights(surface)
    flat = type(slope)(slope.loss, torch.zeros_like(slope.gradient))
    found = ascend(surface, flat, torch.ones(6, dtype=torch.float64), 0.5, ball=True, points=150, seed=seed)
    assert found.rise == pytest.approx(0.125 * float(torch.linalg.eigvalsh(h)[-1]), rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_corners_of_a_box_against_all_of_them(seed: int) -> None:
    task = linear_task(seed, inputs=8)
    g, h = quadratic_of(task)
    surface = surface_of(task)
    scale = sharpness.keskar_scale(surface.theta)
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=8)), dtype=torch.float64) * scale
    # Near the weights the gradient decides alone, and the first corner is the largest.
    rises = 1e-3 * corners @ g + 0.5e-6 * ((corners @ h) * corners).sum(1)
    found = ascend(surface, slope_at_weights(surface), scale, 1e-3, ball=False, points=4, seed=0)
    assert found.rise == pytest.approx(float(rises.max()), rel=1e-9)
    value = _values(task, sharpness.in_a_box)["sharpness.box"]
    assert value == pytest.approx(100 * float(rises.max()) / (1 + found.base), rel=1e-9)
    # Far away it is a local search: no larger than the largest, and no corner next to it is larger.
    rises = 2 * corners @ g + 2 * ((corners @ h) * corners).sum(1)
    far = ascend(surface, slope_at_weights(surface), scale, 2.0, ball=False, points=20, seed=0)
    assert far.rises[0] <= far.rise <= float(rises.max()) * (1 + 1e-12)
    assert float(rises.median()) < far.rise


@pytest.mark.parametrize("seed", range(6))
def test_the_smallest_box_against_all_corners(seed: int) -> None:
    task = linear_task(seed, inputs=8)
    g, h = quadratic_of(task)
    surface = surface_of(task)
    scale = surface.theta.abs()
    reach = reaching(surface, slope_at_weights(surface), scale, "loss", 0.1, start=0.01, rounds=6)
    assert reach is not None
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=8)), dtype=torch.float64) * scale
    a, b = ((corners @ h) * corners).sum(1) / 2, corners @ g
    sizes = (-b + (b**2 + 0.4 * a).sqrt()) / (2 * a)  # a α² + b α = 0.1
    assert float(sizes.min()) * 0.98 <= reach.alpha <= float(sizes[b.argmax()]) * 1.02  # at most that of sign(g)


@pytest.mark.parametrize(
    ("rise", "expected"),
    [(lambda x: 7 * x**2, math.sqrt(0.1 / 7)), (lambda x: x**3, 0.1 ** (1 / 3)), (lambda x: math.expm1(x), 0.0953)],
)
def test_crossings_are_found_from_far_away(rise: object, expected: float) -> None:
    for start in (1e-4, 1.0, 300.0):
        assert crossing(rise, 0.1, start) == pytest.approx(expected, rel=0.02)  # type: ignore[arg-type]


def test_a_crossing_that_jumps_or_overflows_is_found_and_one_that_is_not_there_is_none() -> None:
    assert crossing(lambda x: float(x > 0.37), 0.1, 1e-3) == pytest.approx(0.37, rel=0.02)
    assert crossing(lambda x: x if x < 0.2 else math.nan, 0.3, 1e-3) == pytest.approx(0.2, rel=0.02)
    assert crossing(lambda x: 0.05, 0.1, 1.0) is None
    assert crossing(lambda x: 0.2, 0.1, 1.0) is None


@pytest.mark.parametrize("seed", range(3))
def test_the_average_rise_is_that_of_a_quadratic(seed: int) -> None:
    task = linear_task(seed)
    _, h = quadratic_of(task)
    rise = workspace_of(task, seed).get(AverageRise)
    assert isinstance(rise, AverageRise)
    theta = task.model.weight.detach()[0]
    # Both signs together leave the quadratic part alone, ½ ρ² Σ_ij ξ_i ξ_j |w_i| H_ij |w_j| for every draw.
    weighed = theta.abs()[:, None] * h * theta.abs()
    mean = 0.005 * float(weighed.trace())
    spread = 0.005 * math.sqrt(2 * float(weighed.square().sum()) / 5)
    assert abs(float(rise.plain.mean()) - mean) < 4 * spread
    assert isinstance(rise.normalised, Absent)  # the size of the outputs is the prediction


def _dense_hessian(task: Task, surface: LossSurface) -> Tensor:
    x, y = surface.probe.x, surface.probe.y

    def loss(theta: Tensor) -> Tensor:
        f = torch.func.functional_call(task.model, surface.space.unpack(theta), (x,))
        return task.likelihood.nll(f, y).mean()

    return torch.func.hessian(loss)(surface.theta)


@pytest.mark.parametrize("seed", range(3))
def test_products_eigenvalue_and_trace_are_those_of_the_dense_hessian(seed: int) -> None:
    task = fitted_task(seed, width=5, steps=40)
    workspace = workspace_of(task, seed)
    surface = workspace.get(LossSurface)
    assert isinstance(surface, LossSurface)
    dense = _dense_hessian(task, surface)
    v = torch.randn(3, len(dense), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with surface.hessian() as product:
        torch.testing.assert_close(product(v), v @ dense, rtol=1e-9, atol=1e-12)
    read = workspace.get(LossCurvature)
    assert isinstance(read, LossCurvature)
    top = float(torch.linalg.eigvalsh(dense)[-1])
    value, residual = float(read.top.values[0]), float(read.top.residuals[0])
    assert value <= top * (1 + 1e-9)
    assert top - value <= value * residual
    # Student's t with four degrees of freedom is beyond 8.6 once in a thousand.
    assert abs(read.trace.value - float(dense.trace())) < 8.6 * read.trace.standard_error


def test_layers_without_a_second_derivative_have_no_curvature() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64).abs().round()
    task = Task(nn.Linear(3, 1, bias=False).double(), (x, y), Poisson())
    surface = surface_of(task)
    rate = (x @ task.model.weight.detach().t()).exp()
    v = torch.randn(2, 3, dtype=torch.float64)
    with surface.hessian() as product:
        torch.testing.assert_close(product(v), v @ (x.t() @ (rate * x)) / 20)


@pytest.mark.parametrize("seed", range(3))
def test_relative_flatness_is_its_definition(seed: int) -> None:
    task = fitted_task(seed, width=4, steps=30)
    workspace = workspace_of(task)
    layer = workspace.get(LastLayerWeights)
    assert isinstance(layer, LastLayerWeights)
    x, y, law = layer.features, surface_of(task).probe.y, Categorical()
    bias = task.model[4].bias.detach()
    h = torch.func.hessian(lambda w: law.nll(x @ w.t() + bias, y).mean())(layer.weight)
    expected = sum(
        float(layer.weight[s] @ layer.weight[t]) * float(h[s, :, t, :].trace()) for s in range(3) for t in range(3)
    )
    found = _values(task, hessian.relative_flatness)
    assert found["loss.relative_flatness.layer"] == pytest.approx(expected, rel=1e-9)


def test_wide_and_narrow_last_layers_take_the_same_sum() -> None:
    torch.manual_seed(0)
    law = Categorical()
    for classes, width in ((3, 7), (7, 3)):
        w, phi = torch.randn(classes, width).double(), torch.randn(11, width).double()
        p = torch.softmax(phi @ w.t(), 1)
        h = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        expected = torch.einsum("nst,sk,tk->n", h, w, w) * phi.square().sum(1)
        torch.testing.assert_close(weighted_curvatures(law, LastLayerWeights(phi, phi @ w.t(), w)), expected)


def test_outputs_that_are_no_linear_layer_s_have_no_relative_flatness() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Softplus()).double()
    task = Task(model, (torch.randn(9, 4, dtype=torch.float64), torch.randint(0, 3, (9,))))
    _, unmeasured = workspace_of(task).measure_all([hessian.relative_flatness])
    assert "linear layer" in unmeasured[0].reason


INVARIANT = {
    "sharpness.adaptive",
    "sharpness.adaptive_normalised",
    "sharpness.average",
    "sharpness.average_normalised",
    "sharpness.magnitude_flatness.accuracy",
    "loss.relative_flatness.neurons",
}


@pytest.mark.parametrize("seed", range(3))
def test_adaptive_measures_do_not_see_a_rescaling_of_relu_units(seed: int) -> None:
    before, after = _values(fitted_task(seed)), _values(rescaled(fitted_task(seed), seed))
    assert len(before) == 13
    for name, value in before.items():
        if name in INVARIANT:
            assert after[name] == pytest.approx(value, rel=1e-7), name
        else:
            assert after[name] != pytest.approx(value, rel=1e-2), name


@pytest.mark.parametrize("gain", [0.1, 10.0])
def test_normalised_measures_do_not_see_the_gain_of_the_last_layer(gain: float) -> None:
    before, after = _values(fitted_task(1)), _values(fitted_task(1, gain=gain))
    assert before.keys() == after.keys()
    for name, value in before.items():
        if name.endswith("normalised"):
            assert after[name] == pytest.approx(value, rel=1e-7)
        elif name != "sharpness.magnitude_flatness.accuracy":  # decisions do not see it either
            assert after[name] != pytest.approx(value, rel=1e-2), name


@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
def test_every_family_is_measured(make: object) -> None:
    task = make(0)  # type: ignore[operator]
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    measurements, unmeasured = workspace_of(task).measure_all(MEASURES)
    assert all(math.isfinite(m.value) for m in measurements)
    assert all(u.reason and u.remedy for u in unmeasured)
    # The accuracy of a network that is not trained need not fall.
    assert {u.name for u in unmeasured} <= {
        f"sharpness.{part}" for part in ("flatness", "magnitude_flatness", "origin")
    }
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    again, _ = workspace_of(make(0)).measure_all(MEASURES)  # type: ignore[operator]
    assert [m.value for m in again] == [m.value for m in measurements]


def test_losses_mapped_over_points_are_those_of_one_after_another() -> None:
    for make in ALL:
        surface = surface_of(make(1))
        points = surface.theta + 0.1 * torch.randn(3, len(surface.theta), dtype=torch.float64)
        surface.probe.mapped = False
        losses, gradients = surface.gradients(points)
        surface.probe.mapped = True
        mapped, slopes = surface.gradients(points)
        torch.testing.assert_close(mapped, losses)
        torch.testing.assert_close(slopes, gradients)
        single = torch.stack([surface.gradients(p[None])[1][0] for p in points])
        torch.testing.assert_close(single, gradients)
        torch.testing.assert_close(surface.scores(points)[0], losses)


def test_the_sample_is_the_same_for_all_measures_and_another_for_another_seed() -> None:
    task = perceptron(0, n=700)
    first, second, other = surface_of(task), surface_of(task), surface_of(task, seed=1)
    assert first.examples == 256
    assert torch.equal(first.probe.index, second.probe.index)
    assert not torch.equal(first.probe.index, other.probe.index)
    measurements, _ = workspace_of(task).measure_all(MEASURES)
    assert all("on a sample of 256 of 700" in m.estimator for m in measurements)


@pytest.mark.parametrize(
    ("n", "activations", "positions", "expected"),
    [
        pytest.param(1000, 500, 1, 256, id="a perceptron"),
        pytest.param(1000, 44_000, 1, 64, id="a convolutional network"),
        pytest.param(1000, 7_000, 32, 32, id="sequences"),
        pytest.param(1000, 500, 16, 64, id="short sequences"),
        pytest.param(20, 500, 1, 20, id="no more than there are"),
    ],
)
def test_the_sample_is_as_large_as_the_network_is_cheap(
    n: int, activations: int, positions: int, expected: int
) -> None:
    assert sample_size(n, activations, positions) == expected


def test_the_bound_by_the_worst_case() -> None:
    expected = math.sqrt((4.0 * math.log(200) / (4 * 0.01**2) + math.log(500 / 0.1) + 10) / 500)
    assert bound_term(4.0, 100, 0.01, 0.1, 500) == pytest.approx(expected, rel=1e-12)
