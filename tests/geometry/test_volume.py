"""Prior mass of what is as good: closed forms, Monte-Carlo, and symmetries counted apart."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from memspace.geometry.nielsen import growth
from memspace.geometry.stacked import probe_of
from memspace.geometry.subset_simulation import SubsetSimulation, subset_bits
from memspace.geometry.symmetry import symmetries, symmetry_directions
from memspace.geometry.volume import admissible_bits, kl_of
from memspace.metric.fisher import build
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task


def _log_chi_square(x, d):
    """log Pr(χ²_d ≤ x) by the power series of the incomplete gamma function, which does not underflow."""
    a, x = d / 2, x / 2
    term, total = 1.0, 1.0
    for n in range(1, 2000):
        term *= x / (a + n)
        total += term
    return a * math.log(x) - x - math.lgamma(a + 1) + math.log(total)


@pytest.mark.parametrize("d", [1, 3, 20, 400])
@pytest.mark.parametrize("epsilon", [1e-4, 0.05, 0.6])
def test_equal_eigenvalues_are_a_chi_square(d, epsilon):
    found = admissible_bits(torch.full((d,), 2.0), 0.7, epsilon * d).bits
    exact = -_log_chi_square(epsilon * d * 2 / (2.0 * 0.49), d) / math.log(2)
    assert found == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("small", [1.0, 0.3, 1e-4, 1e-8])
@pytest.mark.parametrize("epsilon", [0.003, 0.4, 2.5])
def test_two_directions_are_exact(small, epsilon):
    """Against quadrature over the first: the chi-square of the second, for the normal prior and for the box."""
    values = torch.tensor([2.0, 2 * small], dtype=torch.float64)  # w = 1 and small
    edge = math.sqrt(epsilon)
    normal, _ = integrate.quad(
        lambda z: 2 * stats.norm.pdf(z) * stats.chi2.cdf(max(0.0, epsilon - z * z) / small, 1), 0, edge, epsabs=0
    )
    assert admissible_bits(values, 1.0, epsilon).bits == pytest.approx(-math.log2(normal), abs=1e-4)
    box, _ = integrate.quad(
        lambda u: min(1.0, math.sqrt(max(0.0, epsilon - u * u) / small)), 0, min(1.0, edge), epsabs=0, limit=400
    )
    assert admissible_bits(values, 1.0, epsilon, prior="box").bits == pytest.approx(-math.log2(box), abs=2e-3)


def test_many_alike_directions_of_a_box_say_how_far_the_formula_may_be_off():
    values = torch.linspace(1, 3, 65).double()
    found = admissible_bits(values, 1.0, 6.0, prior="box")
    exact = admissible_bits(values[1:], 1.0, 6.0, prior="box")
    assert exact.error == 0 < found.error < 0.01
    assert 0 < found.bits - exact.bits < 2  # a direction more costs bits


def test_the_box_against_counting_and_against_the_ellipsoid():
    values = torch.tensor([3.0, 1.0, 0.3, 0.0], dtype=torch.float64)
    u = np.random.default_rng(0).uniform(-1, 1, (400_000, 3))
    quadratic = 0.5 * (u**2 @ values[:3].numpy())
    for epsilon in (0.05, 0.4, 1.2):
        share = (quadratic <= epsilon).mean()
        error = math.sqrt((1 - share) / share / len(u)) / math.log(2)
        assert admissible_bits(values, 1.0, epsilon, prior="box").bits == pytest.approx(
            -math.log2(share), abs=5 * error + 0.08
        )
    assert admissible_bits(values, 1.0, 3.0, prior="box").bits == 0  # all of the box
    # Small enough, the ellipsoid lies inside the box: its volume over the box's, in closed form.
    epsilon, d = 1e-4, 3
    ball = math.pi ** (d / 2) / math.gamma(d / 2 + 1)
    volume = ball * (2 * epsilon) ** (d / 2) / math.sqrt(float(values[:3].prod())) / 2**d
    assert admissible_bits(values, 1.0, epsilon, prior="box").bits == pytest.approx(-math.log2(volume), abs=0.05)


def test_flat_directions_cost_nothing_and_bits_grow_with_precision():
    values = torch.tensor([5.0, 1.0, 0.2], dtype=torch.float64)
    padded = torch.cat([values, torch.zeros(1000).double()])
    assert admissible_bits(padded, 1.0, 0.1).bits == pytest.approx(admissible_bits(values, 1.0, 0.1).bits)
    bits = [admissible_bits(values, 1.0, e).bits for e in (1.0, 0.1, 0.01, 1e-4)]
    assert bits == sorted(bits)
    # In the limit ½ log₂ of a hundredfold per direction.
    assert bits[3] - bits[2] == pytest.approx(3 * 0.5 * math.log2(100), abs=0.05)
    assert admissible_bits(torch.zeros(5), 1.0, 0.1).bits == 0
    for wrong in ({"prior": "flat"}, {}):
        with pytest.raises(ValueError, match="positive"):
            admissible_bits(values, 1.0 if wrong else -1.0, 0.1, **wrong)


def test_subset_simulation_finds_a_known_mass():
    values = torch.linspace(0.5, 3, 12).double()

    def kl(delta):
        return 0.5 * (delta.square() * values).sum(1)

    exact = admissible_bits(values, 1.0, 0.05)
    found = subset_bits(kl, 12, 1.0, 0.05, SubsetSimulation(samples=300))
    assert exact.bits > 20
    assert found.bits == pytest.approx(exact.bits, abs=4 * found.error + 0.3)
    assert 0 < found.error < 2


def test_the_interval_of_subset_simulation_covers():
    """Of four runs by Student's t; with 1.96 it covered 26 of 32."""
    values = torch.linspace(0.5, 3, 6).double()
    exact = admissible_bits(values, 1.0, 0.05).bits
    ends = [
        subset_bits(
            lambda d: 0.5 * (d.square() * values).sum(1), 6, 1.0, 0.05, SubsetSimulation(samples=100, seed=s)
        ).interval
        for s in range(60)
    ]
    held = sum(low <= exact <= high for low, high in ends)
    assert held >= 60 * 0.95 - 3 * (60 * 0.95 * 0.05) ** 0.5


