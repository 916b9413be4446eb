"""Small float64 networks with adapters on frozen layers and with reparametrised weights, as people bring them."""

import warnings

import torch
from torch import nn
from torch.nn.utils import parametrizations as p
from torch.nn.utils import parametrize

from tests.contract.networks import Fused, N


class Adapter(nn.Module):
    """A frozen linear layer and, beside it, two trained ones of low rank."""

    def __init__(self, base, rank=2, scale=0.7):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        self.scale = scale

    def forward(self, x):
        return self.base(x) + self.scale * self.up(self.down(x))


class Inside(nn.Module):
    """The same with two matrices of its own, multiplied onto the input, or onto the input's columns, or merged."""

    def __init__(self, base, form, rank=2):
        super().__init__()
        self.base, self.form = base.requires_grad_(False), form
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features))
        self.lora_B = nn.Parameter(torch.randn(base.out_features, rank))

    def forward(self, x):
        if self.form == "rows":
            return self.base(x) + x @ self.lora_A.T @ self.lora_B.T
        if self.form == "columns":
            return self.base(x) + (self.lora_B @ (self.lora_A @ x.mT)).mT
        return nn.functional.linear(x, self.base.weight + self.lora_B @ self.lora_A, self.base.bias)


class Columns(nn.Module):
    """Examples as columns from the first layer to the last."""

    def __init__(self):
        super().__init__()
        self.own = _Column()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.own(x.T)).T)


class _Column(nn.Module):
    def __init__(self):
        super().__init__()
        self.lora_A, self.lora_B = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.randn(4, 2))

    def forward(self, x):
        return self.lora_B @ (self.lora_A @ x)


class Attention(nn.Module):
    """Adapters on the queries and values of a frozen attention layer over tokens; a frozen head."""

    def __init__(self, adapt):
        super().__init__()
        self.token = nn.Embedding(6, 4).requires_grad_(False)
        self.q, self.v = adapt(nn.Linear(4, 4)), adapt(nn.Linear(4, 4))
        self.k, self.head = nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 3).requires_grad_(False)

    def forward(self, x):
        h = self.token(x)
        h = h + (self.q(h) @ self.k(h).mT).softmax(-1) @ self.v(h)
        return self.head(h.mean(1))


def patched():
    """Adapters registered on a plain layer whose forward is replaced."""
    net = chain(nn.Linear(4, 4))
    layer = net[0]
    layer.weight.requires_grad_(False)
    layer.lora_A, layer.lora_B = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.randn(4, 2))
    plain = layer.forward
    layer.forward = lambda x: plain(x) + x @ layer.lora_A.T @ layer.lora_B.T
    return net


class LowRank(nn.Module):
    """A parametrisation: the frozen weight plus a product of low rank."""

    def __init__(self, rows, columns, rank=2):
        super().__init__()
        self.lora_A = nn.Parameter(torch.randn(rank, columns))
        self.lora_B = nn.Parameter(torch.randn(rows, rank))

    def forward(self, weight):
        return weight + self.lora_B @ self.lora_A


def parametrised():
    net = chain(nn.Linear(4, 4))
    parametrize.register_parametrization(net[0], "weight", LowRank(4, 4))
    net[0].parametrizations.weight.original.requires_grad_(False)
    return net


def chain(*first):
    return nn.Sequential(*first, nn.Tanh(), nn.Linear(4, 3))


def pictures(first):
    return lambda: nn.Sequential(first(), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3))


def weighted(norm):
    """A layer norm whose weight is reparametrised and whose bias is not."""

    class Positive(nn.Module):
        def forward(self, w):
            return nn.functional.softplus(w)

    parametrize.register_parametrization(norm, "weight", Positive())
    return norm


def attention(part):
    def make():
        net = Fused()
        if part == "in_proj_weight":
            p.weight_norm(net.inner, part)
        else:
            p.weight_norm(net.inner.out_proj)
        return net

    return make


