"""Forgetting: exact where the loss is quadratic, second order where it is not, and nothing of the user's moves."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from memspace.editing.damping import trial_set
from memspace.editing.forget import forget
from memspace.editing.solver import Accuracy
from memspace.errors import DataError
from memspace.task.likelihood import Categorical, Gaussian
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Task

EXACT = Accuracy(1e-12, 500)


def ridge(x, y, alpha):
    """argmin ½‖y − Xw‖² + α/2 ‖w‖²."""
    return torch.linalg.solve(x.T @ x + alpha * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)


def ridge_task(n=30, d=4, c=2, gamma=0.05):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    y = torch.randn(n, c, generator=g, dtype=torch.float64)
    model = nn.Linear(d, c, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(ridge(x, y, n * gamma).T)
    return Task(model=model, train=(x, y), test=(x[:5], y[:5]), likelihood=Gaussian(1.0)), x, y, gamma


@pytest.mark.parametrize("method", ["dual", "cg"])
def test_ridge_without_a_set_is_exact(method):
    task, x, y, gamma = ridge_task()
    gone = [3, 7, 8, 20]
    edit = forget(task, gone, damping=gamma, method=method, accuracy=EXACT)
    keep = [i for i in range(30) if i not in gone]
    truth = ridge(x[keep], y[keep], 30 * gamma).T
    # both solves are of float64 systems of condition below 1e3
    assert torch.allclose(edit.state["weight"], truth, rtol=1e-9, atol=1e-10)
    assert not torch.allclose(edit.state["weight"], task.model.weight, rtol=1e-3)
    predicted = edit.measurement("forget.kl_predicted.retained").value
    assert predicted == pytest.approx(edit.measurement("forget.kl.retained").value, rel=1e-9)  # linear and Gaussian


def fitted(x, y, w, alpha, c=3):
    """The optimum of Σ w_i CE_i + α/2 ‖θ‖² of softmax regression, by Newton's method on the dense Hessian."""
    theta = torch.zeros(c, x.shape[1], dtype=torch.float64)
    onehot = torch.nn.functional.one_hot(y, c).double()
    for _ in range(50):
        p = torch.softmax(x @ theta.T, -1)
        gradient = ((p - onehot) * w[:, None]).T @ x + alpha * theta
        h = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
        hessian = torch.einsum("n,nab,ni,nj->aibj", w, h, x, x).reshape(theta.numel(), -1)
        hessian += alpha * torch.eye(theta.numel(), dtype=torch.float64)
        theta = theta - torch.linalg.solve(hessian, gradient.flatten()).reshape(theta.shape)
    return theta


def softmax_task(n=400, d=3, gamma=0.02, copies=1):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    y = torch.randint(0, 3, (n,), generator=g)
    x[:copies], y[:copies] = x[0].clone(), y[0].clone()
    model = nn.Linear(d, 3, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(fitted(x, y, torch.ones(n, dtype=torch.float64), n * gamma))
    return Task(model=model, train=(x, y), likelihood=Categorical()), x, y, gamma


def error_of(task, x, y, gamma, size, steps=1):
    edit = forget(task, list(range(size)), damping=gamma, method="cg", steps=steps, accuracy=EXACT)
    w = torch.ones(len(x), dtype=torch.float64)
    w[:size] = 0
    return float((edit.state["weight"] - fitted(x, y, w, len(x) * gamma)).norm())


def test_softmax_regression_is_wrong_to_second_order():
    # copies of one example: their gradients add up, so that the set's size is the size of the step
    task, x, y, gamma = softmax_task(n=1000, copies=40)
    errors = [error_of(task, x, y, gamma, k) for k in (5, 10, 20)]
    for small, large in pairwise(errors):
        assert 3.2 < large / small < 5.0  # 4 and a third-order part of the order of |S|/N


def test_more_steps_reach_the_retrained_softmax_regression():
    task, x, y, gamma = softmax_task()
    errors = [error_of(task, x, y, gamma, 40, steps) for steps in (1, 2, 4)]
    assert errors[1] < errors[0] / 10  # Newton's method squares the error
    assert errors[2] < 1e-10


def mlp_task(**more):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()
    x, y = torch.randn(40, 5), torch.randint(0, 3, (40,))
    return Task(model=model, train=(x, y), test=(x[:10], y[:10]), **more)


def test_the_model_stays_and_the_state_loads_back(tmp_path):
    task = mlp_task()
    task.model.train()
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    random = torch.random.get_rng_state()
    edit = forget(task, [1, 5], damping=0.1)
    assert task.model.training
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert all(p.grad is None for p in task.model.parameters())
    edit.save(tmp_path / "new.safetensors")
    from memspace.task.checkpoint import load_weights

    other = mlp_task().model
    load_weights(other, tmp_path / "new.safetensors")
    assert all(torch.equal(v, edit.state[k]) for k, v in other.state_dict().items())
    assert not torch.equal(other[0].weight, task.model[0].weight)
    assert not any(t.data_ptr() == task.model.state_dict()[k].data_ptr() for k, t in edit.state.items())


def test_only_chosen_parameters_move():
    edit = forget(mlp_task(parameters="3.*"), [1, 5], damping=0.1)
    task = mlp_task()
    moved = {k for k, v in edit.state.items() if not torch.equal(v, task.model.state_dict()[k])}
    assert moved == {"3.weight", "3.bias"}


def test_tied_weights_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4, bias=False)
            self.second = nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(torch.tanh(self.first(x)))

    torch.manual_seed(0)
    task = Task(model=Tied(), train=(torch.randn(12, 4), torch.randint(0, 4, (12,))))
    edit = forget(task, [2], damping=0.1)
    assert torch.equal(edit.state["first.weight"], edit.state["second.weight"])
    assert not torch.equal(edit.state["first.weight"], task.model.first.weight)


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([], "no examples"),
        ([40], "no training example 40"),
        ([-1], "no training example -1"),
        (list(range(40)), "nothing is left"),
        (torch.zeros(2, 2, dtype=torch.long), "shape (2, 2)"),
        ([0.5], "float"),
    ],
)
def test_examples_that_make_no_sense(examples, said):
    with pytest.raises(DataError) as error:
        forget(mlp_task(), examples, damping=0.1)
    assert said in str(error.value)


