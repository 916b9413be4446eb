"""Reweighting and distilling in closed form."""

import pytest
import torch
from torch import nn

from memspace.editing.distil import DistilSettings, distil, quantised, taught
from memspace.editing.membership import class_weights, loss_attack
from memspace.editing.retrain import retrained
from memspace.editing.reweight import reweight, train_reweighted
from memspace.errors import DataError, TaskError
from memspace.task.builtin.train import fit
from memspace.task.likelihood import Gaussian
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Task
from tests.editing.test_forget import mlp_task, ridge_task


def test_weights_of_linear_regression():
    task, x, y, _gamma = ridge_task()
    g = torch.Generator().manual_seed(9)
    cx = torch.randn(6, 4, generator=g, dtype=torch.float64)
    cy = torch.randn(6, 2, generator=g, dtype=torch.float64)
    w = task.model.weight.detach()
    own = (x @ w.T - y).unsqueeze(2) * x.unsqueeze(1)  # (n, c, d)
    clean = ((cx @ w.T - cy).unsqueeze(2) * cx.unsqueeze(1)).mean(0)
    products = (own * clean).sum((1, 2))
    found = reweight(task, (cx, cy))
    assert torch.allclose(found.products, products, rtol=1e-9, atol=1e-12)
    wanted = products.clamp_min(0) / products.clamp_min(0).mean()
    assert torch.allclose(found.weights, wanted, rtol=1e-9)
    # the meta-gradient itself, by finite differences of one step
    rate, step = 0.1, 1e-5

    def clean_loss(i, epsilon):
        moved = w - rate * epsilon * own[i]
        return 0.5 * (cx @ moved.T - cy).square().sum(1).mean()

    for i in (0, 7):
        slope = -(clean_loss(i, step) - clean_loss(i, -step)) / (2 * step)
        assert float(slope) == pytest.approx(rate * float(products[i]), rel=1e-6)
    m = x.T @ x / 30 + 0.1 * torch.eye(4, dtype=torch.float64)
    solved = (own * (clean @ torch.linalg.inv(m))).sum((1, 2))
    assert torch.allclose(
        reweight(task, (cx, cy), preconditioned=True, damping=0.1).products, solved, rtol=1e-7, atol=1e-10
    )


def test_weights_need_clean_examples_and_a_damping():
    task = mlp_task()
    with pytest.raises(DataError):
        reweight(task, (torch.zeros(0, 5), torch.zeros(0, dtype=torch.long)))
    with pytest.raises(TaskError):
        reweight(task, (torch.zeros(1, 5), torch.zeros(1, dtype=torch.long)), preconditioned=True)
    with pytest.raises(TaskError):
        train_reweighted(task, (torch.zeros(1, 5), torch.zeros(1, dtype=torch.long)), 0)


def small():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_training_again_is_the_training(optimiser):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 5, generator=g), torch.randint(0, 3, (30,), generator=g)
    schedule = Recipe(3, 8, 0.05, 1e-3, optimiser=optimiser)
    model = fit(small, x, y, schedule, seed=4, record=False).model
    task = Task(model=model, train=(x, y), training=Training(small, schedule))
    again = retrained(task, 4)
    assert all(torch.allclose(v, again[k], rtol=1e-5, atol=1e-6) for k, v in model.state_dict().items())
    weights = torch.ones(30)
    weights[3] = 0
    y = y.clone()
    y[3] = (y[3] + 1) % 3  # the label of an example of weight 0 plays no part
    other = Task(model=model, train=(x, y), training=Training(small, schedule))
    without = retrained(task, 4, weights)
    assert all(torch.equal(v, without[k]) for k, v in retrained(other, 4, weights).items())
    assert not torch.equal(without["0.weight"], again["0.weight"])


def test_permuted_labels_get_little_weight():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=g)
    truth = (x @ torch.randn(5, 3, generator=g)).argmax(1)
    y = truth.clone()
    y[:60] = (y[:60] + 1) % 3
    schedule = Recipe(10, 50, 0.2, 1e-3, optimiser="sgd")
    model = fit(small, x, y, schedule, seed=0, record=False).model
    task = Task(model=model, train=(x, y), training=Training(small, schedule))
    _, weights = train_reweighted(task, (x[100:], truth[100:]), 0)
    assert float(weights[:60].mean()) < 0.3 * float(weights[60:].mean())


def test_one_step_distils_linear_regression():
    """From any start w₀ to w* in one step iff (η/M) X̃ᵀX̃ = I and (η/M) X̃ᵀỹ = w*."""
    d, rate = 4, torch.tensor([0.5], dtype=torch.float64)
    model = nn.Linear(d, 1, bias=False).double()
    g = torch.Generator().manual_seed(0)
    best = torch.randn(1, d, generator=g, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64))
    x = q * (d / rate).sqrt()
    y = x @ best.T
    for seed in range(1, 4):
        start = torch.randn(1, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        after = taught(model, {"weight": start.requires_grad_()}, x, y, rate, Gaussian(1.0).nll)
        assert torch.allclose(after["weight"], best, atol=1e-12)
        short = taught(model, {"weight": start}, 0.9 * x, 0.9 * y, rate, Gaussian(1.0).nll)
        assert not torch.allclose(short["weight"], best, atol=1e-3)


def test_quantised_to_so_many_levels():
    x = torch.linspace(-1, 2, 1000)
    for bits in (1, 3, 8):
        assert len(torch.unique(quantised(x, bits))) == 2**bits
        assert float((quantised(x, bits) - x).abs().max()) <= 3 / (2**bits - 1) / 2 + 1e-6


def test_distilled_examples_beat_real_ones():
    g = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(3, 5, generator=g)
    y = torch.arange(3).repeat(60)
    x = centres[y] + 2.5 * torch.randn(180, 5, generator=g)
    schedule = Recipe(20, 30, 0.1, 1e-3, optimiser="sgd")
    model = fit(small, x[:120], y[:120], schedule, seed=0, record=False).model
    task = Task(model=model, train=(x[:120], y[:120]), test=(x[120:], y[120:]), training=Training(small, schedule))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    made = distil(task, DistilSettings(iterations=200, steps=2, trials=4, rate=0.05))
    assert made.x.shape == (3, 5)
    assert made.y.tolist() == [0, 1, 2]
    found = {m.name: m for m in made.measurements}
    assert found["distil.accuracy.fresh"].value > found["distil.accuracy.real"].value
    assert found["distil.bits"].value == 3 * 5 * 8
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_distilling_needs_a_training():
    with pytest.raises(TaskError):
        distil(mlp_task())
    with pytest.raises(ValueError):
        DistilSettings(per_class=0)


def test_attack_counts():
    members, others = torch.tensor([0.1, 0.2]), torch.tensor([0.15, 0.3, 0.1])
    found = loss_attack(members, others, 0.18)
    # pairs won: 0.1 beats .15 and .3 and ties .1; 0.2 beats .3
    assert found.auc == pytest.approx((2 + 0.5 + 1) / 6)
    assert found.advantage == pytest.approx(1 / 2 - 2 / 3)
    weights = class_weights(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1, 2]))
    assert weights.tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6, 0])
