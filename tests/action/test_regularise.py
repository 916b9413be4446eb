"""Regularisers of the action: against the dense Fisher matrix, finite differences, closed forms and symmetries."""

import copy

import pytest
import torch
from torch import nn

from memspace.action.regularise import FORMS, FisherProximal, FisherRaoNorm
from memspace.errors import ShapeError, TaskError, WeightsMismatchError
from memspace.passes.space import ParameterSpace
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Poisson
from tests.contract.networks import dense_fisher, network

LAWS = [Categorical(), Bernoulli(), Gaussian(0.7), Poisson()]


def number(t):
    return float(t.detach())


def relu_net(seed, bias=False, dtype=torch.float64):
    torch.manual_seed(seed)
    layers = [nn.Linear(4, 6, bias=bias), nn.ReLU(), nn.Linear(6, 5, bias=bias), nn.ReLU(), nn.Linear(5, 3, bias=bias)]
    return nn.Sequential(*layers).to(dtype)


def flat(model):
    return ParameterSpace(model).flat(model)


def gradients(model, penalty):
    return dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(penalty, list(model.parameters())), strict=True)
    )


def finite_difference(model, value, seed, step=1e-5):
    """d/dt value(θ + t v) at 0 and the direction v, central: error O(step²)."""
    torch.manual_seed(seed)
    direction = [torch.randn_like(p) for p in model.parameters()]
    before = [p.detach().clone() for p in model.parameters()]

    def at(t):
        with torch.no_grad():
            for p, b, d in zip(model.parameters(), before, direction, strict=True):
                p.copy_(b + t * d)
        return number(value())

    slope = (at(step) - at(-step)) / (2 * step)
    at(0.0)
    return slope, direction


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("name", ["linear", "transformer", "lstm", "conv2d dilated"])
def test_norm_is_that_of_the_dense_fisher(name, law):
    model, x = network(name, seed=len(law.name))
    y = torch.zeros(1)
    _, penalty = FisherRaoNorm(model, law)(x)
    space = ParameterSpace(model)
    theta = space.flat(model)
    expected = theta @ dense_fisher(model, space, law, x, y) @ theta
    torch.testing.assert_close(penalty, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "lstm"])  # a forward-mode derivative, and the reverse of a reverse one
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_norm_has_the_gradient_of_finite_differences(law, name):
    model, x = network(name, seed=3)
    norm = FisherRaoNorm(model, law)
    f, penalty = norm(x)
    found = gradients(model, penalty)
    slope, direction = finite_difference(model, lambda: norm(x)[1], seed=5)
    inner = sum(number((g * d).sum()) for g, d in zip(found.values(), direction, strict=True))
    assert inner == pytest.approx(slope, rel=1e-5, abs=1e-7)
    torch.testing.assert_close(f, model(x))


