"""Agreement with geomstats on the statistical manifolds that it has in closed form."""

import importlib

import numpy as np
import pytest
import torch

from memspace.geometry.manifolds.categorical import Simplex
from memspace.geometry.manifolds.gaussian import DiagonalNormal, Normal

pytestmark = pytest.mark.filterwarnings("ignore")  # the peer's own


@pytest.fixture(scope="module")
def information():
    if not hasattr(np, "trapz"):
        setattr(np, "trapz", np.trapezoid)  # noqa: B010 — it asks for the name that NumPy 2 dropped
    try:
        return importlib.import_module("geomstats.information_geometry")
    except ModuleNotFoundError:
        pytest.skip("needs geomstats")


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def compare(ours, theirs, pairs, to=lambda x: x.numpy(), back=lambda a: a, d=slice(None)):
    for x, y in pairs:
        distance = float(np.squeeze(theirs.metric.dist(to(x), to(y))))
        assert float(ours.distance(x, y)) == pytest.approx(distance, rel=1e-6)
        velocity = np.squeeze(theirs.metric.log(to(y), to(x)))
        assert np.allclose(ours.log(x, y).numpy(), back(velocity)[d], rtol=1e-6, atol=1e-9)


def test_class_probabilities(information):
    module = importlib.import_module("geomstats.information_geometry.categorical")
    pairs = [(vector(0.7, 0.2), vector(0.25, 0.3)), (vector(0.1, 0.1), vector(0.5, 0.45))]

    def whole(x):
        return torch.cat([x, 1 - x.sum().reshape(1)]).numpy()

    compare(Simplex(3), module.CategoricalDistributions(dim=2), pairs, whole, d=slice(0, 2))


def test_normal_laws(information):
    module = importlib.import_module("geomstats.information_geometry.normal")
    pairs = [(vector(0.0, 1.0), vector(3.0, 0.5)), (vector(-1.0, 0.3), vector(0.5, 0.2))]
    compare(Normal(), module.UnivariateNormalDistributions(), pairs)


def test_independent_normal_laws(information):
    module = importlib.import_module("geomstats.information_geometry.normal")
    theirs = module.DiagonalNormalDistributions(sample_dim=2)
    x, y = vector(0.0, 1.0, 1.0, 0.5), vector(0.5, 0.7, 0.4, 0.8)
    # Theirs: means first, then variances.
    to = [np.array([a[0], a[2], a[1] ** 2, a[3] ** 2]) for a in (x, y)]
    distance = float(np.squeeze(theirs.metric.dist(*to)))
    assert float(DiagonalNormal(2).distance(x, y)) == pytest.approx(distance, rel=1e-6)
