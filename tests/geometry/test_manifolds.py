"""Closed forms against each other, against numeric solutions of the geodesic equation and against published numbers."""

import math

import pytest
import torch

from memspace.geometry.connection import scalar_curvature, sectional_curvature
from memspace.geometry.flow import flow, logarithm, transport
from memspace.geometry.manifolds.categorical import Simplex
from memspace.geometry.manifolds.flat import Bernoullis, LinearGaussian
from memspace.geometry.manifolds.gaussian import DiagonalNormal, Normal
from memspace.geometry.manifolds.su2 import SU2, coordinates

TIGHT = 1e-6  # relative, the goal; solvers run at 1e-10


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


DESIGN = torch.randn(7, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
CASES = {
    "simplex": (Simplex(3), vector(0.7, 0.2), vector(0.25, 0.3)),
    "simplex-5": (Simplex(5), vector(0.4, 0.2, 0.1, 0.1), vector(0.1, 0.3, 0.3, 0.2)),
    "normal": (Normal(), vector(0.0, 1.0), vector(1.5, 0.6)),
    "normal-upright": (Normal(), vector(0.5, 1.0), vector(0.5, 2.0)),
    "diagonal-normal": (DiagonalNormal(2), vector(0.0, 1.0, 1.0, 0.5), vector(0.5, 0.7, 0.4, 0.8)),
    "bernoullis": (Bernoullis(3), vector(0.2, 0.5, 0.7), vector(0.4, 0.3, 0.9)),
    "linear-gaussian": (LinearGaussian(DESIGN, 0.5), vector(0.3, -1.0), vector(1.0, 2.0)),
    "su2": (SU2(4.0), vector(0.1, -0.2, 0.3), vector(0.5, 0.4, 0.1)),
    "su2-cheap": (SU2(0.5), vector(0.1, -0.2, 0.3), vector(0.5, 0.4, 0.1)),
}
every = pytest.mark.parametrize("name", CASES)


@every
def test_exp_undoes_log_and_the_distance_is_the_velocitys_length(name):
    m, x, y = CASES[name]
    v = m.log(x, y)
    assert torch.allclose(m.exp(x, v), y, rtol=0, atol=1e-10)
    assert float(m.norm(x, v)) == pytest.approx(float(m.distance(x, y)), rel=1e-10)
    assert float(m.distance(x, y)) == pytest.approx(float(m.distance(y, x)), rel=1e-10)
    half = m.geodesic(x, y, 0.5)
    assert float(m.distance(x, half)) == pytest.approx(float(m.distance(x, y)) / 2, rel=1e-8)


@every
def test_the_geodesic_equation_gives_the_same(name):
    m, x, y = CASES[name]
    v = m.log(x, y)
    out = flow(m, x, v, (0.0, 0.4, 1.0))
    assert out.drift < 1e-8
    assert torch.allclose(out.x[-1], y, rtol=0, atol=1e-8)
    assert torch.allclose(out.x[1], m.exp(x, 0.4 * v), rtol=0, atol=1e-8)


@every
def test_parallel_transport_is_that_of_the_connection_and_keeps_inner_products(name):
    m, x, y = CASES[name]
    v = m.log(x, y)
    rows = torch.eye(m.size, dtype=torch.float64)
    numeric = transport(m, x, v, rows)
    closed = torch.stack([m.transport(x, v, w) for w in rows])
    assert torch.allclose(numeric, closed, rtol=TIGHT, atol=1e-8)
    g, h = m.metric(x), m.metric(y)
    assert torch.allclose(closed @ h @ closed.t(), g, rtol=0, atol=1e-9 * float(g.abs().max()))


@every
def test_curvature_is_that_of_the_metric(name):
    m, x, _ = CASES[name]
    g = torch.Generator().manual_seed(3)
    u, v = torch.randn(2, m.size, generator=g, dtype=torch.float64)
    assert float(sectional_curvature(m, x, u, v)) == pytest.approx(float(m.sectional(x, u, v)), rel=TIGHT, abs=1e-9)
    assert float(scalar_curvature(m, x)) == pytest.approx(float(m.scalar(x)), rel=TIGHT, abs=1e-9)


@pytest.mark.parametrize("name", ["simplex", "normal", "diagonal-normal", "bernoullis", "linear-gaussian", "su2"])
def test_the_solver_finds_the_geodesic(name):
    m, x, y = CASES[name]
    found = logarithm(m, x, y)
    assert found.length == pytest.approx(float(m.distance(x, y)), rel=TIGHT)
    assert torch.allclose(found.velocity, m.log(x, y), rtol=TIGHT, atol=1e-7)
    # The string alone is of second order in its step; its polygon is never shorter than the geodesic.
    assert found.string.length == pytest.approx(found.length, rel=2e-2)


def test_published_numbers():
    normal = Normal()
    assert float(normal.distance(vector(0.0, 1.0), vector(3.0, 0.5))) == pytest.approx(3.4432, abs=5e-5)
    assert float(normal.distance(vector(1.0, 1.0), vector(1.0, 3.0))) == pytest.approx(2**0.5 * math.log(3))
    far = Simplex(2).distance(vector(1 - 1e-12), vector(1e-12))
    assert float(far) == pytest.approx(math.pi, abs=1e-5)
    assert float(Bernoullis(1).distance(vector(0.2), vector(0.6))) == pytest.approx(
        float(Simplex(2).distance(vector(0.2), vector(0.6))), rel=1e-12
    )


CUT = [(4.0, 0.5, 1.0000), (4.0, 1.5, 2.5053), (4.0, 3.0, 3.1373), (1.5, 2.5, 2.9385), (1.5, 2.0, 2.4495)]


@pytest.mark.parametrize(("penalty", "phi", "known"), CUT)
def test_distance_beyond_the_cut_locus(penalty, phi, known):
    m = SU2(penalty)
    start, end = vector(0.0, 0.0, -phi / 2), vector(0.0, 0.0, phi / 2)
    closed = float(m.distance(start, end))
    assert closed == pytest.approx(known, abs=5e-5)
    # Nearly the same gate, by the general equation and not by the special one.
    near = float(m.distance(start, end + vector(1e-7, 0.0, 0.0)))
    assert near == pytest.approx(closed, abs=1e-6)


@pytest.mark.parametrize(("penalty", "phi"), [(1.5, 2.5)])
def test_several_starts_pass_the_cut_locus_and_one_does_not(penalty, phi):
    m = SU2(penalty)
    start, end = vector(0.0, 0.0, -phi / 2), vector(0.0, 0.0, phi / 2)
    found = logarithm(m, start, end, bends=(vector(0.8, 0.0, 0.0),), tolerance=1e-8)
    assert found.length == pytest.approx(float(m.distance(start, end)), rel=TIGHT)
    straight = logarithm(m, start, end, newton=0)
    assert straight.string.length == pytest.approx(penalty**0.5 * phi, rel=TIGHT)
    assert straight.string.length > found.length * (1 + 1e-3)


def test_the_distance_of_su2_is_a_distance():
    m, g = SU2(3.0), torch.Generator().manual_seed(0)
    q = torch.randn(12, 4, generator=g, dtype=torch.float64)
    points = [coordinates(a / a.norm()) for a in q]
    d = torch.stack([torch.stack([m.distance(a, b) for b in points[:6]]) for a in points[:6]])
    assert torch.allclose(d, d.t(), atol=1e-8)
    assert bool((d[:, :, None] <= d[:, None, :] + d.t()[None, :, :] + 1e-8).all())
    # Gates after both leave it unchanged, and p = 1 is the round sphere.
    moved = [m.product(a, points[7]) for a in points[:2]]
    assert float(m.distance(*moved)) == pytest.approx(float(d[0, 1]), rel=1e-8)
    angle = 2 * math.asin(min(1.0, float((q[0] / q[0].norm() - q[1] / q[1].norm()).norm()) / 2))
    assert float(SU2(1.0).distance(points[0], points[1])) == pytest.approx(angle, rel=1e-8)
    with pytest.raises(ValueError, match="positive"):
        SU2(0.0)


def test_curvature_of_su2_by_plane():
    m, x = SU2(4.0), vector(0.0, 0.0, 0.0)
    e = torch.eye(3, dtype=torch.float64)
    assert float(m.sectional(x, e[0], e[1])) == pytest.approx(4 - 3 * 4.0)
    assert float(m.sectional(x, e[0], e[2])) == pytest.approx(4.0)
    assert float(sectional_curvature(m, x, e[1], e[2])) == pytest.approx(4.0, rel=1e-9)


def test_orders_of_convergence():
    m, x, y = CASES["normal"]
    v, exact = m.log(x, y), m.exp(x, m.log(x, y))
    errors = [float((flow(m, x, v, method="rk4", step=1 / k).x[-1] - exact).norm()) for k in (4, 8, 16)]
    assert math.log2(errors[1] / errors[2]) == pytest.approx(4, abs=0.3)
    lengths = [logarithm(m, x, y, levels=(k,), newton=0).string.length for k in (9, 17)]
    short = [abs(s - float(m.distance(x, y))) for s in lengths]
    assert math.log2(short[0] / short[1]) == pytest.approx(2, abs=0.3)
