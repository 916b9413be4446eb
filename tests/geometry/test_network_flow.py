"""Initial-value geodesics of networks: constant speed, and the dense geodesic equation on a tiny one."""

import pytest
import torch
from torch import nn
from torch.func import jacfwd

from memspace.geometry.connection import scalar_curvature
from memspace.geometry.family import Family
from memspace.geometry.flow import flow
from memspace.geometry.network_flow import embedded_outputs, network_flow
from memspace.metric.fisher import build
from memspace.passes.space import ParameterSpace
from memspace.task.likelihood import Gaussian
from memspace.task.task import Task


def task_of(model, n=24, law=None):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, 2, generator=g)
    y = torch.randint(0, 3, (n,), generator=g) if law is None else torch.randn(n, 3, generator=g)
    return Task(model=model, train=(x, y), **({} if law is None else {"likelihood": law}))


def tiny(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 3)).eval()


def test_it_solves_the_geodesic_equation_of_the_damped_metric():
    task = task_of(tiny(), n=10)
    space = ParameterSpace.of(task)
    v = torch.randn(space.size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    v = 0.5 * v
    found = network_flow(task, v, (0.0, 0.5, 1.0), damping=0.05, tolerance=1e-6)
    dense = Family(task, damping=0.05)
    exact = flow(dense, space.flat(task.model).double(), v, (0.0, 0.5, 1.0), tolerance=1e-6, method="dopri5")
    assert torch.allclose(found.points, exact.x, atol=1e-4)
    assert found.drift < 1e-5
    assert float(found.speeds[0]) == pytest.approx(float(dense.norm(space.flat(task.model).double(), v)), rel=1e-9)
    assert float((found.points[-1] - found.points[0] - v).norm()) > 0.01 * float(v.norm())  # it bends


def test_the_map_has_the_fisher_as_its_metric():
    task = task_of(tiny())
    space = ParameterSpace.of(task)
    frame = jacfwd(embedded_outputs(task, space, torch.arange(24)))(space.flat(task.model).double())
    exact = build(task, space, "dense").to_dense()
    assert torch.allclose(frame.t() @ frame, exact, atol=1e-6)


def test_speed_is_constant_and_the_error_falls_with_the_tolerance():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(2, 8), nn.GELU(), nn.Linear(8, 3)).eval()
    task = task_of(model, n=16)
    size = ParameterSpace.of(task).size
    v = 0.4 * torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = {k: t.clone() for k, t in model.state_dict().items()}
    rough, fine = (
        network_flow(task, v, (0.0, 0.5, 1.0), damping=0.02, tolerance=t, solver=1e-10) for t in (1e-2, 1e-5)
    )
    assert fine.drift < 1e-3
    assert fine.drift < rough.drift
    assert bool((fine.fisher_speeds <= fine.speeds).all())
    assert fine.solves > 0
    assert fine.products > fine.solves
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())


def test_a_linear_model_goes_straight():
    torch.manual_seed(0)
    task = task_of(nn.Sequential(nn.Linear(2, 3)).eval(), law=Gaussian())
    v = torch.randn(ParameterSpace.of(task).size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = network_flow(task, v, damping=1e-3)
    assert torch.allclose(found.points[1] - found.points[0], v, atol=1e-7)
    with pytest.raises(ValueError, match="positive"):
        network_flow(task, v, damping=0.0)


class Logits(nn.Module):
    """Three logits of which two are free; the input is not looked at."""

    def __init__(self):
        super().__init__()
        self.free = nn.Parameter(torch.tensor([0.3, -0.5]))

    def forward(self, x):
        return torch.cat([self.free, torch.zeros_like(self.free[:1])]).expand(len(x), 3)


def test_scalar_curvature_of_small_families():
    # Constant class probabilities: the simplex in other coordinates, curvature 1/4 in its one plane.
    task = task_of(Logits(), n=5)
    family = Family(task)
    assert float(scalar_curvature(family, family.space.flat(task.model).double())) == pytest.approx(0.5, rel=1e-9)
    # A linear model with normal noise is flat.
    torch.manual_seed(0)
    line = task_of(nn.Sequential(nn.Linear(2, 3)).eval(), law=Gaussian())
    flat = Family(line)
    assert float(scalar_curvature(flat, flat.space.flat(line.model).double())) == pytest.approx(0, abs=1e-12)
