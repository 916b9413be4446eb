"""Small float64 networks, one for every supported kind of layer, and the dense reference they are held against."""

import warnings

import torch
from torch import nn
from torch.func import functional_call, jacrev

N = 5


class Normed(nn.Module):
    """Conv, group norm, in-place ReLU, grouped conv, batch norm with statistics of its own, mean, linear."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, stride=2)
        self.group = nn.GroupNorm(2, 4)
        self.grouped = nn.Conv2d(4, 4, 2, groups=2)
        self.batch = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.batch.running_mean.normal_()
        self.batch.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.head(self.batch(self.grouped(torch.relu_(self.group(self.conv(x))))).mean((2, 3)))


class Block(nn.Module):
    """A transformer block on characters: embeddings, layer norm, linear projections; per-position outputs."""

    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(6, 4), nn.Parameter(torch.randn(3, 4))
        self.norm = nn.LayerNorm(4)
        self.q, self.k, self.v = nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        h = self.norm(self.token(x) + self.position)
        h = h + (self.q(h) @ self.k(h).mT).softmax(-1) @ self.v(h)
        return self.head(h)


class Fused(nn.Module):
    """nn.MultiheadAttention: projections used functionally, off the fast path."""

    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.inner(x, x, x, need_weights=False)[0].mean(1))


class Recurrent(nn.Module):
    """LSTM: off the fast path."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 3, batch_first=True)
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Twice(nn.Module):
    """One module called twice, and its output changed in place."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.inner(torch.relu_(self.inner(x)))))


class Tied(nn.Module):
    """An embedding whose weight is also the head's."""

    def __init__(self):
        super().__init__()
        self.token, self.mix, self.head = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.token.weight

    def forward(self, x):
        return self.head(torch.tanh(self.mix(self.token(x).mean(1))))


def frozen():
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    net[0].weight.requires_grad_(False)
    net[2].bias.requires_grad_(False)
    return net


def conv(**options):
    def make():
        return nn.Sequential(nn.Conv2d(2, 3, 3, **options), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3))

    return make


NETWORKS = {
    "linear": (lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3, bias=False)), (4,)),
    "positions": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Flatten(), nn.Linear(10, 3)), (2, 4)),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3, padding=1, stride=2), nn.Flatten(), nn.Linear(12, 3)), (2, 7)),
    "conv2d dilated": (conv(dilation=2, bias=False), (2, 6, 6)),
    "conv2d circular": (conv(padding=1, padding_mode="circular"), (2, 4, 4)),
    "conv2d same": (conv(padding="same"), (2, 4, 4)),
    "norms": (Normed, (2, 6, 6)),
    "batchnorm1d": (lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)), (4,)),
    "layernorm image": (lambda: nn.Sequential(nn.LayerNorm([3, 2]), nn.Flatten(), nn.Linear(6, 3)), (3, 2)),
    "transformer": (Block, "tokens"),
    "attention": (Fused, (3, 4)),
    "lstm": (Recurrent, (4, 3)),
    "twice": (Twice, (4,)),
    "tied": (Tied, "tokens5"),
    "frozen": (frozen, (4,)),
}


def network(name, seed=0):
    """(model in eval mode, inputs), float64."""
    make, shape = NETWORKS[name]
    torch.manual_seed(seed)
    if shape == "tokens":
        x = torch.randint(0, 6, (N, 3))
    elif shape == "tokens5":
        x = torch.randint(0, 5, (N, 3))
    else:
        x = torch.randn(N, *shape)
    model = make().eval()
    with torch.no_grad():
        model(x)  # lazy layers take their shape
    model = model.double()
    return model, x.double() if x.is_floating_point() else x


def jacobian(model, space, x):
    """(N, outputs, P) by torch.func, in the flat layout."""
    params = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    out = []
    for i in range(len(x)):
        with warnings.catch_warnings():  # torch maps some operations one by one, and says so
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            j = jacrev(lambda p, i=i: functional_call(model, p, (x[i : i + 1],)).flatten())(params)
        count = next(iter(j.values())).shape[0]
        out.append(torch.stack([space.pack({k: v[r] for k, v in j.items()}) for r in range(count)]))
    return torch.stack(out)


def dense_fisher(model, space, law, x, y, kind="exact"):
    """(1/N) Σ Jᵀ H J, or with the residuals' outer product for the empirical form."""
    j, f = jacobian(model, space, x), model(x).detach()
    total = torch.zeros(space.size, space.size, dtype=torch.float64)
    for i in range(len(x)):
        if kind == "exact":
            root = law.fisher_root(f[i])
            h = root @ root.mT
            h = torch.block_diag(*h) if h.dim() == 3 else h
        else:
            r = law.residual(f[i : i + 1], y[i : i + 1]).flatten()
            h = torch.outer(r, r)
        total += j[i].T @ h @ j[i]
    return total / len(x)