def network(activation):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), activation(), nn.Linear(4, 3)).double().eval()
    g = torch.Generator().manual_seed(1)
    x = torch.randn(60, 3, generator=g, dtype=torch.float64)
    return Task(model=model, train=(x, torch.randint(0, 3, (60,), generator=g)))


def test_the_volume_of_a_network_by_its_spectrum_and_by_counting():
    task = network(nn.Tanh)
    space = ParameterSpace.of(task)
    values = build(task, space, "dense").eigenvalues()
    probe = probe_of(task, space, torch.arange(60))
    kl = kl_of(probe, space.flat(task.model).double())
    assert float(kl(torch.zeros(1, space.size).double())[0]) == 0
    for radius, epsilon in ((0.02, 2e-5), (0.1, 5e-4)):
        predicted = admissible_bits(values, radius, epsilon).bits
        counted = subset_bits(kl, space.size, radius, epsilon, SubsetSimulation(samples=300))
        assert predicted > 3
        assert counted.bits == pytest.approx(predicted, rel=0.1, abs=4 * counted.error + 0.3)


def test_symmetries_are_counted_and_confirmed_by_the_metric():
    task = network(nn.ReLU)
    space = ParameterSpace.of(task)
    state = task.model.state_dict()
    scaled, shifted = symmetry_directions(task, space, state)
    assert scaled.shape == (4, space.size)
    assert shifted.shape == (5, space.size)  # four weights columns and the bias
    metric = build(task, space, "dense")
    found = symmetries(task, space, state, metric)
    assert (found.rescaling, found.shift) == (4, 5)
    assert found.permutations == pytest.approx(math.log2(24))
    assert found.flat >= 9
    assert found.unexplained == found.flat - 9
    smooth = network(nn.Tanh)
    other = symmetries(smooth, ParameterSpace.of(smooth), smooth.model.state_dict(), build(smooth, space, "dense"))
    assert (other.rescaling, other.shift) == (0, 5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.LayerNorm])
def test_symmetries_behind_a_norm_are_counted(kind, bias):
    """Seven units: each rescaled by the norm's own weights, and what the norm takes out of the layer before it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7, bias=bias), kind(7), nn.ReLU(), nn.Linear(7, 3)).double()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(64, 5).double())
        model[1].weight.uniform_(0.5, 2)
        model[1].bias.normal_(0, 0.2)  # no unit is off for all inputs
    task = Task(model.eval(), (torch.randn(200, 5).double(), torch.randint(3, (200,))))
    space = ParameterSpace.of(task)
    found = symmetries(task, space, model.state_dict(), build(task, space, "dense"))
    taken = 7 + 7 * bias if kind is nn.BatchNorm1d else 1 + 5 + bias
    assert (found.rescaling, found.shift, found.norms) == (7, 8, taken)
    assert found.unexplained == 0


def test_complexity_of_random_circuits_grows_and_levels_off():
    found = growth(4.0, 50, circuits=8)
    assert bool((found.least <= found.spent + 1e-9).all())  # the circuit itself is a path
    assert float(found.least[0]) == pytest.approx(0.25, rel=1e-9)  # one cheap gate is its own shortest circuit
    assert float(found.least[5]) > 1.5 * float(found.least[0])
    late = float(found.least[40:].mean())
    assert late == pytest.approx(found.plateau, rel=0.2)
    assert late < 0.25 * float(found.spent[-1])
