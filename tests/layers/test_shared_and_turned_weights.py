"""Layers of language models: weights stored (in, out), and weights that an embedding shares with an output layer."""

import pytest
import torch
from torch import nn

from memspace import Categorical, Task
from memspace.metric.fisher import build
from memspace.passes.capture import Capture
from memspace.passes.forms.bases import Bases
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.task.checks import evaluating
from tests.layers.truth import assert_exact

VOCABULARY, WIDTH, LENGTH = 7, 4, 5


class Conv1D(nn.Module):
    """As in ``transformers``: a linear layer with its weight stored as (in, out)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf) / nx**0.5), nn.Parameter(torch.randn(nf) / 5)

    def forward(self, x):
        size = (*x.size()[:-1], self.nf)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


class Decoder(nn.Module):
    """A small decoder as ``transformers`` writes it; its output layer may be the embedding's weight."""

    def __init__(self, tied=True, bias=False, padding=None):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, WIDTH, padding_idx=padding), nn.Embedding(LENGTH, WIDTH)
        self.c_attn, self.c_proj = Conv1D(3 * WIDTH, WIDTH), Conv1D(WIDTH, WIDTH)
        self.ln = nn.LayerNorm(WIDTH)
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=bias)
        if tied:
            self.lm_head.weight = self.wte.weight

    def hidden(self, ids):
        h = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        q, k, v = self.c_attn(self.ln(h)).split(WIDTH, -1)
        mask = torch.ones(ids.shape[1], ids.shape[1]).tril().bool()
        a = (q @ k.mT).masked_fill(~mask, -1e4).softmax(-1) @ v
        return h + self.c_proj(a)

    def forward(self, ids):
        return self.lm_head(self.hidden(ids))


class Classifier(Decoder):
    def forward(self, ids):
        return self.lm_head(self.hidden(ids)[:, -1])


class TwoTables(nn.Module):
    """Two embeddings and an output layer of one weight, padding in one of them."""

    def __init__(self):
        super().__init__()
        self.source, self.target = nn.Embedding(VOCABULARY, WIDTH, padding_idx=1), nn.Embedding(VOCABULARY, WIDTH)
        self.target.weight = self.source.weight
        self.out = nn.Linear(WIDTH, VOCABULARY)
        self.out.weight = self.source.weight

    def forward(self, ids):
        return self.out(torch.tanh(self.source(ids).sum(1) + self.target(ids.flip(1)[:, :2]).mean(1)))


class SharedLinear(nn.Module):
    """One weight in two linear layers with biases of their own."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.head(torch.tanh(self.b(torch.tanh(self.a(x)))))


class SharedTables(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Embedding(VOCABULARY, 4), nn.Embedding(VOCABULARY, 4)
        self.b.weight = self.a.weight
        self.head = nn.Linear(4, 3)

    def forward(self, ids):
        return self.head(torch.tanh(self.a(ids).mean(1) * self.b(ids[:, :1]).mean(1)))


class SameModuleTwice(nn.Module):
    """One layer under two names."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.again, self.head = self.a, nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.again(torch.tanh(self.a(x)))))


def _ids(n=9, seed=0):
    return torch.randint(0, VOCABULARY, (n, LENGTH), generator=torch.Generator().manual_seed(seed))


MODELS = {
    "turned": (lambda: nn.Sequential(Conv1D(6, 4), nn.Tanh(), nn.Linear(6, 3)), "floats", {"turned"}),
    "turned, positions": (
        lambda: nn.Sequential(nn.Embedding(VOCABULARY, 4), Conv1D(6, 4), nn.Tanh(), nn.Flatten(), nn.Linear(30, 3)),
        "ids",
        {"turned"},
    ),
    "decoder, last position": (Classifier, "ids", {"tied", "turned"}),
    "with a bias of its own": (lambda: Classifier(bias=True), "ids", {"tied"}),
    "with padding": (lambda: Classifier(padding=3), "ids", {"tied"}),
    "two tables and an output layer": (TwoTables, "ids", {"tied"}),
    "two linear layers": (SharedLinear, "floats", {"linear"}),
    "two embeddings": (SharedTables, "ids", {"embedding"}),
    "one module twice": (SameModuleTwice, "floats", {"linear"}),
}