@pytest.mark.parametrize("seed", range(3))
def test_norm_of_a_homogeneous_network_is_that_of_its_outputs(seed):
    model, law = relu_net(seed), Categorical()
    x = torch.randn(7, 4, dtype=torch.float64)
    f, exact = FisherRaoNorm(model, law)(x)
    expected = 9 * (f * law.fisher_matvec(f, f)).sum(-1).mean()
    torch.testing.assert_close(exact, expected)
    _, cheap = FisherRaoNorm(model, law, degree=3)(x)
    torch.testing.assert_close(cheap, exact)
    for a, b in zip(gradients(model, cheap).values(), gradients(model, exact).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_rescaling_of_hidden_units_changes_the_weights_and_not_the_norm(seed):
    model = relu_net(seed, bias=True)
    x = torch.randn(6, 4, dtype=torch.float64)
    norm = FisherRaoNorm(model, Categorical())
    before, moved = norm(x)[1], flat(model)
    scale = torch.exp(torch.randn(6, dtype=torch.float64))
    with torch.no_grad():
        model[0].weight.mul_(scale[:, None])
        model[0].bias.mul_(scale)
        model[2].weight.div_(scale)
    assert number((flat(model) - moved).norm()) > 0.1
    torch.testing.assert_close(norm(x)[1], before)


def test_padding_does_not_count_and_positions_are_summed():
    model, x = network("transformer", seed=1)
    law = Categorical()
    y = torch.zeros(x.shape, dtype=torch.long)
    y[:, -1] = -100
    _, penalty = FisherRaoNorm(model, law)(x, y)
    f, moved = FisherRaoNorm(model, law)._moved(x)
    kept = (moved * law.fisher_matvec(f, moved)).sum(-1)[:, :-1]
    torch.testing.assert_close(penalty, kept.sum(1).mean())
    proximal = FisherProximal(copy.deepcopy(model), law, 1.0)
    with torch.no_grad():
        proximal.model.head.weight.mul_(1.2)
    assert 0 < number(proximal(x, y)[1]) < number(proximal(x)[1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_proximal_penalty_is_the_fisher_length_of_a_small_move(law, form):
    """(1/2τ) vᵀFv to leading order: the error is third order in the move, so halving it divides the error by 8."""
    model, x = network("linear", seed=2)
    space, tau = ParameterSpace(model), 0.3
    fisher = dense_fisher(model, space, law, x, torch.zeros(1))
    torch.manual_seed(4)
    v = torch.randn(space.size, dtype=torch.float64)
    proximal = FisherProximal(model, law, tau, form=form)
    start = space.flat(model)
    relative = []
    for size in (2e-3, 1e-3):
        with torch.no_grad():
            for name, t in space.unpack(start + size * v).items():
                dict(model.named_parameters())[name].copy_(t)
        value = number(proximal(x)[1])
        relative.append(value / number(size**2 * v @ fisher @ v / (2 * tau)) - 1)
    assert abs(relative[1]) < 0.02
    assert abs(relative[1]) < 0.6 * abs(relative[0]) + 1e-9


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_proximal_penalty_is_zero_with_zero_gradient_where_nothing_moved(law, form):
    model = relu_net(1, dtype=torch.float32)
    with torch.no_grad():
        model[4].weight.mul_(200 if law.name == "categorical" else 1)  # probabilities that round to 0
    x = torch.randn(5, 4)
    _, penalty = FisherProximal(model, law, 0.5, form=form)(x)
    assert number(penalty) == pytest.approx(0, abs=1e-6)
    for g in gradients(model, penalty).values():
        torch.testing.assert_close(g, torch.zeros_like(g), rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_proximal_penalty_has_the_gradient_of_finite_differences(form):
    model, x = network("linear", seed=6)
    proximal = FisherProximal(model, Categorical(), 0.2, form=form)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    found = gradients(model, proximal(x)[1])
    slope, direction = finite_difference(model, lambda: proximal(x)[1], seed=7)
    inner = sum(number((g * d).sum()) for g, d in zip(found.values(), direction, strict=True))
    assert inner == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
def test_proximal_step_of_a_linear_model_shrinks_the_error_by_1_over_1_plus_tau(tau):
    """½E(f−y)² + (1/2τ)E(f−f_k)² is least at f = (f_k + τy)/(1+τ): the natural-gradient flow of time log(1+τ)."""
    torch.manual_seed(int(tau * 10))
    x = torch.randn(30, 5, dtype=torch.float64)
    y = x @ torch.randn(5, 1, dtype=torch.float64)
    model = nn.Linear(5, 1, bias=False, dtype=torch.float64)
    law = Gaussian()
    first = model(x).detach()
    proximal = FisherProximal(model, law, tau)
    descent = torch.optim.LBFGS(model.parameters(), max_iter=100, tolerance_grad=1e-14, tolerance_change=1e-16)

    def closure():
        descent.zero_grad()
        f, penalty = proximal(x)
        loss = law.nll(f, y).mean() + penalty
        loss.backward()
        return loss

    descent.step(closure)
    torch.testing.assert_close(model(x), (first + tau * y) / (1 + tau), rtol=1e-6, atol=1e-8)


def test_renewing_puts_the_network_in_the_references_place_or_averages():
    model = relu_net(0)
    x = torch.randn(5, 4, dtype=torch.float64)
    copied, slow = FisherProximal(model, Categorical(), 1.0), FisherProximal(model, Categorical(), 1.0, average=0.75)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    copied.renew()
    slow.renew()
    assert number(copied(x)[1]) == 0
    for name, t in slow.state_dict().items():
        torch.testing.assert_close(t, 0.75 * start[name] + 0.25 * model.state_dict()[name])
    stored = slow.state_dict()
    slow.renew()
    slow.load_state_dict(stored)
    assert all(torch.equal(t, stored[k]) for k, t in slow.state_dict().items())


def test_random_masks_and_batch_statistics_are_those_of_the_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    other = copy.deepcopy(model)
    x = torch.randn(16, 4)
    torch.manual_seed(3)
    expected = other(x)
    torch.manual_seed(3)
    f, penalty = FisherProximal(model, Categorical(), 1.0)(x)
    assert torch.equal(f, expected)
    assert number(penalty) == 0
    assert all(torch.equal(b, c) for b, c in zip(model.buffers(), other.buffers(), strict=True))
    norm, other = FisherRaoNorm(model, Categorical()), copy.deepcopy(model)
    f, penalty = norm(x)  # batch norm in training mode: by the reverse of a reverse derivative
    other(x)
    assert all(torch.equal(b, c) for b, c in zip(model.buffers(), other.buffers(), strict=True))
    assert number(penalty) > 0


@pytest.mark.parametrize("make", [FisherRaoNorm, lambda m, law: FisherProximal(m, law, 0.5)])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_autocast_changes_penalty_and_gradient_by_rounding_only(law, make):
    torch.manual_seed(11)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 3))
    regulariser = make(model, law)
    x = torch.randn(64, 8)
    with torch.no_grad():
        model[2].weight.add_(0.2 * torch.randn_like(model[2].weight))
    _, exact = regulariser(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        f, penalty = regulariser(x)
    assert f.dtype == torch.bfloat16
    assert penalty.dtype == torch.float32
    # bfloat16 rounds to 2^-8 relative; sums over 32 units and 64 examples average it
    assert number(penalty) == pytest.approx(number(exact), rel=0.03)
    a, b = (torch.cat([g.flatten() for g in gradients(model, p).values()]) for p in (penalty, exact))
    assert number(torch.cosine_similarity(a, b, dim=0)) > 0.999
    assert number(a.norm()) == pytest.approx(number(b.norm()), rel=0.03)


def test_the_model_keeps_nothing_of_a_regulariser():
    model = relu_net(2)
    keys, hooks = list(model.state_dict()), len(model._forward_hooks)
    proximal, norm = FisherProximal(model, Categorical(), 1.0), FisherRaoNorm(model, Categorical())
    x = torch.randn(3, 4, dtype=torch.float64)
    proximal(x), norm(x)
    assert list(model.state_dict()) == keys
    assert len(model._forward_hooks) == hooks
    assert all(p.grad is None for p in model.parameters())


def test_frozen_parameters_stay_outside_the_norm():
    model, x = network("frozen", seed=1)
    space = ParameterSpace(model)
    theta = space.flat(model)
    law = Categorical()
    expected = theta @ dense_fisher(model, space, law, x, torch.zeros(1)) @ theta
    torch.testing.assert_close(FisherRaoNorm(model, law)(x)[1], expected)


def test_what_cannot_be_regularised_is_said_in_one_sentence():
    model, law = relu_net(0, bias=True), Categorical()
    x = torch.randn(3, 4, dtype=torch.float64)
    with pytest.raises(TaskError, match="not homogeneous of degree 3"):
        FisherRaoNorm(model, law, degree=3)(x)
    with pytest.raises(TaskError, match="τ > 0"):
        FisherProximal(model, law, 0.0)
    with pytest.raises(TaskError, match="form of kl or fisher-rao"):
        FisherProximal(model, law, 1.0, form="l2")
    with pytest.raises(WeightsMismatchError, match="not the network's"):
        FisherProximal(model, law, 1.0).load_state_dict({"a": torch.zeros(1)})
    with pytest.raises(ShapeError, match="not \\(examples"):
        FisherRaoNorm(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), law)(x.float())
    for p in model.parameters():
        p.requires_grad_(False)
    with pytest.raises(TaskError, match="no parameter requires a gradient"):
        FisherRaoNorm(model, law)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", [FisherRaoNorm, lambda m, law: FisherProximal(m, law, 0.5)])
def test_a_gpu_gives_what_the_cpu_gives(make):
    model = relu_net(5, bias=True, dtype=torch.float32)
    x = torch.randn(9, 4)
    on_gpu = make(copy.deepcopy(model).cuda(), Categorical())
    on_cpu = make(model, Categorical())
    for regulariser in (on_cpu, on_gpu):
        with torch.no_grad():
            regulariser.model[2].weight.mul_(1.3)
    a, b = on_cpu(x)[1], on_gpu(x.cuda())[1]
    assert number(b) == pytest.approx(number(a), rel=1e-3)  # TF32 products round to 2^-11
    g, h = (
        torch.cat([t.flatten().cpu() for t in torch.autograd.grad(p, list(r.model.parameters()))])
        for p, r in ((a, on_cpu), (b, on_gpu))
    )
    torch.testing.assert_close(g, h, rtol=1e-2, atol=1e-4)