@pytest.mark.parametrize("more", [{"damping": 0.0}, {"damping": -1.0}, {"method": "magic"}, {"steps": 0}])
def test_arguments_that_make_no_sense(more):
    with pytest.raises(ValueError):
        forget(mlp_task(), [1], **{"damping": 0.1, **more})


def test_twice_the_same_example_is_once():
    one, two = (forget(mlp_task(), e, damping=0.1) for e in ([4], [4, 4]))
    assert torch.equal(one.change, two.change)


def test_damping_from_the_time_of_training():
    recipe = Recipe(epochs=3, batch=10, rate=0.2, decay=1e-3, optimiser="sgd", momentum=0.5)
    rates = [0.1 * (1 + math.cos(math.pi * k / 12)) for k in range(12)]  # 4 steps an epoch
    assert recipe.time(40) == pytest.approx(2 * sum(rates), rel=1e-12)
    task = mlp_task(training=Training(lambda: mlp_task().model, recipe))
    edit = forget(task, [1])
    assert edit.damping == pytest.approx(1 / (2 * sum(rates)) + 1e-3, rel=1e-12)
    assert "training time" in edit.method
    assert Recipe(3, 10, 0.2, 1e-3).time(40) is None  # Adam


def test_ridge_in_place_of_descent_is_within_a_third():
    """The rule behind the damping: 1/(s + 1/T) against (1 − exp(−Ts))/s over all curvatures."""
    s = torch.logspace(-6, 6, 10_001, dtype=torch.float64)
    ratio = -torch.expm1(-s) / s * (s + 1)
    assert float(ratio.min()) >= 1 - 1e-9
    assert float(ratio.max()) < 1.3


def test_damping_by_trial_meets_the_refit():
    """For ridge regression the refit's loss on the trial set is met at the decay it was trained with."""
    task, x, y, gamma = ridge_task(n=200, d=40)

    def refit(index, seed):
        model = nn.Linear(40, 2, bias=False).double()
        with torch.no_grad():  # weight 0 for what is left out: the decay stays N·γ
            model.weight.copy_(ridge(x[index], y[index], 200 * gamma).T)
        return model

    from dataclasses import replace

    edit = forget(replace(task, refit=refit), [0, 1], accuracy=EXACT)
    # the loss is interpolated in log γ over half a decade, where it bends
    assert edit.damping == pytest.approx(gamma, rel=0.5)
    assert "refit" in edit.method


def test_without_training_or_refit_the_damping_is_flagged():
    damping = forget(mlp_task(), [1]).measurement("forget.damping")
    assert not damping.reliable
    assert "evidence" in damping.estimator


def test_trial_set_avoids_the_examples():
    avoid = torch.arange(100)
    found = trial_set(400, avoid, 0)
    assert len(found) == 20
    assert int(found.min()) >= 100
