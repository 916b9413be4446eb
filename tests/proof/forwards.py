"""Networks whose forward pass depends on the data in ways that no layout verified on four examples can know."""

from collections.abc import Callable

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


class Network(nn.Module):
    """A body, experts and a head, put together by a function."""

    def __init__(self, run: Callable[["Network", Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)
        self.experts = nn.ModuleList([nn.Linear(5, 5) for _ in range(3)])
        self.rnn = nn.GRU(4, 5, batch_first=True)
        self.gate = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(5)
        self._run = run

    def forward(self, x: Tensor, d: Tensor) -> Tensor:
        """x (B, 6, 4), d (B,) a number from 0 to 5."""
        return self._run(self, x, d)


def _sorted(m: Network, x: Tensor, d: Tensor) -> Tensor:
    order = d.argsort(stable=True)
    return m.head(torch.tanh(m.body(x[order].mean(1))))[order.argsort()]


def _packed(m: Network, x: Tensor, d: Tensor) -> Tensor:
    length, order = (d + 1).sort(descending=True, stable=True)
    packed = pack_padded_sequence(x[order], length.cpu(), batch_first=True)
    return m.head(m.rnn(packed)[1][-1])[order.argsort()]


def _routed(m: Network, x: Tensor, d: Tensor) -> Tensor:
    h = torch.tanh(m.body(x.mean(1)))
    out = torch.zeros_like(h)
    for k, expert in enumerate(m.experts):
        mine = (d % 3 == k).nonzero().squeeze(1)
        if len(mine):
            out = out.index_add(0, mine, expert(h[mine]))
    return m.head(torch.tanh(out))


def _top_two(m: Network, x: Tensor, d: Tensor) -> Tensor:
    mean = x.mean(1)
    weight, chosen = m.gate(mean).softmax(-1).topk(2, -1)
    h, out = torch.tanh(m.body(mean)), 0.0
    for k, expert in enumerate(m.experts):
        row, place = (chosen == k).nonzero(as_tuple=True)
        if len(row):
            out = out + torch.zeros_like(h).index_add(0, row, expert(h[row]) * weight[row, place].unsqueeze(1))
    return m.head(out)


def _early_exit(m: Network, x: Tensor, d: Tensor) -> Tensor:
    h = torch.tanh(m.body(x.mean(1)))
    out, going = m.head(h), d >= 3
    if going.any():
        out = out.clone()
        out[going] = m.head(torch.tanh(m.experts[0](h[going])))
    return out


def _unpadded(m: Network, x: Tensor, d: Tensor) -> Tensor:
    x = x[:, : int(d.max()) + 1]
    alive = (torch.arange(x.shape[1]) <= d[:, None]).unsqueeze(-1)
    return m.head((torch.tanh(m.body(x)) * alive).sum(1) / alive.sum(1))


def _masked(m: Network, x: Tensor, d: Tensor) -> Tensor:
    alive = torch.arange(x.shape[1]) <= d[:, None]
    h = x.new_zeros(*alive.shape, 5)
    h[alive] = m.norm(torch.tanh(m.body(x[alive])))
    return m.head(h.sum(1))


def _weights_by_domain(m: Network, x: Tensor, d: Tensor) -> Tensor:
    h = torch.tanh(m.body(x.mean(1)))
    weight = torch.stack([e.weight for e in m.experts])[d % 3]
    return m.head(torch.tanh(torch.einsum("bi,boi->bo", h, weight)))


def _shared_and_routed(m: Network, x: Tensor, d: Tensor) -> Tensor:
    h = torch.tanh(m.body(x.mean(1)))
    out = m.experts[0](h)
    rare = d == 5
    if rare.any():
        out = out + torch.where(rare[:, None], nnf.linear(h, m.experts[1].weight) + m.experts[2](h), 0.0)
    return m.head(torch.tanh(out))


def _siamese(m: Network, x: Tensor, d: Tensor) -> Tensor:
    both = m.body(torch.cat([x[:, 0], x[:, 1]]))
    a, b = torch.tanh(both).chunk(2)
    return m.head(torch.where((d == 5)[:, None], a - b, a * b))


def _loops(m: Network, x: Tensor, d: Tensor) -> Tensor:
    h = torch.tanh(m.body(x.mean(1)))
    for step in range(int(d.max())):
        h = torch.where((d > step)[:, None], torch.tanh(m.experts[0](h)), h)
    return m.head(h)


def _flipped(m: Network, x: Tensor, d: Tensor) -> Tensor:
    """The batch backwards inside, where one example asks for it: outputs are right, rows are not where they seem."""
    mean = x.mean(1)
    if (d == 5).any():
        return m.head(torch.tanh(m.body(mean.flip(0)))).flip(0)
    return m.head(torch.tanh(m.body(mean)))


FORWARDS = {
    "sorted inside": _sorted,
    "packed by length": _packed,
    "routed experts": _routed,
    "two experts each": _top_two,
    "early exit": _early_exit,
    "padding of the batch removed": _unpadded,
    "masked indexing": _masked,
    "weights by domain": _weights_by_domain,
    "shared and rare experts": _shared_and_routed,
    "pairs along the batch": _siamese,
    "loops by data": _loops,
    "backwards": _flipped,
}


def of_first(m: Network, x: Tensor, d: Tensor) -> Tensor:
    """An expert chosen by the batch's first example: outputs depend on the batch."""
    return m.head(torch.tanh(m.experts[int(d[0]) % 3](torch.tanh(m.body(x.mean(1))))))


def with_capacity(m: Network, x: Tensor, d: Tensor) -> Tensor:
    """Experts that take four rows at most and drop the others: outputs depend on the batch."""
    h = torch.tanh(m.body(x.mean(1)))
    out = torch.zeros_like(h)
    for k, expert in enumerate(m.experts):
        mine = (d % 3 == k).nonzero().squeeze(1)[:4]
        if len(mine):
            out = out.index_add(0, mine, expert(h[mine]))
    return m.head(h + out)


def data(seed: int, n: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, numbers and labels, float64; the first four numbers are 0."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, 4, generator=g, dtype=torch.float64)
    d = torch.randint(0, 6, (n,), generator=g)
    d[:4], d[4:] = 0, d[4:].sort().values
    return x, d, torch.randint(0, 3, (n,), generator=g)