def older(apply, make):
    """The hook-based forms, deprecated and still found in many checkpoints."""

    def build():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(apply)

    return build


ADAPTERS = {
    "two layers": (lambda: chain(Adapter(nn.Linear(4, 4))), (4,)),
    "two layers, positions": (
        lambda: nn.Sequential(Adapter(nn.Linear(4, 4)), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)),
        (3, 4),
    ),
    "rows": (lambda: chain(Inside(nn.Linear(4, 4), "rows")), (4,)),
    "columns": (lambda: chain(Inside(nn.Linear(4, 4), "columns")), (4,)),
    "merged": (lambda: chain(Inside(nn.Linear(4, 4), "merged")), (4,)),
    "examples as columns": (Columns, (4,)),
    "attention, layers": (lambda: Attention(Adapter), "tokens"),
    "attention, merged": (lambda: Attention(lambda b: Inside(b, "merged")), "tokens"),
    "patched forward": (patched, (4,)),
    "low-rank parametrisation": (parametrised, (4,)),
}

REPARAMETRISED = {
    "weight norm": (lambda: chain(p.weight_norm(nn.Linear(4, 4))), (4,)),
    "weight norm, by column": (lambda: chain(p.weight_norm(nn.Linear(4, 4), dim=1)), (4,)),
    "weight norm, conv": (pictures(lambda: p.weight_norm(nn.Conv2d(2, 3, 2))), (2, 3, 3)),
    "weight norm, grouped": (pictures(lambda: p.weight_norm(nn.Conv2d(2, 4, 2, groups=2))), (2, 3, 3)),
    "weight norm, transposed": (pictures(lambda: p.weight_norm(nn.ConvTranspose2d(2, 3, 2))), (2, 3, 3)),
    "weight norm, embedding": (
        lambda: nn.Sequential(p.weight_norm(nn.Embedding(6, 4)), nn.Flatten(), nn.Linear(12, 3)),
        "tokens",
    ),
    "weight norm, queries": (attention("in_proj_weight"), (3, 4)),
    "weight norm, attention's output": (attention("out_proj"), (3, 4)),
    "spectral norm": (lambda: chain(p.spectral_norm(nn.Linear(4, 4))), (4,)),
    "spectral norm, conv": (pictures(lambda: p.spectral_norm(nn.Conv2d(2, 3, 2))), (2, 3, 3)),
    "orthogonal": (lambda: chain(p.orthogonal(nn.Linear(4, 4))), (4,)),
    "orthogonal, cayley": (lambda: chain(p.orthogonal(nn.Linear(4, 4), orthogonal_map="cayley")), (4,)),
    "orthogonal, householder": (lambda: chain(p.orthogonal(nn.Linear(4, 4), orthogonal_map="householder")), (4,)),
    "norm's weight": (lambda: chain(weighted(nn.LayerNorm(4))), (4,)),
    "bilinear": (lambda: Both(), (4,)),
    "older weight norm": (older(nn.utils.weight_norm, lambda f: chain(f(nn.Linear(4, 4)))), (4,)),
    "older weight norm, conv": (
        older(nn.utils.weight_norm, lambda f: pictures(lambda: f(nn.Conv2d(2, 3, 2)))()),
        (2, 3, 3),
    ),
    "older spectral norm": (older(nn.utils.spectral_norm, lambda f: chain(f(nn.Linear(4, 4)))), (4,)),
}


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.both = p.weight_norm(nn.Bilinear(4, 4, 3))

    def forward(self, x):
        return self.both(x, torch.tanh(x))


def adapted(name, seed=0):
    """(model in eval mode, inputs), float64."""
    make, shape = (ADAPTERS | REPARAMETRISED)[name]
    torch.manual_seed(seed)
    x = torch.randint(0, 6, (N, 3)) if shape == "tokens" else torch.randn(N, *shape, dtype=torch.float64)
    model = make().double()
    with torch.no_grad():
        model(x)  # lazy layers take their shape, power iterations their vectors
    return model.eval(), x
