"""Operations whose fused kernels torch differentiates twice wrongly, or not at all, against central differences."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import jvp

from memspace import Bernoulli, Categorical, FisherRaoNorm, Task
from memspace.geometry.network_flow import _second, embedded_outputs
from memspace.metric.fisher import build
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.task.operations import written_out

H = 1e-6
# A central difference of step h in float64: h² times third derivatives of up to 1e4, rounding near 1e-15/h.
TOLERANCE = 1e-6
WEIGHT, BIAS = torch.linspace(0.5, 2, 16).double(), torch.linspace(-1, 1, 16).double()
POINTS = torch.linspace(-1, 1, 16).double().view(4, 4).sin()


def _square(h):
    return h.view(-1, 4, 4)


OPERATIONS = {
    "layer norm": lambda h: F.layer_norm(h, (16,), WEIGHT, BIAS),
    "layer norm without parameters": lambda h: torch.layer_norm(h, (16,)),
    "layer norm over two axes": lambda h: F.layer_norm(_square(h), (4, 4)),
    "batch norm of the batch": lambda h: F.batch_norm(h, None, None, WEIGHT, BIAS, True),
    "batch norm of images": lambda h: F.batch_norm(h.view(-1, 2, 2, 4), None, None, WEIGHT[:2], BIAS[:2], True),
    "instance norm": lambda h: F.instance_norm(_square(h), weight=WEIGHT[:4], bias=BIAS[:4]),
    "instance norm of running statistics": lambda h: F.instance_norm(
        _square(h) ** 3, WEIGHT[:4], WEIGHT[4:8], use_input_stats=False
    ),
    "group norm": lambda h: F.group_norm(_square(h), 2, WEIGHT[:4], BIAS[:4]),
    "rms norm": lambda h: F.rms_norm(h, (16,), WEIGHT),
    "weight norm": lambda h: torch._weight_norm(_square(h)[0], POINTS[:, :1] + 2, 0),
    "distances": lambda h: torch.cdist(_square(h), POINTS),
    "distances, p = 1": lambda h: torch.cdist(_square(h), POINTS, p=1.0),
    "distances within": lambda h: F.pdist(h).unsqueeze(0),
    "determinant": lambda h: torch.linalg.det(_square(h) + 3 * torch.eye(4).double()).unsqueeze(1),
    "log determinant": lambda h: torch.slogdet(_square(h) + 3 * torch.eye(4).double())[1].unsqueeze(1),
    "gated": F.glu,
    "hard sigmoid": F.hardsigmoid,
    "prelu": lambda h: F.prelu(_square(h) ** 3, WEIGHT[:4] / 10),
    "bags": lambda h: F.embedding_bag(torch.tensor([0, 1, 3, 2, 2]), _square(h)[0] ** 2, torch.tensor([0, 2])),
    "heaviest of bags": lambda h: F.embedding_bag(torch.tensor([[0, 1], [3, 2]]), _square(h)[0] ** 2, mode="max"),
    "attention": lambda h: F.scaled_dot_product_attention(
        _square(h)[:, None], _square(h)[:, None], _square(h)[:, None]
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("seed", [0, 5])
def test_written_out_operations_have_torchs_values_and_right_derivatives_of_derivatives(name, seed):
    f = OPERATIONS[name]
    generator = torch.Generator().manual_seed(seed)
    h, v = torch.randn(2, 3, 16, generator=generator, dtype=torch.float64)
    with written_out():

        def push(t):
            return jvp(f, (t,), (v,))[1]

        w = torch.randn(f(h).shape, generator=generator, dtype=torch.float64)
        want = (push(h + H * v) - push(h - H * v)) / (2 * H)
        twice = jvp(push, (h,), (v,))[1]
        leaf = h.clone().requires_grad_()
        mixed = torch.autograd.grad((push(leaf) * w).sum(), leaf)[0]
    plain = f(h)
    with written_out():
        assert torch.allclose(f(h), plain, rtol=1e-10, atol=1e-12)
    scale = float(want.norm()) + 1e-3
    assert float((twice - want).norm()) < TOLERANCE * scale
    assert abs(float((mixed * v).sum() - (want * w).sum())) < TOLERANCE * scale * float(w.norm())


class Tokens(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.table, self.layer = (
            nn.Embedding(5, 4),
            nn.TransformerEncoderLayer(4, 2, 6, 0.0, batch_first=True, **options),
        )
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.layer(self.table(x)).mean(1))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.gain, self.last = nn.Linear(5, 8), nn.Parameter(torch.rand(8) + 0.5), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(torch.tanh(F.layer_norm(self.first(x), (8,), self.gain)))


def _mlp(norm):
    return nn.Sequential(nn.Linear(5, 8), norm, nn.Tanh(), nn.Linear(8, 3))


def _images(norm):
    return nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 4, 2), norm, nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))


def _quiet(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


NETWORKS = {
    "layer norm": lambda: _mlp(nn.LayerNorm(8)),
    "layer norm without parameters": lambda: _mlp(nn.LayerNorm(8, elementwise_affine=False)),
    "functional layer norm": Functional,
    "batch norm": lambda: _mlp(nn.BatchNorm1d(8)),
    "batch norm of images": lambda: _images(nn.BatchNorm1d(4)),
    "instance norm": lambda: _images(nn.InstanceNorm1d(4, affine=True)),
    "group norm": lambda: _mlp(nn.GroupNorm(2, 8)),
    "rms norm": lambda: _mlp(nn.RMSNorm(8)),
    "weight norm": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(5, 8)), nn.Tanh(), nn.Linear(8, 3)
    ),
    "transformer layer": Tokens,
    "transformer layer, norm first": lambda: Tokens(norm_first=True),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_the_gradient_of_the_fisher_rao_norm_is_that_of_the_norm(name, mode):
    torch.manual_seed(2)
    model = _quiet(NETWORKS[name]).double().train(mode == "training")
    x = torch.randint(0, 5, (6, 3)) if isinstance(model, Tokens) else torch.randn(6, 5).double()
    norm = FisherRaoNorm(model, Categorical())
    own = list(model.parameters())
    got = torch.autograd.grad(norm(x)[1], own, allow_unused=True, materialize_grads=True)
    v = [torch.randn_like(p) for p in own]

    def moved(step):
        with torch.no_grad():
            for p, t in zip(own, v, strict=True):
                p += step * t
        value = float(norm(x)[1].detach())
        with torch.no_grad():
            for p, t in zip(own, v, strict=True):
                p -= step * t
        return value

    want = (moved(H) - moved(-H)) / (2 * H)
    along = sum(float((g * t).sum()) for g, t in zip(got, v, strict=True))
    assert abs(along - want) < TOLERANCE * (abs(want) + 1e-3)


def test_running_statistics_move_as_in_a_plain_step():
    torch.manual_seed(0)
    model, twin = _mlp(nn.BatchNorm1d(8)), _mlp(nn.BatchNorm1d(8))
    twin.load_state_dict(model.state_dict())
    x = torch.randn(9, 5)
    FisherRaoNorm(model, Categorical())(x)
    twin(x)
    for name, buffer in twin.named_buffers():
        assert torch.allclose(buffer, dict(model.named_buffers())[name]), name


@pytest.mark.parametrize("name", ["layer norm", "functional layer norm", "rms norm"])
def test_the_second_derivative_along_a_geodesic_is_that_of_the_embedded_outputs(name):
    torch.manual_seed(1)
    model = NETWORKS[name]().double().eval()
    x, y = torch.randn(6, 5).double(), torch.arange(6) % 3
    task = Task(model=model, train=(x, y))
    space = ParameterSpace.of(task)
    phi = embedded_outputs(task, space, torch.arange(6))
    theta, v = space.flat(model), torch.randn(space.size).double()
    step = 1e-4  # a second difference: rounding 1e-16/h² and h² of the fourth derivative, both near 1e-8
    with torch.no_grad():
        want = (phi(theta + step * v) - 2 * phi(theta) + phi(theta - step * v)) / step**2
        got = _second(phi, theta, v)
    assert float((got - want).norm()) < 1e-5 * float(want.norm())


def test_what_is_computed_without_gradients_is_a_constant_for_forward_mode_too():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x):
            h = self.a(x)
            with torch.no_grad():
                gate = h.sigmoid() * 2
            return self.b(torch.tanh(h) * gate)

    torch.manual_seed(3)
    model = Half().double().eval()
    x, y = torch.randn(7, 3).double(), torch.randint(0, 2, (7, 1)).double()
    task = Task(model=model, train=(x, y), likelihood=Bernoulli())
    space = verified_space(task)
    dense = build(task, space, "dense")
    v = torch.randn(space.size).double()
    space.verified = False  # products by forward and reverse mode, not from signals
    assert torch.allclose(build(task, space, "implicit").matvec(v), dense.matvec(v), rtol=1e-8)
