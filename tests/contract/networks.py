"""Small float64 networks of every kind of layer (variants are in ``test_layers``), and their dense reference."""

import torch
from torch import nn

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
    """nn.MultiheadAttention: projections used functionally; masks, weights and other keys where asked."""

    def __init__(self, batch_first=True, masked=False, cross=False, bias=True):
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, batch_first=batch_first, bias=bias)
        self.head = nn.Linear(4, 3)
        self.masked, self.cross = masked, cross

    def forward(self, x):
        keys = x[:, :2].flip(-1) if self.cross else x
        x, keys = (x, keys) if self.inner.batch_first else (x.transpose(0, 1), keys.transpose(0, 1))
        keys = x if not self.cross else keys
        mask = torch.ones(3, 3, dtype=torch.bool).triu(1) if self.masked else None
        h, weights = self.inner(x, keys, keys, attn_mask=mask, need_weights=not self.masked)
        h = h if self.inner.batch_first else h.transpose(0, 1)
        h = h.mean(1) if weights is None else h.mean(1) * weights.square().sum((1, 2)).unsqueeze(1)
        return self.head(h)


class Recurrent(nn.Module):
    """RNN, LSTM and GRU in their variants, on whole or packed sequences, reading outputs and last states."""

    def __init__(self, kind, packed=False, **options):
        super().__init__()
        self.inner = kind(3, 4, **options)
        self.packed, self.first = packed, options.get("batch_first", False)
        width = (options.get("proj_size") or 4) * (2 if options.get("bidirectional") else 1)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        lengths = 1 + (x[:, 0, 0] > 0).long() + 2 * (x[:, 1, 1] > 0).long()
        x = x if self.first else x.transpose(0, 1)
        if self.packed:
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=self.first, enforce_sorted=False)
        y, state = self.inner(x)
        if self.packed:
            y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=self.first)
        state = state[0] if isinstance(state, tuple) else state
        pooled = y.sum(1 if self.first else 0)
        return self.head(pooled) + state.sum((0, 2)).unsqueeze(1)


class TimeFirst(nn.Module):
    """Positions before examples, a position embedding shared by all examples, and padding tokens."""

    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(6, 4, padding_idx=1), nn.Embedding(3, 4)
        self.norm, self.mix, self.head = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = self.token(x.t()) + self.position(torch.arange(3)).unsqueeze(1)
        return self.head(torch.tanh(self.mix(self.norm(h))).mean(0))


class Shared(nn.Module):
    """A position embedding of shape (1, T), as transformers call it."""

    def __init__(self):
        super().__init__()
        self.token, self.position, self.head = nn.Embedding(6, 4), nn.Embedding(3, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = self.token(x) + self.position(torch.arange(3).unsqueeze(0))
        return self.head(torch.tanh(h) * h)


class Own(nn.Module):
    """A layer of the user's own: a scaled, shifted softplus with a matrix."""

    def __init__(self):
        super().__init__()
        self.scale, self.mix = nn.Parameter(torch.rand(4)), nn.Parameter(torch.randn(4, 4))

    def forward(self, x, shift=0.0):
        return nn.functional.softplus(x * self.scale + shift) @ self.mix


class WithOwn(nn.Module):
    """Calls a layer of the user's own twice, once with a keyword, around a known one."""

    def __init__(self):
        super().__init__()
        self.own, self.inner, self.head = Own(), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.own(self.inner(self.own(x)), shift=0.5))


class Pair(nn.Module):
    """A bilinear layer and a root-mean-square norm."""

    def __init__(self):
        super().__init__()
        self.inner, self.both, self.norm = nn.Linear(4, 3), nn.Bilinear(4, 3, 3), nn.RMSNorm(3)

    def forward(self, x):
        return self.norm(self.both(x, torch.tanh(self.inner(x))))


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
    "transformer": (Block, "tokens"),
    "attention": (Fused, (3, 4)),
    "attention, masked": (lambda: Fused(masked=True, bias=False), (3, 4)),
    "attention, time first": (lambda: Fused(batch_first=False), (3, 4)),
    "attention, other keys": (lambda: Fused(cross=True), (3, 4)),
    "rnn": (lambda: Recurrent(nn.RNN, nonlinearity="relu"), (4, 3)),
    "lstm": (lambda: Recurrent(nn.LSTM, num_layers=2, batch_first=True), (4, 3)),
    "lstm, both ways, projected": (lambda: Recurrent(nn.LSTM, bidirectional=True, proj_size=2), (4, 3)),
    "gru, packed": (lambda: Recurrent(nn.GRU, packed=True, bidirectional=True, batch_first=True), (4, 3)),
    "lstm, packed": (lambda: Recurrent(nn.LSTM, packed=True, bias=False), (4, 3)),
    "time first": (TimeFirst, "tokens"),
    "shared positions": (Shared, "tokens"),
    "own layer": (WithOwn, (4,)),
    "bilinear": (Pair, (4,)),
    "depthwise": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4, padding=1), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)),
        (4, 3, 3),
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.LazyLinear(3),
        ),
        (2, 2, 3),
    ),
    "weight norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)),
        (4,),
    ),
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
    if any(isinstance(m, nn.modules.lazy.LazyModuleMixin) for m in model.modules()):
        with torch.no_grad():
            model(x)  # lazy layers take their shape
    model = model.double()
    return model, x.double() if x.is_floating_point() else x


def jacobian(model, space, x):
    """(N, outputs, P) by plain autograd, one example and one output at a time, in the flat layout."""
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    out = []
    for i in range(len(x)):
        f = model(x[i : i + 1]).flatten()
        grads = [torch.autograd.grad(c, params.values(), retain_graph=True, allow_unused=True) for c in f]
        zero = {n: torch.zeros_like(p) for n, p in params.items()}
        rows = [{n: zero[n] if g is None else g for n, g in zip(params, row, strict=True)} for row in grads]
        out.append(torch.stack([space.pack(row) for row in rows]))
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