@pytest.mark.parametrize("name", MODELS)
def test_shared_and_turned_weights_are_exact_and_on_the_fast_path(name):
    make, kind, kinds = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    x = _ids() if kind == "ids" else torch.randn(9, 4)
    own = [(p, p._version) for p in model.parameters()]
    space = assert_exact(model, x, torch.arange(9) % 3)
    found = {b.kind for b in space.blocks}
    assert kinds <= found
    assert not found & {"local", "loose"}
    assert space.size == sum(p.numel() for p in model.parameters())
    assert all(p is q and p._version == v for (p, v), q in zip(own, model.parameters(), strict=True))


def test_a_flat_vector_of_shared_and_turned_weights_unpacks_to_what_was_packed():
    torch.manual_seed(0)
    model = Decoder(bias=True)
    space = ParameterSpace(model)
    flat = space.flat(model)
    back = space.unpack(flat)
    assert all(torch.equal(back[n], p) for n, p in model.named_parameters())
    assert torch.equal(space.pack(back), flat)


@pytest.mark.parametrize("representation", ["kfac", "ekfac"])
def test_kronecker_factors_keep_the_trace_of_tied_and_turned_weights(representation):
    torch.manual_seed(1)
    model, ids = Decoder().double().eval(), _ids()
    task = Task(model=model, train=(ids, ids.roll(-1, 1)), likelihood=Categorical())
    space = verified_space(task)
    dense = build(task, space, "dense")
    tied = next(b for b in space.blocks if b.kind == "tied")
    metric = build(task, space, representation)
    if representation == "ekfac":
        assert metric.trace().value == pytest.approx(dense.trace().value, rel=1e-9)
    part = next(k for k in metric.blocks if k.block == tied)
    block = dense.to_dense()[tied.start : tied.stop, tied.start : tied.stop]
    assert float(part.values.sum()) == pytest.approx(float(block.trace()), rel=1e-9)
    basis = torch.kron(torch.eye(VOCABULARY).double(), part.bases.a.contiguous())
    if representation == "ekfac":  # the second moments in the block's own basis
        assert torch.allclose((basis.t() @ block @ basis).diagonal(), part.values.flatten(), rtol=1e-8)
    else:  # the rows' squares, and the columns' second moment
        rows = block.diagonal().reshape(VOCABULARY, WIDTH)
        assert torch.allclose(part.values.sum(1), rows.sum(1), rtol=1e-8)
        columns = block.reshape(VOCABULARY, WIDTH, VOCABULARY, WIDTH).diagonal(dim1=0, dim2=2).sum(-1)
        assert torch.allclose(part.values.sum(0), torch.linalg.eigvalsh(columns), rtol=1e-8)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_sum_of_two_forms_does_everything_as_its_formed_gradients(seed):
    torch.manual_seed(seed)
    model, ids = Decoder().double().eval(), _ids(5, seed)
    space = ParameterSpace(model)
    block = next(b for b in space.blocks if b.kind == "tied")
    with evaluating(model), Capture(model, space) as capture:
        signals = capture.forward(ids)
        u = torch.randn(2, *signals.f.shape).double()
        form = signals.form(block, signals.cotangents(u)[block.name])
    q, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH).double())
    w, v = torch.rand(3, *block.shape).double(), torch.randn(3, *block.shape).double()
    for each, g in ((form, form.gradients()), (form.rotate(Bases(q, None)), form.gradients() @ q)):
        assert torch.allclose(each.gradients(), g)
        assert torch.allclose(each.squared_norms(), g.square().sum((2, 3)))
        assert torch.allclose(each.squares(), g.square().sum((0, 1)))
        assert torch.allclose(each.pairs(w), torch.einsum("doi,kboi,lboi->dbkl", w, g, g))
        assert torch.allclose(each.scores(v), torch.einsum("qoi,kboi->kbq", v, g))
    g = form.gradients()
    c = torch.randn(2, 5, 3).double()
    assert torch.allclose(form.push(v), torch.einsum("qoi,kboi->kbq", v, g))
    assert torch.allclose(form.pull(c), torch.einsum("kbq,kboi->qoi", c, g))
    moments = form.moments()
    assert torch.allclose(moments.a, torch.einsum("kbvi,kbvj->ij", g, g))
    assert torch.allclose(moments.g, g.square().sum((0, 1, 3)))
