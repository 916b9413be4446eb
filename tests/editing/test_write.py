"""Writing: the exact minimum-norm update where all is linear and Gaussian; bad input in one sentence."""

import math

import pytest
import torch
from torch import nn

from memspace.editing.solver import Accuracy
from memspace.editing.write import SAFE, WriteTarget, write
from memspace.errors import DataError, LabelError, ShapeError
from memspace.task.likelihood import Gaussian
from memspace.task.task import Task
from tests.editing.test_forget import mlp_task, ridge_task

EXACT = Accuracy(1e-12, 500)


@pytest.mark.parametrize("method", ["dual", "cg"])
def test_linear_gaussian_is_the_minimum_norm_update(method):
    """One output: Δw = M⁻¹x (r − √2ℓ·sign r)/(xᵀM⁻¹x), M = XᵀX/N + γI."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=g, dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False).double()
    task = Task(model=model, train=(x, torch.zeros(30, 1, dtype=torch.float64)), likelihood=Gaussian(1.0))
    new, y = torch.randn(1, 4, generator=g, dtype=torch.float64), torch.full((1, 1), 3.0, dtype=torch.float64)
    floor = 0.5 * math.log(2 * math.pi)
    target, gamma = floor + 0.02, 0.01
    edit = write(task, new, y, target=WriteTarget(target), damping=gamma, method=method, accuracy=EXACT)
    m = x.T @ x / 30 + gamma * torch.eye(4, dtype=torch.float64)
    along = torch.linalg.solve(m, new[0])
    r = 3.0 - float(new[0] @ model.weight[0].detach())
    left = math.sqrt(2 * (target * (1 - SAFE) - floor)) if target * (1 - SAFE) > floor else 0.0
    change = along * (r - math.copysign(left, r)) / float(new[0] @ along)
    assert torch.allclose(edit.change, change, rtol=1e-6, atol=1e-8)
    assert edit.measurement("write.stored").value == 1
    kl = edit.measurement("write.kl.retained").value
    assert kl == pytest.approx(edit.measurement("write.kl_predicted.retained").value, rel=1e-8)
    assert kl == pytest.approx(0.5 * float(change @ (x.T @ x / 30) @ change), rel=1e-5)


def test_what_is_stored_already_moves_nothing():
    task, x, _y, gamma = ridge_task()
    f = task.model(x[:1]).detach()
    edit = write(task, x[:1], f, target=WriteTarget(3.0), damping=gamma)
    assert float(edit.change.norm()) == 0


def test_several_examples_are_stored_and_disturb_less_than_plain_descent():
    task = mlp_task()
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    g = torch.Generator().manual_seed(5)
    x, y = torch.randn(2, 5, generator=g), torch.tensor([0, 2])
    edit = write(task, x, y, target=WriteTarget(0.3), damping=1e-3)
    assert edit.measurement("write.stored").value == 1
    assert edit.measurement("write.loss_after").value <= 0.3
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    import copy

    model = copy.deepcopy(task.model)
    optimiser = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(2000):
        loss = nn.functional.cross_entropy(model(x), y, reduction="none")
        if float(loss.detach().max()) <= 0.3:
            break
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
    inputs = task.train.batch(range(40)).x
    with torch.no_grad():
        plain = task.likelihood.kl(task.model(inputs), model(inputs)).mean()
    assert edit.measurement("write.kl.retained").value < float(plain)


def test_bad_examples():
    task = mlp_task()
    with pytest.raises(ShapeError):
        write(task, torch.randn(1, 7), torch.tensor([0]))
    with pytest.raises(LabelError):
        write(task, torch.randn(1, 5), torch.tensor([3]))
    with pytest.raises(DataError):
        write(task, torch.randn(2, 5), torch.tensor([1]))
    with pytest.raises(DataError):
        write(task, torch.randn(0, 5), torch.zeros(0, dtype=torch.long))
    with pytest.raises(DataError):
        write(task, torch.full((1, 5), float("nan")), torch.tensor([0]))
    with pytest.raises(ValueError):
        WriteTarget(0.0)
