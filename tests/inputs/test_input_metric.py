"""The pulled-back metric against dense references and closed forms; distances and certificates where they are exact."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from memspace.measures.input_metric import read_inputs, unreadable
from memspace.measures.lipschitz import certified_radius, lipschitz_bound
from memspace.task.laws.definition import boundary_of
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Likelihood, Poisson
from memspace.task.task import Task
from tests.inputs.networks import curved, inputs_of, linear

LAWS = [None, Bernoulli(), Gaussian(0.7), Poisson()]


def _dense(task: Task, x: Tensor) -> Tensor:
    """G of each input by autograd's own Jacobian and the law's matrix."""
    j = vmap(jacrev(lambda v: task.model(v.unsqueeze(0))[0]))(x)
    f = task.model(x).detach()
    eye = torch.eye(f.shape[1], dtype=f.dtype)
    h = torch.stack([task.likelihood.fisher_matvec(f, e.expand_as(f)) for e in eye], -1)
    return j.transpose(1, 2) @ h @ j


@pytest.mark.parametrize("law", LAWS)
def test_metric_is_the_dense_one(law: Likelihood | None) -> None:
    task = curved(likelihood=law)
    x = inputs_of(task)
    read = read_inputs(task, x)
    values, vectors = torch.linalg.eigh(_dense(task, x))
    assert torch.allclose(read.top, values[:, -1], rtol=1e-10)
    assert torch.allclose(read.trace, values.sum(1), rtol=1e-10)
    apart = (values[:, -1] - values[:, -2]) / values[:, -1] > 1e-3
    along = (read.direction * vectors[:, :, -1]).sum(1).abs()
    assert torch.allclose(along[apart], torch.ones_like(along[apart]), atol=1e-9)


@pytest.mark.parametrize("law", LAWS)
def test_divergence_of_a_step_is_half_the_metric_to_third_order(law: Likelihood | None) -> None:
    task = curved(likelihood=law)
    x = inputs_of(task)
    d = torch.nn.functional.normalize(torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2)))
    predicted = 0.5 * torch.einsum("ni,nij,nj->n", d, _dense(task, x), d)
    errors = []
    for size in (1e-3, 5e-4):
        kl = task.likelihood.kl(task.model(x).detach(), task.model(x + size * d).detach())
        errors.append(float((kl - size**2 * predicted).detach().abs().mean()))
    # third order: half the step leaves an eighth of the error
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.1)


def test_largest_information_is_reached_and_never_passed() -> None:
    f = 3 * torch.randn(500, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for law, best in ((Categorical(), [40.0, 40.0, 0, 0, 0, 0]), (Bernoulli(), [0.0] * 6)):
        root = law.fisher_root(torch.cat([f, torch.tensor([best], dtype=torch.float64)]))
        top = torch.linalg.eigvalsh(root @ root.transpose(1, 2))[:, -1]
        assert float(top.max()) <= boundary_of(law).largest_information + 1e-12
        assert float(top[-1]) == pytest.approx(boundary_of(law).largest_information, rel=1e-12)


@pytest.mark.parametrize(("margin", "certified"), [(0.5, 0.495), (1.0, 0.961), (3.0, 2.26)])
def test_certificates_of_logistic_regression(margin: float, certified: float) -> None:
    """Logit z = w·x with |w| = 1: the boundary lies exactly z away; the Fisher certificate saturates at π/2·2."""
    task = linear(torch.tensor([[0.6, 0.8]], dtype=torch.float64), likelihood=Bernoulli())
    x = margin * torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    read = read_inputs(task, x)
    bound = lipschitz_bound(task, x)
    assert bound == pytest.approx(1.0, rel=1e-12)
    assert isinstance(bound, float)
    plain, fisher = certified_radius(boundary_of(task.likelihood), bound, read.margin, read.boundary)
    assert float(fisher) == pytest.approx(certified, rel=5e-3)
    assert float(plain) == pytest.approx(margin, rel=1e-12)
    assert float(read.linear) == pytest.approx(margin, rel=1e-12)
    assert float(read.boundary) == pytest.approx(2 * (math.asin(math.sqrt(1 / (1 + math.exp(-margin)))) - math.pi / 4))


def test_two_classes_are_one_logit() -> None:
    """A softmax of two classes has the distances, metric and certificates of the logistic law of their difference."""
    w = torch.tensor([[0.5, -1.0, 0.3], [-0.2, 0.4, 0.1]], dtype=torch.float64)
    two, one = linear(w), linear((w[0] - w[1]).unsqueeze(0), likelihood=Bernoulli())
    x = inputs_of(two)
    a, b = read_inputs(two, x), read_inputs(one, x)
    for name in ("top", "trace", "boundary", "fisher", "margin", "linear", "linear_max"):
        assert torch.allclose(getattr(a, name), getattr(b, name), rtol=1e-9), name


def test_linear_distances_are_exact() -> None:
    """At the foot of the shortest way the two classes tie; by the largest entry likewise."""
    generator = torch.Generator().manual_seed(5)
    w, b = torch.randn(4, 7, generator=generator), torch.randn(4, generator=generator)
    task = linear(w, b)
    x = inputs_of(task)
    read = read_inputs(task, x)
    w = w.double()
    for i in range(len(x)):
        y = int(read.decision[i])
        ways = [(w[k] - w[y], float(read.f[i, y] - read.f[i, k])) for k in range(4) if k != y]
        assert float(read.linear[i]) == pytest.approx(min(g / float(v.norm()) for v, g in ways), rel=1e-6)
        assert float(read.linear_max[i]) == pytest.approx(min(g / float(v.abs().sum()) for v, g in ways), rel=1e-6)
        v, g = min(ways, key=lambda way: way[1] / float(way[0].norm()))
        foot = x[i] + v * g / float(v @ v)
        assert float(
            boundary_of(task.likelihood).gaps(task.model(foot[None]).detach(), read.decision[i : i + 1]).amin()
        ) == (pytest.approx(0, abs=1e-6))


def test_boundary_distance_is_the_least_over_the_boundary() -> None:
    """Against a fine search over all laws of three classes in which the decided one ties with another."""
    f = torch.tensor([[1.0, 0.3, -0.5], [2.0, -1.0, -1.1]], dtype=torch.float64)
    law = Categorical()
    t = torch.linspace(1e-6, 1 - 1e-6, 20_001, dtype=torch.float64)
    for row in f:
        best = math.inf
        for k in (1, 2):
            q = torch.zeros(len(t), 3, dtype=torch.float64)
            q[:, 0] = q[:, k] = t / 2
            q[:, 3 - k] = 1 - t
            q = q[q[:, 3 - k] <= q[:, 0] + 1e-12]
            best = min(best, float(law.distance(row.expand(len(q), 3), q.log()).min()))
        assert float(boundary_of(law).distance(row[None])) == pytest.approx(best, rel=1e-5)


def test_the_fisher_certificate_is_never_the_larger() -> None:
    f = 4 * torch.randn(1000, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for law in (Categorical(), Bernoulli()):
        margin = boundary_of(law).gaps(f, law.predict(f)).amin(-1)
        plain, fisher = certified_radius(boundary_of(law), 2.5, margin, boundary_of(law).distance(f))
        assert bool((fisher <= plain * (1 + 1e-9)).all())
        assert float((fisher / plain).max()) > 0.99  # near the boundary they agree


def test_bound_of_a_convolution_holds_and_is_close() -> None:
    """Against the largest singular value of the whole layer as a matrix."""
    torch.manual_seed(0)
    for stride, padding in ((1, 1), (2, 0), (2, 2)):
        layer = nn.Conv2d(2, 3, 3, stride=stride, padding=padding).double()
        x = torch.zeros(1, 2, 7, 6, dtype=torch.float64)
        rows = jacrev(lambda v, layer=layer: layer(v).flatten())(x).detach().reshape(-1, x.numel())
        true = float(torch.linalg.matrix_norm(rows, 2))
        model = nn.Sequential(layer, nn.Flatten())
        bound = lipschitz_bound(Task(model, (x, torch.zeros(1, dtype=torch.long))), x)
        assert isinstance(bound, float)
        assert true <= bound * (1 + 1e-9)
        if stride == 1:
            assert bound < 1.15 * true


def test_bound_holds_for_a_whole_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3),
        nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 6), nn.SiLU(), nn.Linear(6, 3),
    ).double()  # fmt: skip
    model[1].running_var.fill_(0.3)
    x = torch.randn(200, 1, 8, 8, dtype=torch.float64)
    task = Task(model.eval(), (x, torch.zeros(200, dtype=torch.long)))
    bound = lipschitz_bound(task, x[:1])
    assert isinstance(bound, float)
    near = x + 1e-4 * torch.randn_like(x)
    moved = (model(near) - model(x)).detach().norm(dim=1) / (near - x).flatten(1).norm(dim=1)
    slopes = torch.linalg.matrix_norm(vmap(jacrev(lambda v: model(v[None])[0]))(x).flatten(2), 2)
    assert float(slopes.detach().max()) <= bound
    assert float(moved.max()) <= bound


def test_what_has_no_bound_says_so() -> None:
    x = torch.randn(4, 6)
    y = torch.zeros(4, dtype=torch.long)
    model = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    assert "LayerNorm" in str(lipschitz_bound(Task(model, (x, y)), x[:1]))
    overlapping = nn.Sequential(nn.MaxPool2d(3, 1), nn.Flatten(), nn.Linear(4, 2))
    pictures = torch.randn(4, 1, 4, 4)
    assert isinstance(lipschitz_bound(Task(overlapping, (pictures, y)), pictures[:1]), str)


def test_inputs_without_a_metric_say_why() -> None:
    y = torch.zeros(4, dtype=torch.long)
    tokens = nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(15, 2))
    why = unreadable(Task(tokens, (torch.zeros(4, 5, dtype=torch.long), y)))
    assert why is not None
    assert "tokens" in why.reason
    sequence = unreadable(Task(nn.Linear(3, 2), (torch.randn(4, 5, 3), torch.zeros(4, 5, dtype=torch.long))))
    assert sequence is not None
    assert "positions" in sequence.reason
    wide = unreadable(Task(nn.Linear(3, 300), (torch.randn(4, 3), y)))
    assert wide is not None
    assert "300" in wide.reason
    assert unreadable(linear(torch.eye(3))) is None


def test_layers_that_work_in_place_and_the_model_are_left_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 3))
    x = torch.randn(8, 5)
    before = x.clone()
    task = Task(model, (x, torch.zeros(8, dtype=torch.long)))
    read_inputs(task, x)
    assert torch.equal(x, before)
    assert all(p.grad is None for p in model.parameters())
    assert model.training
